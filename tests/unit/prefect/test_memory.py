"""What a run's memory is counted as."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app.prefect.worker.memory import memory_bytes, processes_of

MIB = 1 << 20
# A parent with much memory, which it shares with a child that is forked from a thread and with one below that.
CODE = """
import os, sys, threading, time
held = b"x" * (64 << 20)
def fork():
    if os.fork() == 0:
        if os.fork() == 0:
            print("up", flush=True)
        time.sleep(600)
thread = threading.Thread(target=fork)
thread.start()
time.sleep(600)
"""


@pytest.fixture
def family() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CODE], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid
        os.killpg(process.pid, signal.SIGKILL)


def test_processes_below_those_below_are_a_run_s_too(family: int) -> None:
    found = processes_of(family)
    assert (found[0], len(set(found))) == (family, 3)


def test_what_is_shared_is_counted_once(family: int) -> None:
    assert memory_bytes(family, above=1 << 40) > 3 * 64 * MIB
    assert 64 * MIB < memory_bytes(family, above=0) < 2 * 64 * MIB


def test_a_process_that_is_gone_has_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert processes_of(process.pid) == [process.pid]
    assert memory_bytes(process.pid, above=0) == 0

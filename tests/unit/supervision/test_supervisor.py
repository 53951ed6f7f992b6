"""The head of a tree and its children, all of them real processes: nothing is left, whoever is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from tests.support.servers import is_alive
from tests.support.service_process import until
from tests.support.small_tree import FOREVER, STUBBORN, WITH_ONE_BELOW, WITHIN_S, SmallTree, start

# So long that a busy machine does not come to it: what is tested comes in order.
NEVER = {"last_after_s": 100.0, "kill_after_s": 110.0}


class Start(Protocol):
    def __call__(self, *children: dict[str, Any], **times: float) -> SmallTree: ...


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Start]:
    """Starts trees, and cleans up after them."""
    started: list[SmallTree] = []

    def begin(*children: dict[str, Any], **times: float) -> SmallTree:
        started.append(start(tmp_path, *children, **times))
        return started[-1]

    yield begin
    for one in started:
        one.clean()


def child(name: str, code: str = FOREVER, **more: Any) -> dict[str, Any]:
    return {"name": name, "code": code, **more}


def test_it_is_ready_when_all_that_was_looked_for_is_so(tree: Start, tmp_path: Path) -> None:
    running = tree(child("a", looks=["a.pid", "answers"]), child("b", needs=["answers"]))
    running.said("Waiting for a to find answers and b to find answers.")
    assert not (tmp_path / "b.pid").exists()
    (tmp_path / "answers").touch()
    assert running.ready() == {"a": running.pid("a"), "b": running.pid("b")}
    assert running.log.index("The a is ready.") < running.log.index("The b is ready.")
    assert "  a   a is here" in running.log
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 128 + signal.SIGTERM


def test_a_child_that_was_killed_is_started_again(tree: Start) -> None:
    running = tree(child("a"), child("b"))
    first = running.ready()
    os.kill(first["a"], signal.SIGKILL)
    running.another("a", first["a"])
    running.said("The a ended by signal 9; it is started again in 0.5 s.")
    running.said("Everything is ready again.")
    assert is_alive(first["b"])


def test_what_a_killed_child_leaves_goes_on_and_ends_with_the_tree(tree: Start) -> None:
    # As a run does: it settles itself when whoever started it has gone.
    running = tree(child("a", WITH_ONE_BELOW), child("b"))
    first = running.ready()
    left = running.pid("a-below")
    os.kill(first["a"], signal.SIGKILL)
    running.said("Everything is ready again.")
    assert psutil.Process(left).ppid() == running.process.pid
    (running.home / "a-left.pid").write_text(str(left))
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 128 + signal.SIGINT


@pytest.mark.parametrize("also_the_watchdog", [False, True])
def test_nothing_is_left_when_the_head_is_killed(tree: Start, *, also_the_watchdog: bool) -> None:
    running = tree(child("a", WITH_ONE_BELOW if not also_the_watchdog else FOREVER), child("b"))
    running.ready()
    watchdog = _watchdog(running)
    # A signal to process 0 would be one to this very process.
    assert watchdog
    if also_the_watchdog:
        os.kill(watchdog, signal.SIGSTOP)
    running.process.kill()
    running.process.wait()
    if also_the_watchdog:
        os.kill(watchdog, signal.SIGKILL)
    running.all_gone()
    until(lambda: not is_alive(watchdog), WITHIN_S, "the watchdog has ended")


def test_a_stubborn_child_is_killed_when_the_head_is(tree: Start) -> None:
    running = tree(child("a", STUBBORN))
    running.ready()
    running.process.kill()
    running.process.wait()
    running.all_gone()


def test_a_watchdog_that_was_killed_has_a_successor(tree: Start) -> None:
    running = tree(child("a", WITH_ONE_BELOW))
    running.ready()
    first = _watchdog(running)
    assert first
    os.kill(first, signal.SIGKILL)
    until(lambda: _watchdog(running) not in (0, first), WITHIN_S, "there is another watchdog")
    running.process.kill()
    running.process.wait()
    running.all_gone()


def test_who_is_needed_by_the_others_ends_last(tree: Start) -> None:
    orderly = (
        "def end(*_):\n    print(name, 'ends at', time.monotonic(), flush=True)\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
    )
    slowly = orderly.replace("sys.exit()", "time.sleep(1)\n    print(name, 'is done', flush=True)\n    sys.exit()")
    running = tree(child("server", orderly + FOREVER, last=True), child("worker", slowly + FOREVER), **NEVER)
    running.ready()
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 128 + signal.SIGTERM
    assert running.log.index("worker is done") < running.log.index("server ends at")


def test_a_second_signal_kills_at_once(tree: Start) -> None:
    running = tree(child("a", STUBBORN), **NEVER)
    running.ready()
    running.process.send_signal(signal.SIGINT)
    running.said("Stopping; once more kills at once.")
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 128 + signal.SIGINT
    assert f"Killed at once: {running.pid('a')}." in running.log


@pytest.mark.parametrize(
    ("others", "times", "seconds"),
    [
        ([], {}, 8),
        # So long that these have ended before, also where the machine is busy.
        ([child("b", WITH_ONE_BELOW)], {"kill_after_s": 20.0}, 20),
    ],
)
def test_a_stubborn_child_is_killed_in_the_end(
    tree: Start, others: list[dict[str, Any]], times: dict[str, float], seconds: int
) -> None:
    running = tree(child("a", STUBBORN), *others, **times)
    running.ready()
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 128 + signal.SIGINT
    assert f"Killed after {seconds} s: {running.pid('a')}." in running.log


def test_a_child_that_never_starts_is_given_up_and_the_others_end(tree: Start) -> None:
    running = tree(child("a"), child("b", "print('no disk: very-secret-text')\nsys.exit(7)"))
    told: dict[str, Any] = running.ready()
    assert told == {
        "code": "child_failed",
        "message": "The b cannot be started: it ended 3 times before it was ready, the last time with exit status 7.",
    }
    assert running.ended() == 1
    assert "  b   no disk: ***" in running.log


def test_a_child_that_the_system_does_not_start_is_given_up(tree: Start) -> None:
    running = tree(child("a"), child("b", filling=1 << 20))
    told: dict[str, Any] = running.ready()
    assert told["code"] == "child_failed"
    assert told["message"].endswith("the last time before it began: Argument list too long.")
    assert running.ended() == 1


def test_a_child_that_was_ready_once_is_never_given_up(tree: Start) -> None:
    # Ready means a file that stays, so that each start of it counts as one that was ready.
    running = tree(child("a", "note(f'{name}.pid', os.getpid())\ntime.sleep(1)\nsys.exit(1)"))
    running.ready()
    running.said("The a ended with exit status 1", times=4)
    assert running.process.poll() is None


def test_a_second_tree_in_the_same_folder_is_refused(tree: Start) -> None:
    running = tree(child("a"))
    running.ready()
    log = running.log
    second: dict[str, Any] = tree(child("a")).ready()
    assert second["code"] == "already_up"
    assert f"as process {running.process.pid}." in second["message"]
    assert log


def test_a_folder_is_free_again_when_the_watchdog_is_done(tree: Start) -> None:
    running = tree(child("a", STUBBORN))
    first = running.ready()["a"]
    running.process.kill()
    running.process.wait()
    again = tree(child("a")).ready()
    assert again["a"] != first
    # It was waited for: two processes of the same tree never write the same files.
    assert not is_alive(first)


def _watchdog(running: SmallTree) -> int:
    found = [one.pid for one in psutil.Process(running.process.pid).children() if _is_watchdog(one)]
    return found[0] if found else 0


def _is_watchdog(process: psutil.Process) -> bool:
    try:
        return "app.supervision.watchdog" in process.cmdline()
    except psutil.NoSuchProcess:
        return False

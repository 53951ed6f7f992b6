"""Child processes that take jobs: one thread for each of them, which starts it late, watches it and replaces it."""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.engines.embedded.messages import Answer, Beat, Broke, Frames, Message, Opened, Reads, Ready

_NAMES = frozenset({"PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"})
# Where a machine at Google says who it is; the library has no other way to be told.
_MACHINE = frozenset({"GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"})
_PROXIES = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy"})
_PREFIXES = ("LC_", "ARROW_", "MALLOC_", "MIMALLOC_")
_ALLOCATION = {
    # Each arena of glibc reserves 64 MiB of address space, and that is what a child's limit counts.
    "MALLOC_ARENA_MAX": "2",
    # Piece after piece needs the same memory again. Given back and asked for anew, it is zeroed by the kernel, page by
    # page, which costs a fifth of all work; so the allocators of Python and of Arrow keep it.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024),
    "MIMALLOC_PURGE_DELAY": "10000",
}
STDERR_TAIL_BYTES = 4096
_OUT_OF_MEMORY = (b"bad_alloc", b"out of memory", b"memoryerror", b"cannot allocate memory")
# How often a thread looks whether its task was called off.
_LOOK_S = 0.2


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child may know: where programs and certificates are, language, proxies. No address and no secret of ours.

    Args:
        environ: This process's environment.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name in _NAMES | _MACHINE or name.lower() in _PROXIES or name.startswith(_PREFIXES)
    }
    # The folder above the package, never the package itself, whose modules would hide others of the same name.
    kept["PYTHONPATH"] = str(Path(__file__).resolve().parents[3])
    return _ALLOCATION | kept


@dataclass(frozen=True)
class Died:
    """The child ended, or was ended, before its job did."""

    reason: str
    # It hit a limit of ours: silence for too long.
    by_limit: bool = False
    # What it said last sounds as if its memory did not suffice.
    out_of_memory: bool = False
    # It never came up: no file can be the cause.
    at_start: bool = False


@dataclass(frozen=True)
class CalledOff:
    """The task was called off; its child, if it had one, is gone."""


Outcome = Answer | Died | CalledOff


@dataclass(frozen=True)
class Task:
    """A job on its way, packed as `frame` does. The callbacks run in the thread of the child that has it.

    `finish` is called exactly once, after the last `hear`. `called_off` ends the job at once, with its child.
    """

    job: bytes
    hear: Callable[[Beat | Reads | Opened], None]
    finish: Callable[[Outcome], None]
    called_off: threading.Event = field(default_factory=threading.Event)


class ChildPool:
    """Up to `processes` children, started when there is work for them and kept for the next."""

    def __init__(
        self,
        *,
        processes: int,
        memory_bytes: int,
        stall_timeout_s: float,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        """Start nothing yet.

        Args:
            processes: How many children there may be.
            memory_bytes: Address space of each.
            stall_timeout_s: A child that says nothing for so long is killed.
            failpoints: For tests. The first child has them too; those that take the place of one that it ended do not.
        """
        self._processes = processes
        self._memory_bytes = memory_bytes
        self._stall_timeout_s = stall_timeout_s
        self._failpoints = failpoints
        self._for_children = iter((failpoints.text,))
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        # Threads without a task, less the tasks that wait for one.
        self._free = 0
        self._closed = threading.Event()

    def submit(self, task: Task) -> None:
        """Give `task` to the next child that is free; a closed pool calls it off."""
        with self._lock:
            closed = self._closed.is_set()
            if not closed:
                if self._free <= 0 and len(self._threads) < self._processes:
                    self._start_thread()
                    self._free += 1
                self._free -= 1
                self._tasks.put(task)
        if closed:
            task.finish(CalledOff())

    def start(self, count: int) -> None:
        """Let `count` children come up, or as many as there may be, before there is work for them. Returns at once."""
        with self._lock:
            while not self._closed.is_set() and len(self._threads) < min(count, self._processes):
                self._start_thread(early=True)
                self._free += 1

    def _start_thread(self, *, early: bool = False) -> None:
        # The thread lives as long as its children: the kernel ends them with the thread that made them.
        thread = threading.Thread(
            target=self._serve, kwargs={"early": early}, name="embedded-engine-child", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """End every child, also one at work, and wait until they are gone. Idempotent."""
        with self._lock:
            self._closed.set()
            threads, self._threads = self._threads, []
            for _ in threads:
                self._tasks.put(None)
        for thread in threads:
            thread.join()

    def _serve(self, *, early: bool) -> None:
        child: Child | None = None
        error: Exception | None = None
        try:
            if early:
                child, error = self._start_early()
            while (task := self._tasks.get()) is not None:
                outcome: Outcome = CalledOff()
                try:
                    if error is not None:
                        raise error
                    outcome, child = self._carry_out(child, task)
                finally:
                    with self._lock:
                        self._free += 1
                    task.finish(outcome)
        finally:
            if child is not None:
                child.kill()
            self._replace(threading.current_thread())

    def _start_early(self) -> tuple[Child | None, Exception | None]:
        """A child, or what its first task is to be told."""
        try:
            return self._start_child(), None
        except OSError:
            # It is tried once more for the first task, which may never come.
            return None, None
        except Exception as error:  # noqa: BLE001 - nobody hears it here: it is kept for whoever gives the first task
            return None, error

    def _start_child(self) -> Child:
        with self._failpoints.step("child_started"):
            return Child(self._memory_bytes, next(self._for_children, ""))

    def _replace(self, thread: threading.Thread) -> None:
        """Let another thread go on for one that an error ended: tasks may be waiting."""
        with self._lock:
            if thread in self._threads:
                self._threads.remove(thread)
                self._start_thread()

    def _carry_out(self, child: Child | None, task: Task) -> tuple[Outcome, Child | None]:
        def off() -> bool:
            return task.called_off.is_set() or self._closed.is_set()

        if off():
            return CalledOff(), child
        if child is None or not child.alive:
            if child is not None:
                child.kill()
            try:
                child = self._start_child()
            except OSError as error:
                return Died(f"it cannot be started: {error.strerror or error}", at_start=True), None
        outcome: Outcome | None = None
        try:
            outcome = child.carry_out(task.job, task.hear, off, self._stall_timeout_s)
        finally:
            # After any of these, and after an error here, nobody knows the state that it is in.
            if outcome is None or isinstance(outcome, Died | CalledOff | Broke):
                child.kill()
        return outcome, child


class Child:
    """One process. Its standard output carries messages, what it writes to standard error is kept for a message."""

    def __init__(self, memory_bytes: int, failpoints: str) -> None:
        """Start it, without waiting until it is up."""
        numbers = (str(os.getpid()), str(memory_bytes))
        command = [sys.executable, "-P", "-m", "app.engines.embedded.child", *numbers, failpoints]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(os.environ),
        )
        self._ready = False
        self._frames = Frames()
        self._stderr = b""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it now and reap it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            # What could not be sent any more is lost with its reader.
            with contextlib.suppress(BrokenPipeError):
                _open(pipe).close()

    def carry_out(
        self,
        job: bytes,
        hear: Callable[[Beat | Reads | Opened], None],
        called_off: Callable[[], bool],
        stall_timeout_s: float,
    ) -> Outcome:
        """Let it do `job`; returns when it is done, dead, silent for too long, or called off."""
        sent = False
        heard_at = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for pipe in (self._process.stdout, self._process.stderr):
                selector.register(_open(pipe), selectors.EVENT_READ)
            while True:
                if self._ready and not sent:
                    # Only a child that is up reads, so this cannot wait for ever.
                    self._send(job)
                    sent = True
                for message in self._receive(selector):
                    heard_at = time.monotonic()
                    if isinstance(message, Ready):
                        self._ready = True
                    elif isinstance(message, Beat | Reads | Opened):
                        hear(message)
                    else:
                        return message
                if not selector.get_map():
                    return self._died()
                if called_off():
                    return CalledOff()
                if time.monotonic() - heard_at > stall_timeout_s:
                    return Died(f"it did nothing for {stall_timeout_s:g} s", by_limit=True, at_start=not self._ready)

    def _send(self, job: bytes) -> None:
        pipe = _open(self._process.stdin)
        # Where it is dead already, the end of its output, which comes next, says how.
        with contextlib.suppress(BrokenPipeError):
            pipe.write(job)
            pipe.flush()

    def _receive(self, selector: selectors.BaseSelector) -> list[Message]:
        found: list[Message] = []
        for key, _ in selector.select(_LOOK_S):
            data = os.read(key.fd, 1 << 16)
            if not data:
                selector.unregister(key.fileobj)
            elif key.fileobj is self._process.stderr:
                self._stderr = (self._stderr + data)[-STDERR_TAIL_BYTES:]
            else:
                found.extend(cast("list[Message]", self._frames.feed(data)))
        return found

    def _died(self) -> Died:
        code = self._process.wait()
        # Only the last words tell an allocation that failed from a parser that broke: both abort.
        spent = any(words in self._stderr.lower() for words in _OUT_OF_MEMORY)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        tail = self._stderr.decode(errors="replace").strip().splitlines()
        reason = f"it ended with {how}" + (f": {tail[-1][:300]}" if tail else "")
        return Died(reason, out_of_memory=spent, at_start=not self._ready)


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("The process was started without this pipe.")
    return pipe

"""A child process of the engine: `python -m app.engines.embedded.child PARENT_PID MEMORY_BYTES FAILPOINTS`.

It reads jobs from standard input, says what it does on what was its standard output, and ends with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import os
import queue
import resource
import signal
import sys
import threading
from typing import BinaryIO

from app.domain.errors import WriteFailureError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints, parse_failpoints
from app.engines.embedded.messages import (
    Answer,
    Broke,
    CutJob,
    Job,
    Puzzled,
    Ready,
    Refused,
    RewriteJob,
    ShowJob,
    SpanJob,
    Tell,
    WriteJob,
    read_body,
    unpack,
)
from app.engines.embedded.stepped import in_steps
from app.engines.embedded.voice import Voice

_PR_SET_PDEATHSIG = 1
# So many new objects are worth a look for garbage among them.
COLLECT_OBJECTS = 100_000


def confine(parent_pid: int, memory_bytes: int) -> None:
    """Set this process's limits, and tie its life to that of its parent.

    Args:
        parent_pid: The process that has to be the parent still.
        memory_bytes: Address space that this process may have.
    """
    # Ctrl-C goes to the whole group; what it means is decided by the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        # It died before the kernel was asked to tell.
        os._exit(0)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to the parent for messages alone: whatever a library prints goes to standard error."""
    requests, answers = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb", buffering=0)


def read_jobs(requests: BinaryIO, jobs: queue.SimpleQueue[bytes]) -> None:
    """Put every job that comes into the queue; end the process when the parent is gone, also amid work."""
    while (body := read_body(requests)) is not None:
        jobs.put(body)
    os._exit(0)


def answer(body: bytes, tell: Tell, failpoints: Failpoints = NO_FAILPOINTS) -> Answer:
    """Unpack a job and do it."""
    try:
        job = unpack(body)
    except Exception as error:  # noqa: BLE001 - this is the process's outermost frame
        return Puzzled(f"{type(error).__name__}: {error}")
    if not isinstance(job, Job):
        return Puzzled(f"{type(job).__name__} is no job")
    return carry_out(in_steps(job, failpoints), tell)


def load_libraries() -> None:
    """Import what the work needs: the parent, which has heard that we are up, may still be busy with its plan."""
    import app.engines.embedded.inferring  # noqa: PLC0415
    import app.engines.embedded.loading  # noqa: PLC0415
    import app.engines.embedded.rewriting  # noqa: F401, PLC0415

    # What was imported stays; nobody need look for garbage in it, or after every seven hundred new objects.
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS)


def carry_out(job: Job, tell: Tell) -> Answer:  # noqa: PLR0911 - a job of each kind
    """Do a job; whatever goes wrong with it becomes its answer, so that the parent hears it in words."""
    # Here and not above: the modules that do the work take a while to load, and the parent may hear before.
    from app.engines.embedded import cutting, inferring, loading, rewriting, showing  # noqa: PLC0415

    try:
        if isinstance(job, RewriteJob):
            return rewriting.rewrite(job, tell)
        if isinstance(job, CutJob | SpanJob):
            return cutting.carry_out(job, tell)
        if isinstance(job, ShowJob):
            return showing.show(job, tell)
        return loading.write(job, tell) if isinstance(job, WriteJob) else inferring.infer(job, tell)
    except WriteFailureError as error:
        return Refused(error.message)
    except MemoryError:
        return Broke("it needs more memory than its process may have", out_of_memory=True)
    except Exception as error:  # noqa: BLE001 - this is the process's outermost frame
        return Broke(f"{type(error).__name__}: {error}")


def main() -> None:
    """Serve until the parent closes the pipe."""
    confine(int(sys.argv[1]), int(sys.argv[2]))
    failpoints = parse_failpoints(sys.argv[3])
    requests, answers = take_pipes()
    tell = Voice(answers).tell
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=read_jobs, args=(requests, jobs), daemon=True).start()
    tell(Ready())
    load_libraries()
    while True:
        tell(answer(jobs.get(), tell, failpoints))


if __name__ == "__main__":
    main()

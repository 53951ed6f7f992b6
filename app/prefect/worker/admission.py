"""Which of the flow runs that are due begin now. Pure.

Prefect gives what is due by the priority of its queue, and the worker's limit cuts it off. What is left to decide: a
run with high memory has a worker to itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

# A run with high memory that has been due for so long has this worker take up nothing but what has priority, so that it
# comes to be idle.
PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Queues:
    """Names of the queues that are not like any other."""

    high_memory: str
    priority: str


@dataclass(frozen=True)
class Candidate:
    """A flow run that is due."""

    id: UUID
    queue: str | None
    due_at: datetime


def admitted(
    candidates: Iterable[Candidate], queues: Queues, *, is_idle: bool, is_alone: bool, now: datetime
) -> list[UUID]:
    """Those that may begin, in the order given; the worker's limit is still to be applied.

    Args:
        candidates: What is due, what has priority first.
        queues: The special ones.
        is_idle: Whether no run is at work here.
        is_alone: Whether the run at work here is one with high memory.
        now: The time.
    """
    if is_alone and not is_idle:
        return []
    due = list(candidates)
    high = [one for one in due if one.queue == queues.high_memory]
    is_reserved = any(now - one.due_at > PATIENCE for one in high)
    others = [
        one for one in due if one.queue != queues.high_memory and (not is_reserved or one.queue == queues.priority)
    ]
    if others:
        return [one.id for one in others]
    return [high[0].id] if high and is_idle else []

"""What the worker and its fork server say to each other: a line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Order:
    """Fork a process that carries out a flow run.

    Args:
        number: Tells orders apart.
        flow_run: The flow run as Prefect gave it, in JSON.
        environ: What its environment has beside what the fork server's has.
    """

    number: int
    flow_run: str
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """Everything is imported. A process of more than one thread must not be forked."""

    threads: int


@dataclass(frozen=True)
class Began:
    """The process of order `number`."""

    number: int
    pid: int


@dataclass(frozen=True)
class Refused:
    """There is no process for order `number`."""

    number: int
    reason: str


@dataclass(frozen=True)
class Ended:
    """A process is gone; `code` is its exit status, or the negative number of the signal that ended it."""

    pid: int
    code: int


Message = Order | Ready | Began | Refused | Ended
_KINDS: Mapping[str, type[Message]] = {kind.__name__: kind for kind in (Order, Ready, Began, Refused, Ended)}


def to_line(message: Message) -> bytes:
    """The message, with its end."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """The message of a line."""
    fields = json.loads(line)
    return _KINDS[fields.pop("kind")](**fields)


class Lines:
    """Puts lines together that come in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are whole by now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines

"""A process of the product inside this one: it can die, or stand still, before and after every call it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.domain.errors import CatalogUnreachableError
from app.domain.ports import CommitOrder
from app.domain.runs import Owner
from tests.model.model import BatchKey, InTable, Version

# What is called so often or so late that nothing is learnt from dying there.
_QUIET = {"dispose", "renew"}


class Killed(BaseException):
    """The process is gone: nothing of it goes on, nothing is cleaned up."""


@dataclass
class Life:
    """How far a process has come, and what happens to it on its way."""

    owner: Owner
    # Told every call that had an effect: name, arguments, result.
    tell: Callable[[str, tuple[Any, ...], Any], None]
    # Where something happens: at the so-manieth step, or the first time at this place.
    at: int | str = 0
    happens: Callable[[str], None] | None = None
    steps: int = 0
    # Others ran meanwhile: what failed with them had not failed when this run looked, and is tried once more.
    saw_others: bool = False
    is_dead: bool = False
    # What it wrote into its manifests, and what it tried to load.
    contents: dict[BatchKey, InTable] = field(default_factory=dict)
    tried: set[Version] = field(default_factory=set)
    loaded: int = 0
    # The order that it is committing.
    order: CommitOrder | None = None
    # From the first commit that nobody answered for on, the catalog cannot be asked about batches.
    is_blind: bool = False
    goes_blind: bool = False

    def step(self, place: str) -> None:
        """The process comes to a place on its way."""
        if self.is_dead:
            raise Killed
        self.steps += 1
        if self.at in (self.steps, place) and self.happens is not None:
            happens, self.happens = self.happens, None
            happens(place)
        if self.is_blind and place == "before find_batch":
            raise CatalogUnreachableError

    def lose_sight(self) -> None:
        """Nobody answers for a commit."""
        self.is_blind = self.goes_blind

    def die(self, _: str) -> None:
        """What may happen: the process is killed."""
        self.is_dead = True
        raise Killed


class Hand:
    """A process's hold on a port, or on a draft that a port gave it."""

    def __init__(self, life: Life, held: Any) -> None:
        self._life = life
        self._held = held

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._held, name)
        if not callable(value) or name in _QUIET:
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            self._life.step(f"before {name}")
            result = value(*arguments, **named)
            self._life.tell(name, arguments, result)
            self._life.step(f"after {name}")
            return Hand(self._life, result) if name in {"draft", "draft_new"} else result

        return call

"""A command on the database itself: how long it waits for Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from app.cli.desk_at_hand import AtHandDesk
from app.services.migrating import MigrationReport


@dataclass
class Prefect:
    """Notes which calls are made while it is waited for longer."""

    is_patient: bool = False
    asked: list[tuple[str, bool]] = field(default_factory=list)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        self.is_patient = True
        yield
        self.is_patient = False

    async def initialize(self) -> bool:
        self.asked.append(("initialize", self.is_patient))
        return True


@dataclass
class Orchestration:
    """What of it a command uses."""

    prefect: Prefect = field(default_factory=Prefect)

    @property
    def migration(self) -> Orchestration:
        return self

    async def migrate(self, *_: object, **__: object) -> MigrationReport:
        self.prefect.asked.append(("migrate", self.prefect.is_patient))
        return MigrationReport(dry_run=True, scheduled=0, present=0, created=(), updated=())


def test_it_waits_for_prefect_longer_than_whoever_has_others_waiting() -> None:
    service: Any = None
    orchestration: Any = Orchestration()
    with asyncio.Runner() as runner:
        AtHandDesk(service, orchestration, runner).migrate(dry_run=True, on_progress=lambda _done, _all: None)
    assert orchestration.prefect.asked == [("initialize", True), ("migrate", True)]

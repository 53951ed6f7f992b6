"""Deployments for all scheduled ingestions that lack one: the reconciler, asked by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.domain.ingestions import User
from app.services.reconciler import PassReport, Reconciler
from app.services.reconciling import Action, Make, Note

# A request is answered within this; what is left is done by the next one, or by the beat.
REQUEST_S = 20.0


@dataclass(frozen=True)
class MigrationReport:
    """What was, or would be, done.

    Args:
        scheduled: Ingestions that have to have a deployment.
        present: Those that had theirs already.
        created: Ids of those that got one, or would get one.
        updated: Ids of those whose deployment was made right, or would be.
        failed: Id → why it has none.
        left: How many were not come to.
    """

    dry_run: bool
    scheduled: int
    present: int
    created: tuple[str, ...]
    updated: tuple[str, ...]
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every scheduled ingestion has its deployment now, or would have."""
        return not self.left and not self.failed


Progress = Callable[[int, int], None]


class Migration:
    """May be broken off anywhere and asked for again: it does what is left."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    async def migrate(
        self,
        current_user: User | None,
        *,
        dry_run: bool,
        within_s: float | None = REQUEST_S,
        on_progress: Progress = lambda _done, _all: None,
    ) -> MigrationReport:
        """Make what is missing and make right what is not as it has to be, at a rate that Prefect bears.

        Args:
            current_user: Who asks: it is done for his tenant. None: whoever runs the service, for all of them.
            dry_run: Only say what would be done.
            within_s: Leave the rest when so many seconds are over; None: stay until it is done.
            on_progress: Told after each one how many of how many are done.

        Raises:
            SchedulerUnavailableError: Prefect does not say what it has; nothing was done.
        """
        found = await self._reconciler.compare(None if current_user is None else current_user.tenant)
        actions = [action for action in found.actions if isinstance(action, Make | Note)]
        made, changed = _ids(actions, is_new=True), _ids(actions, is_new=False)
        if dry_run:
            return MigrationReport(dry_run, found.scheduled, found.scheduled - len(made), made, changed)
        deadline = None if within_s is None else time.monotonic() + within_s
        report = PassReport()

        def tell(so_far: PassReport) -> None:
            done = len(so_far.made) + len(so_far.changed) + len(so_far.noted) + len(so_far.failed)
            on_progress(done, len(actions))

        await self._reconciler.carry_out(
            actions, report, until=lambda: deadline is not None and time.monotonic() > deadline, on_step=tell
        )
        return MigrationReport(
            dry_run=False,
            scheduled=found.scheduled,
            present=found.scheduled - len(made),
            created=tuple(report.made),
            updated=tuple(report.changed),
            failed=dict(report.failed),
            left=report.left,
        )


def _ids(actions: Sequence[Action], *, is_new: bool) -> tuple[str, ...]:
    return tuple(one.ingestion_id for one in actions if isinstance(one, Make) and one.is_new is is_new)

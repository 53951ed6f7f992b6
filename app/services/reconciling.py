"""What has to be done so that Prefect has what our database wants. Pure: both sides in, actions out.

Our database says what is wanted; what Prefect has is advice. An action may be carried out twice, or late, and does no
harm: it is decided anew from both sides the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.ingestions import Deployment, FlowRun, Ingestion, RunRecord
from app.services.prefect_plans import DeploymentPlan, FoundDeployment

# So long a busy machine may take from Prefect's note of a flow run's start to the first thing that its process does.
PROCESS_STARTS_S = 30.0
# States of a flow run after which nothing more comes of it.
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
# The scheduler's word for an end that somebody wants.
CANCELLED = frozenset({"CANCELLED", "CANCELLING"})
# Whoever queued a run may be about to call Prefect himself.
YOUNG = timedelta(seconds=5)
# A queued run whose flow run Prefect cannot tell of for so long is carried out without it.
PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Wanted:
    """An ingestion, and the deployment that it has to have; None: it must have none."""

    ingestion: Ingestion
    plan: DeploymentPlan | None


@dataclass(frozen=True)
class Make:
    """Make the deployment, or make it what it has to be."""

    ingestion_id: str
    is_new: bool


@dataclass(frozen=True)
class Note:
    """Prefect has what is wanted, our row does not say so."""

    ingestion_id: str
    deployment: Deployment


@dataclass(frozen=True)
class Remove:
    """Take a deployment away that has no right to be there; `ingestion_id` is empty where no row is left."""

    deployment_id: str
    ingestion_id: str = ""


@dataclass(frozen=True)
class Forget:
    """Our row names a deployment that is not wanted and not there."""

    ingestion_id: str


@dataclass(frozen=True)
class Bury:
    """The ingestion was deleted and nothing of it is left in Prefect: its row can go."""

    ingestion_id: str


Action = Make | Note | Remove | Forget | Bury


def differences(ours: Iterable[Wanted], theirs: Sequence[FoundDeployment]) -> list[Action]:
    """What to do, what is missing first.

    Args:
        ours: Every ingestion that has a schedule, a deployment or a tombstone. It must have been read after `theirs`:
            a deployment is only made for a row that is there, so that one without a row is nobody's any more.
        theirs: Every deployment of this installation. Other installations' are not among them.
    """
    found = {one.ingestion_id: one for one in theirs}
    actions: list[Action] = []
    known: set[str] = set()
    for wanted in ours:
        known.add(wanted.ingestion.id)
        actions += _differences_of(wanted, found.get(wanted.ingestion.id))
    actions += [Remove(one.id) for one in theirs if one.ingestion_id not in known]
    return sorted(actions, key=lambda action: not (isinstance(action, Make) and action.is_new))


def _differences_of(wanted: Wanted, found: FoundDeployment | None) -> list[Action]:
    ingestion, plan = wanted.ingestion, wanted.plan
    if plan is not None:
        if found is None or not found.matches(plan):
            return [Make(ingestion.id, is_new=found is None)]
        noted = Deployment(found.id, plan.fingerprint)
        return [] if ingestion.deployment == noted else [Note(ingestion.id, noted)]
    if found is not None:
        return [Remove(found.id, ingestion.id)]
    if ingestion.deleted_at is not None:
        return [Bury(ingestion.id)]
    return [Forget(ingestion.id)] if ingestion.deployment else []


def grace_s(lease_s: float) -> float:
    """Seconds within which a flow run that began needs no lease of ours: it has none yet, or has given it back.

    That a lease may be short makes no machine start a process sooner: taken for dead then, a flow run would crash in
    Prefect while its process begins.
    """
    return max(lease_s, PROCESS_STARTS_S)


def dead_flow_runs(
    runs: Iterable[FlowRun], is_alive: Callable[[FlowRun], bool], now: datetime, grace: timedelta
) -> list[FlowRun]:
    """Flow runs that Prefect takes to be at work although nobody of ours is.

    Args:
        runs: Those that began and did not end.
        is_alive: Whether a live lease stands for it.
        now: The time.
        grace: A process needs so long from Prefect's note of its start to its lease, and from the lease to its report.
    """
    return [run for run in runs if now - (run.start_time or now) > grace and not is_alive(run)]


def is_to_be_given_again(run: RunRecord, flow_run: FlowRun | None, now: datetime) -> bool:
    """Whether a queued run that is due has to be handed to Prefect: nothing there is going to carry it out.

    Args:
        run: The run.
        flow_run: Its flow run; None where it has none, or Prefect does not know it any more.
        now: The time.
    """
    if now - run.created_at < YOUNG or (flow_run is not None and flow_run.state in CANCELLED):
        return False
    return flow_run is None or flow_run.state in FINAL


def is_cancelled_there(run: RunRecord, flow_run: FlowRun | None) -> bool:
    """Whether somebody cancelled in Prefect what our database still wants."""
    is_wanted = not run.is_over and run.cancel_requested_at is None
    return is_wanted and flow_run is not None and flow_run.state in CANCELLED


def is_to_go_without(run: RunRecord, now: datetime) -> bool:
    """Whether a queued run that is due has waited long enough for a Prefect that does not answer."""
    waits_since = max(run.created_at, run.next_attempt_at or run.created_at, run.handed_over_at or run.created_at)
    return now - waits_since > PATIENCE

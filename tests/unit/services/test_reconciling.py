from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.ingestions import Deployment, FlowRun, Ingestion, IngestionStatus, Method, RunRecord, Schedule, Trigger
from app.domain.runs import RunStatus
from app.services.prefect_plans import DeploymentPlan, FoundDeployment, PrefectSettings, plan_deployment, queue_of
from app.services.reconciling import (
    Action,
    Bury,
    Forget,
    Make,
    Note,
    Remove,
    Wanted,
    dead_flow_runs,
    differences,
    grace_s,
    is_cancelled_there,
    is_to_be_given_again,
    is_to_go_without,
)
from app.services.schedules import Cron
from tests.support.ingestions import SOME_TIME, an_ingestion

SETTINGS = PrefectSettings("http://prefect.invalid/api", "here")


def plan_of(ingestion: Ingestion) -> DeploymentPlan:
    return plan_deployment(ingestion, SETTINGS, SOME_TIME)


def wanted(ingestion: Ingestion) -> Wanted:
    is_wanted = ingestion.schedule is not None and ingestion.deleted_at is None
    return Wanted(ingestion, plan_of(ingestion) if is_wanted else None)


def found(ingestion: Ingestion, deployment_id: str = "d1") -> FoundDeployment:
    """The deployment as it was made for that ingestion."""
    plan = plan_of(ingestion)
    return FoundDeployment(
        id=deployment_id,
        name=plan.name,
        parameters=plan.parameters,
        tags=plan.tags,
        pool=plan.pool,
        queue=plan.queue,
        schedules=(plan.cron,) if plan.cron else (),
        paused=plan.paused,
        entrypoint=plan.entrypoint,
        job_variables=plan.job_variables,
        version=plan.version,
    )


def noted(ingestion: Ingestion, deployment_id: str = "d1") -> Ingestion:
    return replace(ingestion, deployment=Deployment(deployment_id, plan_of(ingestion).fingerprint))


def test_nothing_is_sent_where_nothing_changed() -> None:
    ingestion = an_ingestion()
    assert differences([wanted(noted(ingestion))], [found(ingestion)]) == []


def test_what_is_missing_is_made_before_what_changed() -> None:
    changed, missing = an_ingestion(), an_ingestion()
    theirs = [found(replace(changed, schedule=Schedule("daily")))]
    actions = differences([wanted(noted(changed)), wanted(missing)], theirs)
    assert actions == [Make(missing.id, is_new=True), Make(changed.id, is_new=False)]


def test_what_somebody_changed_in_prefect_is_made_right_again() -> None:
    ingestion = noted(an_ingestion())
    plain = found(ingestion)
    for drifted in (
        replace(plain, paused=True),
        replace(plain, schedules=()),
        replace(plain, schedules=(Cron("5 * * * *", "UTC"),)),
        replace(plain, schedules=(*plain.schedules, Cron("5 * * * *", "UTC"))),
        replace(plain, schedules=(None,)),
        replace(plain, queue="elsewhere"),
        replace(plain, pool=None),
        replace(plain, entrypoint="other.flow"),
        replace(plain, parameters={"ingestion_id": "another"}),
        replace(plain, tags=(*plain.tags, "more")),
        replace(plain, job_variables={"env": {"A": "b"}}),
        replace(plain, version=None),
    ):
        assert differences([wanted(ingestion)], [drifted]) == [Make(ingestion.id, is_new=False)]


def test_a_deployment_that_we_did_not_hear_of_is_noted() -> None:
    ingestion = an_ingestion()
    (action,) = differences([wanted(ingestion)], [found(ingestion)])
    assert action == Note(ingestion.id, Deployment("d1", plan_of(ingestion).fingerprint))


def test_a_deployment_without_a_row_is_removed() -> None:
    assert differences([], [found(an_ingestion())]) == [Remove("d1")]


def test_a_schedule_that_was_taken_away_takes_its_deployment_along() -> None:
    ingestion = an_ingestion()
    without = replace(noted(ingestion), schedule=None)
    assert differences([wanted(without)], [found(ingestion)]) == [Remove("d1", ingestion.id)]
    assert differences([wanted(without)], []) == [Forget(ingestion.id)]
    assert differences([wanted(replace(without, deployment=None))], []) == []


def test_a_tombstone_is_buried_when_its_deployment_is_gone() -> None:
    ingestion = an_ingestion()
    tombstone = replace(noted(ingestion), deleted_at=SOME_TIME)
    assert differences([wanted(tombstone)], [found(ingestion)]) == [Remove("d1", ingestion.id)]
    assert differences([wanted(tombstone)], []) == [Bury(ingestion.id)]


def _applied(ours: dict[str, Ingestion], theirs: dict[str, FoundDeployment], actions: list[Action]) -> None:
    """What carrying the actions out comes to, on both sides."""
    for action in actions:
        match action:
            case Make(ingestion_id):
                known = [d.id for d in theirs.values() if d.ingestion_id == ingestion_id]
                deployment_id = known[0] if known else f"new-{ingestion_id}"
                theirs[deployment_id] = found(ours[ingestion_id], deployment_id)
                ours[ingestion_id] = noted(ours[ingestion_id], deployment_id)
            case Note(ingestion_id, deployment):
                ours[ingestion_id] = replace(ours[ingestion_id], deployment=deployment)
            case Remove(deployment_id, ingestion_id):
                del theirs[deployment_id]
                if ingestion_id:
                    ours[ingestion_id] = replace(ours[ingestion_id], deployment=None)
            case Forget(ingestion_id):
                ours[ingestion_id] = replace(ours[ingestion_id], deployment=None)
            case Bury(ingestion_id):
                del ours[ingestion_id]


ingestions = st.builds(
    an_ingestion,
    status=st.sampled_from(IngestionStatus),
    schedule=st.sampled_from([None, Schedule("hourly"), Schedule("daily", time="14:30", timezone="Europe/Berlin")]),
    deployment=st.sampled_from([None, Deployment("gone", "old")]),
    deleted_at=st.sampled_from([None, None, SOME_TIME]),
)


@given(st.lists(ingestions, max_size=6), st.data())
def test_from_any_state_two_passes_lead_to_what_is_wanted_and_to_rest(
    some: list[Ingestion], data: st.DataObject
) -> None:
    ours = {one.id: one for one in some}
    theirs: dict[str, FoundDeployment] = {}
    for number, one in enumerate([*some, an_ingestion()]):
        if data.draw(st.booleans()):
            drift = {
                "paused": data.draw(st.booleans()),
                "queue": data.draw(st.sampled_from(["autoloader-default", "x"])),
            }
            theirs[f"d{number}"] = replace(found(replace(one, deleted_at=None), f"d{number}"), **drift)  # type: ignore[arg-type]
    for _ in range(2):
        _applied(ours, theirs, differences(map(wanted, ours.values()), list(theirs.values())))
    assert differences(map(wanted, ours.values()), list(theirs.values())) == []
    living = {one.id: one for one in some if one.deleted_at is None}
    assert set(ours) == set(living)
    assert {d.ingestion_id for d in theirs.values()} == {one.id for one in living.values() if one.schedule}
    assert all(d.matches(plan_of(living[d.ingestion_id])) for d in theirs.values())
    assert all(theirs[one.deployment.id].name == f"ingestion-{one.id}" for one in ours.values() if one.deployment)


# --- runs -------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


def a_run(**changes: object) -> RunRecord:
    plain = RunRecord(
        "r1", "i1", "t", Trigger.MANUAL, Method.PREFECT, RunStatus.QUEUED, created_at=NOW - timedelta(minutes=5)
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def a_flow_run(state: str, since: timedelta = timedelta(minutes=5)) -> FlowRun:
    return FlowRun("f1", state, state.capitalize(), NOW - since, None, 0.0)


def test_a_flow_run_without_a_lease_is_dead_when_its_grace_is_over() -> None:
    grace = timedelta(seconds=60)
    old, young = a_flow_run("RUNNING"), a_flow_run("PENDING", timedelta(seconds=59))
    assert dead_flow_runs([old, young], lambda _run: False, NOW, grace) == [old]
    assert dead_flow_runs([old], lambda _run: True, NOW, grace) == []


def test_a_short_lease_gives_no_process_less_time_to_start() -> None:
    assert (grace_s(2.0), grace_s(120.0)) == (30.0, 120.0)


def test_a_queued_run_is_given_again_when_nothing_in_prefect_carries_it_out() -> None:
    assert is_to_be_given_again(a_run(), None, NOW)
    assert all(is_to_be_given_again(a_run(), a_flow_run(s), NOW) for s in ("CRASHED", "COMPLETED", "FAILED"))
    assert not any(is_to_be_given_again(a_run(), a_flow_run(s), NOW) for s in ("SCHEDULED", "PENDING", "RUNNING"))
    # Whoever queued it a moment ago is about to call Prefect.
    assert not is_to_be_given_again(a_run(created_at=NOW - timedelta(seconds=4)), None, NOW)


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELLING"])
def test_what_somebody_cancelled_in_prefect_is_not_wanted_any_more(state: str) -> None:
    cancelled = a_flow_run(state)
    assert not is_to_be_given_again(a_run(), cancelled, NOW)
    assert is_cancelled_there(a_run(), cancelled)
    # Neither is what is over, or is to end already, cancelled once more.
    assert not is_cancelled_there(replace(a_run(), status=RunStatus.SUCCESS), cancelled)
    assert not is_cancelled_there(replace(a_run(), cancel_requested_at=NOW), cancelled)
    assert not is_cancelled_there(a_run(), a_flow_run("RUNNING"))
    assert not is_cancelled_there(a_run(), None)


def test_a_queued_run_goes_without_prefect_after_a_while() -> None:
    assert is_to_go_without(a_run(), NOW)
    assert not is_to_go_without(a_run(created_at=NOW - timedelta(seconds=59)), NOW)
    assert not is_to_go_without(a_run(next_attempt_at=NOW - timedelta(seconds=59)), NOW)
    assert not is_to_go_without(a_run(handed_over_at=NOW - timedelta(seconds=59)), NOW)


@pytest.mark.parametrize(
    ("trigger", "discovered", "handed_over_at", "queue"),
    [
        (Trigger.MANUAL, None, None, "autoloader-priority"),
        (Trigger.RETRY, None, None, "autoloader-priority"),
        (Trigger.MANUAL, 1001, None, "autoloader-priority"),
        (Trigger.SCHEDULED, None, None, "autoloader-default"),
        (Trigger.SCHEDULED, 1000, None, "autoloader-default"),
        (Trigger.SCHEDULED, 1001, None, "autoloader-high-memory"),
        (Trigger.MANUAL, 1001, NOW, "autoloader-high-memory"),
        (Trigger.SCHEDULED, 0, NOW, "autoloader-high-memory"),
    ],
)
def test_a_run_goes_to_the_queue_where_it_belongs(
    trigger: Trigger, discovered: int | None, handed_over_at: datetime | None, queue: str
) -> None:
    settings = PrefectSettings("http://nowhere.invalid/api", "here", high_memory_bytes=1000)
    run = a_run(trigger=trigger, handed_over_at=handed_over_at)
    ingestion = an_ingestion(discovered_bytes=discovered)
    assert queue_of(run, ingestion, settings) == queue
    if trigger is Trigger.SCHEDULED and handed_over_at is None:
        # What its schedule begins is begun again in the same one.
        assert plan_deployment(ingestion, settings, NOW).queue == queue

"""What a catalog may do to all that is no commit: nothing is written, and the next plain load puts all right."""

from __future__ import annotations

import uuid

import pytest

from app.domain.table import TableName
from tests.support.fault_proxy import Answer, Slow
from tests.support.fault_table import CATALOG_FAULTS, CATALOG_REQUESTS, SUCCESS, RequestFault
from tests.support.fault_worlds import FaultWorld

# Asked only where there is no table yet.
OF_A_FIRST_LOAD = {"namespace", "new namespace", "new table"}


@pytest.mark.parametrize("fault", CATALOG_FAULTS, ids=lambda f: f"{f.request} {f.words} {f.times}")
def test_a_fault_of_a_request(world: FaultWorld, fault: RequestFault) -> None:
    if fault.request == "new namespace":
        world.table = TableName(world.table.catalog, (f"n_{uuid.uuid4().hex[:12]}",), world.table.name)
    if fault.request not in OF_A_FIRST_LOAD:
        world.land(9)
        assert world.load().ends == SUCCESS
        world.known = (9,)
    world.land(0)
    rule = world.rest.on(*CATALOG_REQUESTS[fault.request], fault.action(), times=fault.times)
    with world.patient_with(fault.words):
        load = world.load()
    assert (load.seen, load.ends) == (fault.seen, fault.ends), load.text
    assert rule.acted == (fault.times or rule.acted) > 0
    if fault.ends != SUCCESS:
        assert load.report.files_loaded == 0
        assert load.report.stopped_by is not None
        assert load.report.stopped_by.advice
    world.rest.clear()
    after = world.load()
    assert (after.ends, after.report.files_loaded + load.report.files_loaded) == (SUCCESS, 1)
    world.assert_exact(0, *world.known)


def test_slow_is_not_silent(world: FaultWorld) -> None:
    """A catalog that takes its time is waited for, as long as it says something."""
    world.timeout_s = 12.0
    world.land(0)
    slow = Slow(delay_s=0.3, pace=80)
    world.rest.on("POST", CATALOG_REQUESTS["new table"][1], slow)
    assert world.load().ends == SUCCESS
    assert slow.took_s
    assert min(slow.took_s) > world.timeout_s
    world.assert_exact(0)


def test_what_a_catalog_says_is_shown_without_secrets(world: FaultWorld) -> None:
    """Some servers quote the request that they refuse, and links that they have signed."""
    signed = "https://store/b/k?X-Amz-Credential=AKIDLEAK%2F20240101&X-Amz-Signature=5161leak&sig=lEaK%3D"
    said = f'{{"error": {{"message": "{signed} refused Authorization: Bearer tokleak", "type": "E", "code": 500}}}}'
    world.land(0)
    world.rest.on("GET", CATALOG_REQUESTS["table"][1], Answer(500, applied=False, body=said.encode()))
    load = world.load()
    assert load.ends == "catalog_unreachable"
    assert "https://store/b/k" in load.text
    assert "leak" not in load.text.lower()

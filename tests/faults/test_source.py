"""What an object store may do to a source: no file is loaded in part, and none is passed over for good."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.errors import Category
from tests.support.fault_proxy import Half, Rewrite, Slow, Then
from tests.support.fault_table import SOURCE_FAULTS, SOURCE_REQUESTS, SUCCESS, SourceFault
from tests.support.fault_worlds import FaultWorld, content

PAGE_KEYS = 1000
CATEGORIES = {category.value for category in Category}


@pytest.fixture
def stored(world: FaultWorld) -> FaultWorld:
    """Files 0 and 1 lie in a bucket."""
    world.land_in_a_bucket()
    world.land(0, 1)
    return world


def request_of(world: FaultWorld, name: str) -> tuple[str, str]:
    """Method and path of a kind of request to the world's bucket."""
    method, path = SOURCE_REQUESTS[name]
    return method, rf"^/{world.bucket}\b.*{path}"


def settles(world: FaultWorld) -> None:
    world.s3.clear()
    assert world.load().ends == SUCCESS
    world.assert_exact(0, 1)


@pytest.mark.parametrize("fault", SOURCE_FAULTS, ids=lambda f: f"{f.request} {f.words} {f.times}")
def test_a_fault_of_a_request(stored: FaultWorld, fault: SourceFault) -> None:
    values: dict[str, Any] = {}
    if fault.request == "LIST, a later page":
        # Above the names of the files, and not loaded.
        names = [f"landing/a_{number:04}.txt" for number in range(PAGE_KEYS - 1)]
        stored.seaweed.put(stored.bucket, dict.fromkeys(names, b"x"))
        values["file_pattern"] = "*.json"
    if fault.request == "HEAD":
        stored.source += "batch_0.json"
    rule = stored.s3.on(*request_of(stored, fault.request), fault.action(), times=fault.times)
    with stored.patient_with(fault.words):
        load = stored.load(**values)
    assert rule.acted >= (fault.times or 1)
    failed = [error.category.value for error in load.report.errors]
    if fault.request == "GET" and fault.ends != SUCCESS:
        assert (load.ends, load.report.files_loaded, failed) == ("partial", 1, [fault.ends])
    else:
        assert (load.ends, failed) == (fault.ends, [])
        assert load.report.files_loaded == (0 if fault.ends != SUCCESS else 1 if fault.request == "HEAD" else 2)
    assert stored.seaweed.secret_key not in load.text
    stored.source = f"s3://{stored.bucket}/landing/"
    stored.s3.clear()
    if fault.next_ends != SUCCESS:
        # What a person has to look at is not tried again by itself.
        assert stored.load(**values).report.files_still_failed == 1
    assert stored.load(retry_failed=fault.next_ends != SUCCESS, **values).ends == SUCCESS
    stored.assert_exact(0, 1)


@pytest.mark.parametrize("times", [1, None])
def test_a_csv_file_that_is_cut_behind_a_line(world: FaultWorld, times: int | None) -> None:
    """Every line of the part is a good line; only the length says that there is more."""
    world.land_in_a_bucket()
    rows = b"".join(b"%d,x\n" % number for number in range(100))
    world.seaweed.put(world.bucket, {"landing/a.csv": b"id,name\n" + rows})
    cut = Rewrite(lambda body: body[: body.index(b"\n", len(body) // 2) + 1])
    world.s3.on("GET", rf"^/{world.bucket}/landing/a\.csv$", cut, times=times)
    load = world.load()
    assert (load.ends, load.report.rows_loaded) == (("failed", 0) if times is None else (SUCCESS, 100))
    world.s3.clear()
    world.load()
    assert sorted(world.rows()["id"].to_pylist()) == list(range(100))


def test_a_file_that_is_replaced_while_it_is_read(stored: FaultWorld) -> None:
    """It is read in pieces; after the first one another version lies there. No mixture of the two is loaded."""
    old = b"".join(b'{"id": %d, "name": "%s", "value": 1.5}\n' % (n, b"o" * 1000) for n in range(12_000))
    new = content(0)
    stored.seaweed.put(stored.bucket, {"landing/batch_0.json": old})
    replaced = Then(after=lambda: stored.seaweed.put(stored.bucket, {"landing/batch_0.json": new}))
    # The first look at the file is the sample's.
    stored.s3.on("GET", rf"^/{stored.bucket}/landing/batch_0\.json$", replaced, skip=1)
    load = stored.load()
    (error,) = load.report.errors
    assert (load.ends, error.category, error.retryable) == ("partial", Category.PATH_NOT_FOUND, True)
    settles(stored)


def test_a_slow_store_is_waited_for(stored: FaultWorld) -> None:
    stored.patience_s = 12
    slow = Slow(delay_s=0.3, pace=50)
    stored.s3.on(*request_of(stored, "GET"), slow)
    assert stored.load().ends == SUCCESS
    assert slow.took_s
    assert min(slow.took_s) > stored.patience_s
    settles(stored)


def test_the_table_s_listing_survives_a_half_page(stored: FaultWorld) -> None:
    """A later load over a listing that breaks off loads nothing, forgets nothing, and says why."""
    stored.load()
    stored.land(2)
    stored.s3.on(*request_of(stored, "LIST"), Half(), times=None)
    load = stored.load()
    assert (load.ends, load.report.files_known) == ("connectivity", 0)
    assert load.report.stopped_by is not None
    assert "run again" in load.report.stopped_by.advice
    stored.s3.clear()
    assert stored.load().report.files_loaded == 1
    stored.assert_exact(0, 1, 2)

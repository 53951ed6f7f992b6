from __future__ import annotations

import pytest

from app.domain.errors import LeaseLostError
from app.domain.runs import RunReport, RunStatus


@pytest.mark.parametrize(
    ("loaded", "failed", "status"),
    [(0, 0, RunStatus.SUCCESS), (3, 0, RunStatus.SUCCESS), (3, 1, RunStatus.PARTIAL), (0, 2, RunStatus.FAILED)],
)
def test_counts_amount_to_a_status(loaded: int, failed: int, status: RunStatus) -> None:
    report = RunReport("r", "t", files_loaded=loaded, files_failed=failed)
    assert report.settle() is status
    assert report.status is status


def test_a_run_that_was_stopped_failed_whatever_it_loaded() -> None:
    assert RunReport("r", "t", files_loaded=3, stopped_by=LeaseLostError()).settle() is RunStatus.FAILED

"""The page of metrics has those of the program, each as it is."""

from __future__ import annotations

from app.api.v1.metrics import text_of
from app.persistence.counters import DURATION_BOUNDS_S, LONGER
from app.services.metrics import BOUNDS, METRICS, MOST_SERIES, Family
from tests.docs.pages import codes, read, rows

PAGE = "reference/metrics.md"


def test_every_metric_is_documented_with_its_kind_and_labels_and_none_that_does_not_exist() -> None:
    described = {name: cells for name, cells in rows(read(PAGE)).items() if name.startswith("autoloader_")}
    assert {name: (cells[0], codes(cells[1])) for name, cells in described.items()} == {
        metric.name: (metric.type.value, set(metric.labels)) for metric in METRICS.values()
    }


def test_what_is_scraped_has_these_names() -> None:
    empty = tuple((bound, 0.0) for bound in BOUNDS)
    text = text_of([Family(metric, buckets=empty) for metric in METRICS.values()]).decode()
    for metric in METRICS.values():
        assert f"# TYPE {metric.name} {metric.type.value}\n" in text


def test_the_limit_of_series_is_told() -> None:
    assert f"At most {MOST_SERIES:,} ingestions" in read(PAGE)


def test_durations_are_scraped_by_the_bounds_that_they_are_counted_by() -> None:
    assert (*map(str, DURATION_BOUNDS_S), LONGER) == BOUNDS

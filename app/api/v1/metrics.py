"""Metrics, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.responses import Response

from app.api.routes import Route
from app.api.services import CurrentUser, MetricsDep
from app.services.metrics import Family, MetricType

router = APIRouter(tags=["metrics"], route_class=Route)
Told = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Metrics(Response):
    """The text format of Prometheus."""

    media_type = "text/plain"
    charset = "utf-8"


@router.get("/metrics", response_class=Metrics)
async def metrics(service: MetricsDep, user: CurrentUser) -> Metrics:
    """What is measured, in the text format of Prometheus."""
    return Metrics(text_of(await service.families(user.tenant)), media_type="text/plain; version=0.0.4")


def text_of(families: Iterable[Family]) -> bytes:
    """Metrics as they go out."""
    registry = CollectorRegistry()
    registry.register(_Given([_told(family) for family in families]))
    return generate_latest(registry)


class _Given(Collector):
    """Collects what is given to it."""

    def __init__(self, told: list[Told]) -> None:
        self._told = told

    def collect(self) -> list[Told]:
        return self._told


def _told(family: Family) -> Told:
    metric = family.metric
    if metric.type is MetricType.HISTOGRAM:
        told = HistogramMetricFamily(metric.name, metric.text)
        told.add_metric([], buckets=list(family.buckets), sum_value=family.sum)
        return told
    kind = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
    values = kind(metric.name, metric.text, labels=metric.labels)
    for labels, value in family.samples.items():
        values.add_metric(labels, value)
    return values

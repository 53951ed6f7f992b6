"""Prefect's library must not read the machine's time zones anew for every schedule that it sees."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import ROOT

COUNTED = """
import zoneinfo
read, times = zoneinfo.available_timezones, []

def counting():
    times.append(1)
    return read()

zoneinfo.available_timezones = counting
{first}
from prefect.client.schemas.schedules import CronSchedule
from prefect.server.schemas.schedules import CronSchedule as OfServer

# What the library does once, when it is imported, counts too.
for _ in range(20):
    CronSchedule(cron="0 * * * *", timezone="Europe/Berlin")
    OfServer(cron="0 * * * *", timezone="Europe/Berlin")
print(len(times))
"""
SERVER = "import app.prefect.server"
CLIENT = """
from app.services.prefect_connection import PrefectConnection
PrefectConnection("http://127.0.0.1:9/api", timeout_s=1, pause_s=1)
"""


@pytest.mark.parametrize(
    ("first", "least", "most"), [(SERVER, 1, 1), (CLIENT, 1, 1), ("", 20, 100)], ids=["server", "client", "library"]
)
def test_they_are_read_once(first: str, least: int, most: int) -> None:
    """Beside the library as it is, which reads them again and again: when it does not any more, ours can go."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED.format(first=first)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert least <= int(done.stdout) <= most

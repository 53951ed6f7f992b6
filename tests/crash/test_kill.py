"""Loads are killed at random moments; `make kill` does the same with more of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.kill.episode import Episode, Plan, ViolationError
from tests.crash.kill.judge import POLICIES
from tests.crash.kill.places import WORLDS, Servers
from tests.crash.kill.runs import Template
from tests.support.command import ROOT
from tests.support.postgres import Postgres
from tests.support.seaweed import Seaweed

KILLS = 15
SEED = "suite"
# Found by the first proof, as every other kill leaves a batch open.
DEFECT, ENOUGH = "forget-open-batches", 30

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    made = Template()
    yield made
    made.close()


@pytest.fixture
def servers(seaweed: Seaweed, postgres: Postgres, migrated: str) -> Servers:
    return Servers(seaweed, postgres, migrated)


@pytest.mark.parametrize("world", WORLDS)
def test_every_row_is_in_once_whatever_was_killed(
    world: str, tmp_path: Path, servers: Servers, template: Template
) -> None:
    policy = POLICIES[WORLDS.index(world) % len(POLICIES)]
    print(f"seed {SEED}, changed files: {policy}")
    figures = Episode(Plan(world, SEED, KILLS, policy), tmp_path / "episode", servers, template).play()
    assert figures.kills >= KILLS
    assert figures.counts["tables"] == 1


def test_every_defect_can_be_planted() -> None:
    """Each finds the part of the program that it takes the place of. In a process of its own: it stays planted."""
    plant_all = "from tests.crash.kill.defects import DEFECTS; [plant() for plant in DEFECTS.values()]"
    subprocess.run([sys.executable, "-c", plant_all], cwd=ROOT, check=True)


def test_what_is_wrong_is_found(tmp_path: Path, servers: Servers, template: Template) -> None:
    """With a defect in the program the same series of kills ends in a violation."""
    episode = Episode(Plan("local-sqlite", SEED, ENOUGH, defect=DEFECT), tmp_path / "episode", servers, template)
    with pytest.raises(ViolationError, match=r"batch .* is open"):
        episode.play()

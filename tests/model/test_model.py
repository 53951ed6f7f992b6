"""The product against the model: nothing lost, nothing twice, whatever happens in whatever order.

The same examples are played in every run. `make model EXAMPLES=2000` plays others, and says how to play one again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Verbosity, settings
from hypothesis.stateful import run_state_machine_as_test

from app.domain import history
from tests.model.machine import Machine
from tests.model.worlds import MemoryWorld, RealWorld, World

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "0"))


@pytest.fixture(autouse=True)
def short_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """One snapshot that may go is enough: no example comes to ten."""
    monkeypatch.setattr(history, "LEAST_GOING", 1)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryWorld]:
    world = MemoryWorld(tmp_path)
    yield world
    world.end()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealWorld]:
    world = RealWorld(tmp_path)
    yield world
    world.end()


def play(world: World, *, examples: int, steps: int) -> None:
    class Played(Machine):
        pass

    Played.world = world
    run_state_machine_as_test(
        Played,
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=steps,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            print_blob=True,
            verbosity=Verbosity.normal,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(0 if EXAMPLES else 1_800)
def test_in_memory(memory: MemoryWorld) -> None:
    play(memory, examples=100, steps=20)


@pytest.mark.timeout(0 if EXAMPLES else 1_800)
def test_in_earnest(real: RealWorld) -> None:
    play(real, examples=12, steps=12)

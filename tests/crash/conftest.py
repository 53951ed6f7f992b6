from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.crash.scenes import Prepared, Scene, State
from tests.support.forked import Template, template


@pytest.fixture(scope="session")
def forks() -> Iterator[Template]:
    """A process to fork runs from, one for each worker."""
    with template() as made:
        yield made


@pytest.fixture(scope="session")
def prepared(forks: Template, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Scenes of the built-in catalog that are brought to their state once."""
    return Prepared(forks, tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def scene_in(prepared: Prepared) -> Iterator[Callable[[State], Scene]]:
    """Gives a scene in a state; ends what is left of its runs."""
    with ExitStack() as stack:
        yield lambda state: stack.enter_context(closing(prepared.scene(state)))

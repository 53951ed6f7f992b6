"""An engine that is made when there is work, and whose processes are let go while there is nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.domain.files import SourceFile
from app.domain.ports import Engine, Inference, Progress, Reading, RewriteOrder, Rewritten, WriteOrder, WriteResult
from app.domain.types import EMPTY, Struct


class RestingEngine:
    """Keeps the promises of the Engine port by engines that it makes when there is work."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        """Make no engine yet."""
        self._make = make
        self._engine: Engine | None = None

    def expect(self, files: Sequence[SourceFile]) -> None:
        """Get ready for work on such files; see the Engine port."""
        self._at_work().expect(files)

    def infer(self, files: Sequence[SourceFile], reading: Reading, known: Struct = EMPTY) -> Inference:
        """Look at a sample of all `files`; see the Engine port."""
        return self._at_work().infer(files, reading, known)

    def write(self, order: WriteOrder, progress: Progress) -> WriteResult:
        """Write the rows of `order.files`; see the Engine port."""
        return self._at_work().write(order, progress)

    def rewrite(self, order: RewriteOrder) -> tuple[Rewritten, ...]:
        """Write data files anew without some of their rows; see the Engine port."""
        return self._at_work().rewrite(order)

    def rest(self) -> None:
        """End the processes; the next work starts others. Idempotent."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def close(self) -> None:
        """End the processes. Idempotent."""
        self.rest()

    def _at_work(self) -> Engine:
        if self._engine is None:
            self._engine = self._make()
        return self._engine

"""Take the rows of earlier versions out of data files, so that a batch commits the new ones in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.errors import FileFailure, RetriableError
from app.domain.files import EarlierVersion, LoadedFile
from app.domain.ledger import OpenBatch
from app.domain.ports import Draft, Engine, Removal, RewriteOrder
from app.domain.replacing import judge, rows_of
from app.services.discarding import discard


class RowsStayError(RetriableError):
    """Rows of earlier versions cannot be taken out: the batch is to be loaded without these files."""

    code = "rows_stay"

    def __init__(self, failures: Mapping[str, FileFailure]) -> None:
        super().__init__()
        self.failures = dict(failures)


@dataclass(frozen=True)
class Taken:
    """What a batch takes out of its table: the rows of `replaced`. `fewer` are those of which rows were gone before."""

    replaced: tuple[EarlierVersion, ...] = ()
    removal: Removal = field(default_factory=Removal)
    fewer: tuple[EarlierVersion, ...] = ()

    def warnings(self) -> list[str]:
        """What is to be said to people."""
        if not self.fewer:
            return []
        sentence = (
            f"Of files that were replaced ({len(self.fewer)}), the table held fewer rows than were loaded: "
            f"somebody had deleted some, such as those of {self.fewer[0].key}."
        )
        return [sentence]


def take_out(engine: Engine, draft: Draft, batch: OpenBatch, loaded: Sequence[LoadedFile], name_prefix: str) -> Taken:
    """Write the data files anew that hold rows of earlier versions of the files that were loaded.

    Args:
        engine: Writes them.
        draft: The table as the commit will make it.
        batch: The batch, with the earlier versions of its files.
        loaded: The files of the batch that are in its data files; of the others nothing is taken out.
        name_prefix: Of the new data files' names.

    Raises:
        RowsStayError: Rows of some files cannot be taken out; nothing that was written is left.
        WriteFailureError: As `Engine.rewrite`.
    """
    keys = {f.key for f in loaded}
    replaced = tuple(e for e in batch.replaces if e.key in keys)
    if not replaced:
        return Taken()
    rows = rows_of(replaced)
    holding = draft.holding(rows)
    order = RewriteOrder(holding.data_files, rows, draft.schema, draft.sink(), name_prefix)
    removal = Removal(rows, holding.data_files, engine.rewrite(order))
    barred = dict(holding.refused)
    for one in removal.rewritten:
        if one.refusal:
            barred |= dict.fromkeys(one.removed, one.refusal)
    verdict = judge(batch.files, replaced, removal.found, barred)
    if verdict.refused:
        discard(draft, removal.data_files)
        raise RowsStayError(verdict.refused)
    return Taken(replaced, removal, verdict.fewer)

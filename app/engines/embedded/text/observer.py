"""What the records of a file hold that a schema does not."""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.errors import Category, FileError
from app.domain.types import DataType, ListOf, MapOf, Struct, mixture_warning
from app.engines.embedded.text.fitting import Fit, UnfitError, fit_for
from app.engines.embedded.text.names import KeyPlans, NameClashError
from app.engines.embedded.text.shape import ELEMENT, VALUE, Path, Shape
from app.engines.embedded.text.values import Value


class Observer:
    """Gathers the types of what is new in a file, and of what does not fit."""

    def __init__(self, schema: Struct, *, infer_timestamps: bool, max_columns: int, all_text: bool = False) -> None:
        """Prepare to compare with `schema`; more than `max_columns` columns, old and new, fail the file."""
        self._all_text = all_text
        self._schema = schema
        self._infer_timestamps = infer_timestamps
        self._new_columns = max_columns - len(schema.fields)
        self._max_columns = max_columns
        self._shape = Shape()
        self._plans: dict[int, KeyPlans] = {}
        self._fits: dict[DataType, Fit] = {}
        self._new: set[str] = set()

    @property
    def observed(self) -> Struct:
        """The types so far."""
        return self._shape.struct()

    @property
    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each column that became text although its values are not."""
        for path, shape in self._shape.walk():
            if shape.collapsed:
                yield (
                    f'The objects in column "{".".join(path)}" have more than a thousand keys: the column holds them '
                    "as JSON text. The hint map<string,…> would keep them as a map."
                )
            elif shape.is_mixed(all_text=self._all_text):
                yield mixture_warning(path)

    def add(self, record: dict[str, Value], line: int) -> None:
        """Take note of a record that begins on `line`.

        Raises:
            FileError: Its names clash, or there are too many columns.
        """
        try:
            self._object(self._schema, record, (), top=True)
        except NameClashError as error:
            raise error.at(line) from error
        if len(self._new) > self._new_columns:
            message = f"By line {line} the columns are more than {self._max_columns}."
            raise FileError(Category.LIMIT_EXCEEDED, message, line=line)

    def _object(self, kind: Struct, value: dict[str, Value], path: Path, *, top: bool = False) -> None:
        plans = self._plans.get(id(kind))
        if plans is None:
            plans = self._plans[id(kind)] = KeyPlans(kind, top=top)
        for key, place in plans.plan(tuple(value)).steps:
            below = value[key]
            if place is not None:
                field = kind.fields[place]
                self._known(field.type, below, (*path, field.name))
                continue
            if top:
                self._new.add(key.lower())
            self._shape.at((*path, key)).add(below, infer_timestamps=self._infer_timestamps)

    def _known(self, kind: DataType, value: Value, path: Path) -> None:
        if value is None:
            return
        if isinstance(kind, Struct) and isinstance(value, dict):
            self._object(kind, value, path)
        elif isinstance(kind, ListOf) and isinstance(value, list):
            for below in value:
                self._known(kind.element, below, (*path, ELEMENT))
        elif isinstance(kind, MapOf) and isinstance(value, dict):
            for below in value.values():
                self._known(kind.value, below, (*path, VALUE))
        elif not self._fits_in(kind, value):
            self._shape.at(path).add(value, infer_timestamps=self._infer_timestamps)

    def _fits_in(self, kind: DataType, value: Value) -> bool:
        fit = self._fits.get(kind)
        if fit is None:
            fit = self._fits[kind] = fit_for(kind)
        try:
            fit(value)
        except UnfitError:
            return False
        return True

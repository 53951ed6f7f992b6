"""What the values of a file show of its types: gathered value by value, in any order with the same result."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Final

from app.domain.types import STRING, UNKNOWN, DataType, Field, ListOf, MapOf, Struct, is_mixture, join
from app.engines.embedded.text.names import check_keys
from app.engines.embedded.text.values import Value, natural_type

MAX_NESTED_KEYS = 1_000
# Steps of a path that are no field's name.
ELEMENT: Final = 0
VALUE: Final = 1
Step = str | int
Path = tuple[Step, ...]


class Shape:
    """The types seen at one place: of scalars as a set, of containers as shapes below."""

    __slots__ = ("collapsed", "element", "fields", "kinds", "value")

    def __init__(self) -> None:
        self.kinds: set[DataType] = set()
        self.fields: dict[str, tuple[str, Shape]] | None = None
        self.element: Shape | None = None
        self.value: Shape | None = None
        self.collapsed = False

    def at(self, path: Path) -> Shape:
        """The shape below, made where nothing was seen yet."""
        return reduce(Shape._below, path, self)

    def _below(self, step: Step) -> Shape:
        if isinstance(step, str):
            return self.field(step)
        if step == ELEMENT:
            self.element = self.element or Shape()
            return self.element
        self.value = self.value or Shape()
        return self.value

    def field(self, name: str) -> Shape:
        """The shape of a field; the first spelling of its name stays."""
        if self.fields is None:
            self.fields = {}
        return self.fields.setdefault(name.lower(), (name, Shape()))[1]

    def add(self, value: Value, *, infer_timestamps: bool) -> None:
        """Take note of a value.

        Raises:
            NameClashError: Keys of an object differ in case only.
        """
        if value is None or self.collapsed:
            return
        if isinstance(value, dict):
            check_keys(tuple(value))
            self.fields = {} if self.fields is None else self.fields
            for key, below in value.items():
                self.field(key).add(below, infer_timestamps=infer_timestamps)
            if len(self.fields) > MAX_NESTED_KEYS:
                self._collapse()
        elif isinstance(value, list):
            self.element = self.element or Shape()
            for below in value:
                self.element.add(below, infer_timestamps=infer_timestamps)
        else:
            self.kinds.add(natural_type(value, infer_timestamps=infer_timestamps))

    def _collapse(self) -> None:
        self.kinds = {STRING}
        self.fields = self.element = self.value = None
        self.collapsed = True

    def type(self) -> DataType:
        """The joined type of all that was seen."""
        nothing: DataType = UNKNOWN
        return reduce(join, self._all_kinds(), nothing)

    def _all_kinds(self) -> list[DataType]:
        kinds: list[DataType] = sorted(self.kinds, key=str)
        if self.fields is not None:
            kinds.append(self.struct())
        if self.element is not None:
            kinds.append(ListOf(self.element.type()))
        if self.value is not None:
            kinds.append(MapOf(STRING, self.value.type()))
        return kinds

    def struct(self) -> Struct:
        """The fields seen here, in the order in which they were first seen."""
        return Struct(tuple(Field(name, shape.type()) for name, shape in (self.fields or {}).values()))

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Shape]]:
        """Yield every place from here on down, with its path."""
        yield path, self
        for name, shape in (self.fields or {}).values():
            yield from shape.walk((*path, name))
        for name, below in (("element", self.element), ("value", self.value)):
            if below is not None:
                yield from below.walk((*path, name))

    def is_mixed(self, *, all_text: bool) -> bool:
        """Whether the values here only meet in a string, although none of them need be one.

        Args:
            all_text: The format has nothing but text: beside a word, what looks like a number is text too.
        """
        kinds = set(self._all_kinds())
        return not self.collapsed and not (all_text and STRING in kinds) and is_mixture(kinds)

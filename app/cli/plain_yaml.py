"""YAML that means what JSON can say: by YAML's own rules of old, `14:30` is 870 and `no` is false."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any

import yaml

_CORE = "tag:yaml.org,2002:"
_TAGS = ("map", "seq", "str", "int", "float", "bool", "null")


def load(text: str, refusal: Callable[[str], Exception]) -> object:
    """The one document of a text: objects, lists, texts, numbers, true, false and null; everything else is text.

    Args:
        text: YAML.
        refusal: Makes the error for what YAML allows and a definition may not hold.

    Raises:
        yaml.YAMLError: It is none.
    """

    class Plain(_Plain):
        refuse = staticmethod(refusal)

    loader = Plain(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Plain(yaml.SafeLoader):  # type: ignore[misc]  # the library has no types
    refuse: Callable[[str], Exception]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the library has it

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - the library's
        """A node; never one that stands elsewhere, for a few of those make a document of any size."""
        if self.check_event(yaml.AliasEvent):
            raise type(self).refuse(f"an alias (*) stands on line {self.peek_event().start_mark.line + 1}.")
        node = super().compose_node(parent, index)
        if node.tag.removeprefix(_CORE) not in _TAGS:
            raise type(self).refuse(f"the tag {node.tag[:100]!r} has no meaning here, line {node.start_mark.line + 1}.")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ANN401
        """An object, whose names are texts and stand there once."""
        names: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise type(self).refuse(f"a name is no text, line {line}.")
            if key.value in names:
                raise type(self).refuse(f"the name {key.value[:100]!r} stands twice in one object, line {line}.")
            names.add(key.value)
            key.tag = f"{_CORE}str"
        return dict(super().construct_mapping(node, deep))

    def flatten_mapping(self, node: Any) -> None:  # noqa: ANN401
        """`<<` is a name like any other."""


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", list("-+0123456789")),
):
    _Plain.add_implicit_resolver(f"{_CORE}{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)

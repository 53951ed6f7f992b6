"""What the program has is in the reference, and with the same values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import typer

from app.cli import cli
from app.config import Settings
from app.domain import errors, table, types
from app.domain.definition import FIELDS
from app.domain.errors import AutoloaderError, Category, FatalError, RetriableError, UsageError
from app.domain.files import FileState
from app.domain.system_columns import NAMES
from tests.docs.pages import codes, read, rows, section

ERROR_CLASSES = [
    c
    for c in vars(errors).values()
    if isinstance(c, type) and issubclass(c, AutoloaderError) and c.__module__ == errors.__name__
]


@dataclass(frozen=True)
class Option:
    """An option of a command, by all its spellings."""

    command: str
    names: tuple[str, ...]
    hidden: bool


def commands() -> Iterator[tuple[str, list[Option]]]:
    """Every command that does something, by its full name, with its options."""
    yield from _walk(typer.main.get_command(cli), ())


def _walk(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, list[Option]]]:
    params = getattr(command, "params", [])
    name = " ".join(path)
    yield (
        name,
        [Option(name, (*p.opts, *p.secondary_opts), bool(p.hidden)) for p in params if p.param_type_name == "option"],
    )
    for child, below in getattr(command, "commands", {}).items():
        if below.hidden:
            continue
        yield from _walk(below, (*path, child))


COMMANDS = dict(commands())
GROUPS = {"", "ledger", "keys", "tokens", "ingestions"}
# Their sections name the options of `load` that they do not take, and those of their own.
LIKE_LOAD = {"plan", "ledger check"}


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    described = rows(read("reference/settings.md"))
    assert name.upper() in described
    default = Settings.model_fields[name].default
    shown = described[name.upper()][0].strip("`")
    assert (shown == "unset") if default is None else (type(default)(shown) == default)


def test_no_setting_is_documented_that_does_not_exist() -> None:
    described = {name for name in rows(read("reference/settings.md")) if name.isupper()}
    assert described == {name.upper() for name in Settings.model_fields}


def test_no_setting_is_documented_twice() -> None:
    named = re.findall(r"^\| `([A-Z0-9_]+)` \|", read("reference/settings.md"), re.MULTILINE)
    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", Category)
def test_every_category_says_whether_it_is_tried_again(category: Category) -> None:
    described = rows(section(read("reference/errors.md"), "## Categories of files"))
    retryable, meaning, remedy = described[category.value]
    assert retryable == ("yes" if category.retryable else "no")
    assert meaning
    assert remedy


def family(error: type[AutoloaderError]) -> str:
    """The heading under which an error belongs."""
    if issubclass(error, UsageError):
        return "## Wrong use"
    if issubclass(error, RetriableError):
        return "## Try again"
    return "## Change something"


@pytest.mark.parametrize("error", [c for c in ERROR_CLASSES if issubclass(c, RetriableError | FatalError)])
def test_every_error_is_documented_under_what_to_do(error: type[AutoloaderError]) -> None:
    described = rows(section(read("reference/errors.md"), family(error)))
    assert error.code in described
    assert described[error.code][0]


@pytest.mark.parametrize("error", ERROR_CLASSES)
def test_no_error_code_is_missing(error: type[AutoloaderError]) -> None:
    assert error.code in codes(read("reference/errors.md"))


def test_no_error_is_documented_that_does_not_exist() -> None:
    text = read("reference/errors.md")
    known = {c.code for c in ERROR_CLASSES} | {c.value for c in Category}
    documented = {name for name in rows(text) if name.isidentifier() and name not in {"category", "code"}}
    assert documented <= known


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in GROUPS])
def test_every_command_has_its_section(command: str) -> None:
    assert f"\n## {command}\n" in read("reference/command-line.md")


@pytest.mark.parametrize(
    "option", [o for options in COMMANDS.values() for o in options], ids=lambda o: f"{o.command}{o.names[0]}"
)
def test_every_option_is_documented(option: Option) -> None:
    text = read("reference/command-line.md")
    front = text.partition("\n## ")[0]
    if option.hidden:
        documented = codes(section(text, "### Not yet"))
    elif not option.command:
        documented = codes(front)
    else:
        described = front + section(text, f"## {option.command}")
        if option.command in LIKE_LOAD:
            described += section(text, "## load")
        # A table's first cell, or the form of the command itself; an option that is only mentioned is not described.
        forms = re.findall(rf"^`autoloader {option.command} .*`$", described, re.MULTILINE)
        documented = {word for cell in [*rows(described), *forms] for word in re.split(r"[\s`\[\]]+", cell)}
    assert set(option.names) <= documented


def test_what_is_not_built_is_not_offered() -> None:
    offered = codes(section(read("reference/command-line.md"), "## load").partition("### Not yet")[0])
    names = {span.split()[0] for span in offered}
    assert names.isdisjoint("--" + field.name.replace("_", "-") for field in FIELDS if not field.usable)


def test_defaults_of_options_are_the_programs() -> None:
    described = {name.split()[0]: others for name, others in rows(read("reference/command-line.md")).items() if name}
    for field in FIELDS:
        if field.usable and field.kind is int:
            assert described["--" + field.name.replace("_", "-")][0] == str(field.default)


@pytest.mark.parametrize("state", FileState)
def test_every_state_of_a_file_is_documented(state: FileState) -> None:
    assert state.value in rows(section(read("reference/command-line.md"), "## files"))


# --- types and tables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*types.PRIMITIVES, "unknown", "decimal", "fixed", "struct", "list", "map"])
def test_every_type_is_documented(name: str) -> None:
    assert name in codes(read("reference/types.md"))


@pytest.mark.parametrize("old", types.PRIMITIVES.values(), ids=str)
@pytest.mark.parametrize("new", types.PRIMITIVES.values(), ids=str)
def test_promotions_are_those_of_the_page(old: types.Primitive, new: types.Primitive) -> None:
    described = rows(section(read("reference/types.md"), "## Promotions"))
    shown = described.get(old.name, [""])[0].strip("`") == new.name
    assert types.is_promotion(old, new) is shown


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_system_column_is_documented(name: str) -> None:
    assert name in rows(section(read("reference/table-layout.md"), "## System columns"))


@pytest.mark.parametrize(
    "name",
    [
        table.last_batch_property("<ingestion>"),
        table.epoch_property("<ingestion>"),
        table.LOAD_INGESTION,
        table.MANIFEST_FOLDER,
        table.SNAPSHOT_BATCH_ID,
        table.SNAPSHOT_EPOCH,
        table.SNAPSHOT_MANIFEST,
    ],
)
def test_every_mark_on_a_table_is_documented(name: str) -> None:
    assert name in rows(read("reference/table-layout.md"))

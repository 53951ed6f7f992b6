"""Options that several commands share, and those that come from the table of a definition's fields."""

from __future__ import annotations

import enum
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.domain.definition import FIELDS, DefinitionField, check_value
from app.domain.errors import InvalidFieldError, UsageError


class Output(enum.StrEnum):
    """What a command prints on stdout."""

    TEXT = "text"
    JSON = "json"


# The bracket is escaped: help texts are markup.
TABLE_HELP = r"\[catalog.]database.table"

OutputOption = Annotated[Output, typer.Option("--output", help="text for people, json for programs.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show log events on stderr.")]
TableArgument = Annotated[str, typer.Argument(metavar="TABLE", help=TABLE_HELP)]
SourceArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="A folder, file or pattern, or s3://bucket/…, az://container/…, gs://bucket/…; quote patterns.",
    ),
]
ToOption = Annotated[str, typer.Option("--to", metavar="TABLE", help=TABLE_HELP)]
CredentialsOption = Annotated[
    str | None,
    typer.Option("--credentials", metavar="FILE", help="JSON with the store's keys; - reads it from stdin."),
]
RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Try every failed file again, now.")]


def with_definition_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `**values` one option for each field of a definition.

    What is not built yet has its option too, hidden: giving it is answered by name, not by "no such option".
    """
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    fields = [_parameter(field) for field in FIELDS]
    command.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
    return command


def _parameter(field: DefinitionField) -> inspect.Parameter:
    flag = "--" + field.name.replace("_", "-")
    flags = f"{flag}/--no-{flag[2:]}" if field.kind is bool else flag
    kind: Any = list[str] if field.kind is list else field.kind
    option = typer.Option(flags, help=field.help, hidden=not field.usable, show_default=False)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given, checked.

    Raises:
        NotSupportedError: One has a value that is not built.
        InvalidFieldError: One has a value without meaning.
    """
    given = {name: value for name, value in values.items() if value is not None and value != []}
    for field in FIELDS:
        if field.name in given:
            if field.kind is list:
                given[field.name] = tuple(given[field.name])
            check_value(field, given[field.name])
    return given


def one_source(sources: list[str]) -> str:
    """The source, when it is one.

    Raises:
        UsageError: The shell made several arguments of a pattern.
    """
    if len(sources) > 1:
        raise UsageError(
            f"SOURCE is one place, and {len(sources)} were given, the first being {sources[0]}.",
            remedy="If your shell expanded a pattern, quote the pattern: 'folder/*.json'.",
        )
    return sources[0]


def read_credentials(file: str | None) -> dict[str, str] | None:
    """The store's keys from a file or from stdin; None where none was named.

    Raises:
        InvalidFieldError: It is no JSON object of texts. What it holds is never shown.
    """
    if file is None:
        return None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise InvalidFieldError(f"The credentials in {file} cannot be read: {reason}.") from None
    if not isinstance(document, dict) or not all(isinstance(v, str | dict) for v in document.values()):
        raise InvalidFieldError(f"The credentials in {file} are no JSON object of texts.")
    # A service account's key is a document of its own, which may stand there as it is or as text.
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in document.items()}

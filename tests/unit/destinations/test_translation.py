"""Which of our errors a foreign one becomes, by what it means at that moment."""

from __future__ import annotations

import pytest
from pyiceberg import exceptions as theirs
from pyiceberg.catalog.rest import TableResponse
from pyiceberg.table.metadata import TableMetadataV2
from requests import ConnectionError as RequestsConnectionError
from requests.exceptions import ChunkedEncodingError

from app.destinations.refusal import Refused
from app.destinations.translation import (
    Translation,
    committing,
    creating,
    is_secret,
    opening,
    preparing,
    reading,
    redacted,
    short,
    translated,
)
from app.domain import errors as ours


def said(translation: Translation, error: Exception) -> Exception:
    """What comes out of a block that raises `error`."""
    try:
        with translated(translation, "sales.orders"):
            raise error
    except type(error) as same:
        return same
    except ours.AutoloaderError as translation_of_it:
        return translation_of_it


@pytest.mark.parametrize(
    ("translation", "error", "expected"),
    [
        (opening, theirs.NotInstalledError("hive"), ours.CatalogNotConfiguredError),
        (opening, ValueError("URI missing"), ours.CatalogNotConfiguredError),
        (opening, RequestsConnectionError("refused"), ours.CatalogUnreachableError),
        (opening, theirs.UnauthorizedError("no"), ours.CatalogAuthError),
        (opening, theirs.OAuthError("no"), ours.CatalogAuthError),
        (reading, theirs.NoSuchTableError("no"), ours.TableNotFoundError),
        (reading, theirs.NoSuchNamespaceError("no"), ours.TableNotFoundError),
        (reading, FileNotFoundError("gone"), ours.TableUnreadableError),
        (reading, PermissionError("closed"), ours.TableUnreadableError),
        (reading, ValueError("bad json"), ours.TableUnreadableError),
        (reading, theirs.ValidationError("version 9"), ours.TableUnreadableError),
        (reading, theirs.ForbiddenError("no"), ours.CatalogAuthError),
        (reading, OSError("AWS Error ACCESS_DENIED during GetObject"), ours.CatalogAuthError),
        (reading, theirs.ServiceUnavailableError("later"), ours.CatalogUnreachableError),
        (reading, TimeoutError("slow"), ours.CatalogUnreachableError),
        (creating, theirs.TableAlreadyExistsError("there"), ours.TableConflictError),
        (creating, theirs.BadRequestError("bad name"), ours.CatalogRefusedError),
        (creating, theirs.UnauthorizedError("no"), ours.CatalogAuthError),
        (preparing, OSError(28, "No space left on device"), ours.WriteFailureError),
        (preparing, FileNotFoundError("a manifest"), ours.TableUnreadableError),
        (committing, RequestsConnectionError("reset"), ours.CommitUnknownError),
        (committing, ChunkedEncodingError("half"), ours.CommitUnknownError),
        (committing, theirs.CommitStateUnknownException("502"), ours.CommitUnknownError),
        (committing, theirs.ServiceUnavailableError("503"), ours.CommitUnknownError),
        (committing, theirs.BadRequestError("400"), ours.CommitUnknownError),
        (committing, theirs.RESTError("408"), ours.CommitUnknownError),
        (committing, theirs.ForbiddenError("403"), ours.CommitUnknownError),
        (committing, ValueError("anything"), ours.CommitUnknownError),
        (committing, Refused(ours.FencedError()), ours.FencedError),
        (committing, theirs.CommitFailedException("409"), theirs.CommitFailedException),
        (reading, RuntimeError("a bug"), RuntimeError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_an_error_becomes(translation: Translation, error: Exception, expected: type[Exception]) -> None:
    assert type(said(translation, error)) is expected


def test_an_answer_that_is_none_says_nothing_about_the_table() -> None:
    """A cut answer of a REST catalog is the catalog's; metadata that cannot be read is the table's."""
    for document, expected in (
        (TableResponse, ours.CatalogUnreachableError),
        (TableMetadataV2, ours.TableUnreadableError),
    ):
        with pytest.raises(expected), translated(reading, "sales.orders"):
            document.model_validate_json('{"metadata": {')


@pytest.mark.parametrize(
    "text",
    [
        "GET /k?X-Amz-Credential=leak%2F1&X-Amz-Signature=leak&x=1",
        "SharedAccess sv=1&sig=leak%3D",
        "Authorization: Bearer leak.leak refused",
        "AWS4-HMAC-SHA256 Credential=leak/x/y, SignedHeaders=host, Signature=leak",
        '{"access_token": "leak", "type": "t"}',
        "grant_type=c&client_secret=some\"%'leak&scope=catalog",
    ],
)
def test_what_signs_is_not_shown(text: str) -> None:
    assert "leak" not in short(ValueError(text))
    assert "***" in short(ValueError(text))


def test_our_own_errors_and_interrupts_pass() -> None:
    assert type(said(committing, ours.LeaseLostError())) is ours.LeaseLostError
    with pytest.raises(KeyboardInterrupt), translated(committing, "sales.orders"):
        raise KeyboardInterrupt


def test_a_message_is_one_short_line_without_passwords() -> None:
    assert short(ValueError("cannot reach postgresql://me:hush@host/db.\nmore")) == (
        "cannot reach postgresql://me:***@host/db"
    )
    assert short(ValueError("")) == "ValueError"
    assert len(short(ValueError("x" * 1000))) < 310


def test_secrets_are_taken_out() -> None:
    properties = {"uri": "http://host", "credential": "client:hush-hush", "s3.secret-access-key": "silent"}
    assert redacted("http://host: client:hush-hush, hush-hush, silent", properties) == "http://host: ***, ***, ***"
    assert is_secret("s3.session-token")
    assert not is_secret("write.parquet.compression-codec")
    assert not is_secret("autoloader.nightly.last-batch")

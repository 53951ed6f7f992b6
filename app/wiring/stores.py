"""The service's database and its keys, opened as each command needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from app.config import Settings
from app.domain.errors import UsageError
from app.domain.failpoints import parse_failpoints
from app.wiring.environment import learn_secrets
from app.wiring.product import FAILPOINT_VARIABLE, Product

if TYPE_CHECKING:
    from app.domain.access import AccessTokens
    from app.domain.redaction import Redactor
    from app.persistence.keys import Keyring
    from app.persistence.service import SqlServiceStore


@contextmanager
def existing_store(settings: Settings, environ: Mapping[str, str], redactor: Redactor) -> Iterator[SqlServiceStore]:
    """The service's database as it is, closed when the block ends.

    Raises:
        WrongDatabaseError: There is none; none is made.
        AutoloaderError: It cannot be used.
    """
    require_server()
    from app.domain.errors import WrongDatabaseError
    from app.persistence.service import open_existing_service_store

    failpoints = parse_failpoints(environ.get(FAILPOINT_VARIABLE, ""))
    learn_secrets(settings, environ, redactor)
    keys = keyring_of(settings)
    store = open_existing_service_store(settings.ledger_url, keys, redactor.learn, failpoints)
    if store is None:
        raise WrongDatabaseError(f"There is no database at {Product(settings, environ).shown_ledger()}.")
    try:
        yield store
    finally:
        store.dispose()


@contextmanager
def open_access_tokens(settings: Settings, *, on_new: Callable[[str], None] | None = None) -> Iterator[AccessTokens]:
    """The tokens of this installation.

    Args:
        settings: What `read_settings` read.
        on_new: Told where there is no database, and one is made; without it none is.

    Raises:
        LedgerUnreadableError: There is no database, and none is made.
        AutoloaderError: It cannot be used.
    """
    require_server()
    from app.domain.errors import LedgerUnreadableError
    from app.domain.redaction import Redactor
    from app.persistence.ledger import ledger_exists, shown_url
    from app.persistence.service import open_existing_service_store, open_service_store

    redactor = Redactor()
    learn_secrets(settings, {}, redactor)
    keys = keyring_of(settings)
    is_new = not ledger_exists(settings.ledger_url)
    opens = open_existing_service_store if on_new is None else open_service_store
    store = opens(settings.ledger_url, keys, redactor.learn)
    if is_new and on_new is not None:
        on_new(f"Made a new database: {shown_url(settings.ledger_url)} (AUTOLOADER_HOME is {settings.home}).")
    if store is None:
        raise LedgerUnreadableError(
            f"There is no database {shown_url(settings.ledger_url)}.",
            remedy="Check AUTOLOADER_HOME and DATABASE_URL; `autoloader tokens create` makes one.",
        )
    try:
        yield store
    finally:
        store.dispose()


def rotate_keys(settings: Settings, redactor: Redactor) -> int:
    """Put all credentials under the present master key; how many were not.

    Raises:
        LedgerUnreadableError: There is no database.
        SecretKeyError: A key is missing.
    """
    require_server()
    from app.domain.errors import LedgerUnreadableError
    from app.persistence.service import open_existing_service_store

    learn_secrets(settings, {}, redactor)
    store = open_existing_service_store(settings.ledger_url, keyring_of(settings), redactor.learn)
    if store is None:
        raise LedgerUnreadableError("There is no database.", remedy="Check AUTOLOADER_HOME and DATABASE_URL.")
    try:
        return store.rewrap_secrets()
    finally:
        store.dispose()


def require_server() -> None:
    """Refuse where the service's libraries are not installed, as after an installation for loads alone."""
    if find_spec("cryptography") is None:
        raise UsageError(
            "The service's libraries are not installed.",
            remedy="Install them: pip install 'iceberg-autoloader[server]'.",
        )


def keyring_of(settings: Settings) -> Keyring:
    """The master keys of the settings, or of the key file in AUTOLOADER_HOME."""
    from app.persistence.service import keyring

    given = [
        None if key is None else key.get_secret_value() for key in (settings.secret_key, settings.secret_key_previous)
    ]
    return keyring(settings.ledger_url, given[0], given[1], settings.home)

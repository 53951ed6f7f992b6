"""What a source may be, once others than this machine's own user ask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app.config import Settings

if TYPE_CHECKING:
    from app.domain.access import AccessTokens
    from app.domain.reach import Reach


def reach_in_server_mode(settings: Settings, store: AccessTokens) -> Callable[[], Reach | None]:
    """What tells what a run or a preview may read: everything, until there are tokens.

    Raises:
        InvalidFieldError: AUTOLOADER_ALLOWED_HOSTS cannot be understood.
    """
    from app.domain.reach import Reach, parse_allowed_hosts

    hosts = parse_allowed_hosts(settings.autoloader_allowed_hosts or "")
    roots = tuple(os.fsencode(root) for root in settings.local_roots)
    reach = Reach(roots, tuple(map(os.fsencode, _own_places(settings))), hosts)
    return lambda: reach if store.look_up_token(None).is_server_mode else None


def _own_places(settings: Settings) -> Iterator[str]:
    """What is no source in whatever folder it lies: what is the program's own, and what the system tells of itself.

    By real paths: with these what a source leads to is compared.
    """
    from app.persistence.keys import SECRET_FILES

    yield from ("/proc", "/sys", "/dev")
    yield str(settings.warehouse)
    # Here `up` keeps its Prefect server, which knows the token that it calls this service with.
    yield os.path.realpath(settings.home / "prefect")
    for name in (*SECRET_FILES, ".env", ".pyiceberg.yaml"):
        yield os.path.realpath(settings.home / name)
        yield os.path.realpath(Path.cwd() / name)
    database = settings.ledger_url.removeprefix("sqlite:///")
    if database != settings.ledger_url:
        yield from (os.path.realpath(database) + end for end in ("", "-wal", "-shm", "-journal"))

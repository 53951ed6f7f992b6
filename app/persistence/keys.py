"""The master keys that credentials are kept under. They come from outside of the database, and never go into it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import SecretKeyError

KEY_BYTES = 32
FILE_NAME = "secret.key"
_PREVIOUS = ".previous"
_NEW = ".new"
# Every file that a key may stand in.
SECRET_FILES = (FILE_NAME, FILE_NAME + _PREVIOUS, FILE_NAME + _NEW)
# A passphrase becomes a key by this. The salt is the same for all, for nothing outside the database could keep one.
_SALT = b"autoloader master key 1"
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20}


@dataclass(frozen=True)
class MasterKey:
    """A key that wraps the keys of rows. `id` tells it from others and nothing else."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"MasterKey({self.id})"


def master_key(secret: bytes) -> MasterKey:
    """The key of these 32 bytes."""
    return MasterKey(hashlib.sha256(b"autoloader key id\0" + secret).hexdigest()[:KEY_BYTES], secret)


def read_key(text: str) -> MasterKey:
    """The key that a setting holds: 32 bytes in base64 as they are, any other text as a passphrase.

    Raises:
        SecretKeyError: It is empty.
    """
    text = text.strip()
    if not text:
        raise SecretKeyError("SECRET_KEY is empty.", remedy="Set it to 32 random bytes in base64, or leave it out.")
    raw = _from_base64(text)
    return master_key(raw or hashlib.scrypt(text.encode(), salt=_SALT, dklen=KEY_BYTES, **_SCRYPT))


def _from_base64(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == KEY_BYTES else None


class Keyring:
    """The master keys of this process: one to write with, and older ones to read with."""

    def __init__(self, secret_key: str | None, previous: str | None, folder: Path | None) -> None:
        """Take the keys from settings, or from a file of one's own.

        Args:
            secret_key: The setting SECRET_KEY.
            previous: The setting SECRET_KEY_PREVIOUS.
            folder: Where the key's file is, and is made where no setting gives a key; None: a setting must give it.
        """
        self._setting = secret_key
        self._previous = previous
        self._file = None if folder is None else folder / FILE_NAME
        self._read: dict[str, MasterKey] = {}

    def current(self) -> MasterKey:
        """The key to write with; its file is made when there is none.

        Raises:
            SecretKeyError: No setting gives one and there is no place for a file, or the file cannot be used.
        """
        if self._setting is not None:
            return self._key(self._setting)
        if self._file is None:
            raise SecretKeyError(
                "Credentials in PostgreSQL need a key that every process of the service has.",
                remedy="Set SECRET_KEY, the same for all of them: 32 random bytes in base64, as from "
                "`openssl rand -base64 32`.",
            )
        # Read each time: another process may have changed it since.
        return _read_file(self._file) or _make_file(self._file)

    def require(self) -> None:
        """Refuse to begin where no key could be had at need. Nothing is made.

        Raises:
            SecretKeyError: No setting gives one and there is no place for a file, or the setting is empty.
        """
        if self._setting is not None or self._file is None:
            self.current()

    def find(self, key_id: str) -> MasterKey:
        """The key of that id.

        Raises:
            SecretKeyError: It is not at hand.
        """
        for key in self._known():
            if key.id == key_id:
                return key
        raise SecretKeyError("The key that these credentials were stored under is not at hand.")

    def _known(self) -> Iterator[MasterKey]:
        for text in (self._setting, self._previous):
            if text is not None:
                yield self._key(text)
        if self._file is not None:
            for path in (self._file, _beside(self._file, _PREVIOUS)):
                found = _read_file(path)
                if found is not None:
                    yield found

    def _key(self, text: str) -> MasterKey:
        # A passphrase takes a tenth of a second to become a key.
        if text not in self._read:
            self._read[text] = read_key(text)
        return self._read[text]

    # --- a new key in the file ------------------------------------------------------------------------------------

    def begin_rotation(self) -> None:
        """Where the key is in a file: put a new one there and keep the old one beside it until `end_rotation`.

        Again after a kill: goes on with the one that was begun.
        """
        if self._setting is not None or self._file is None:
            self.current()
            return
        previous, new = _beside(self._file, _PREVIOUS), _beside(self._file, _NEW)
        if previous.exists() and not new.exists():
            return
        if _read_file(self._file) is None:
            _make_file(self._file)
            return
        if not previous.exists():
            # One that is there already may be cut short: it is only whole for sure once the old key stands beside.
            _write_new(new)
            os.link(self._file, previous)
        new.replace(self._file)
        _sync_folder(self._file)

    def end_rotation(self) -> None:
        """Forget the old key in a file, which nothing is under any more."""
        if self._file is not None:
            _beside(self._file, _PREVIOUS).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _read_file(path: Path) -> MasterKey | None:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SecretKeyError(f"The key in {path} cannot be read.", remedy="Check the file.") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecretKeyError(f"The key in {path} may be read by others.", remedy=f"chmod 600 {path}")
    raw = _from_base64(text.strip())
    if raw is None:
        raise SecretKeyError(f"The key in {path} is damaged.", remedy="Restore the file from a backup.")
    return master_key(raw)


def _make_file(path: Path) -> MasterKey:
    """Make the file, whole or not at all; of two that are first at once both have the same key."""
    part = _beside(path, f".{os.getpid()}.part")
    try:
        _write_new(part)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
        part.unlink()
        _sync_folder(path)
    except OSError as error:
        raise SecretKeyError(
            f"The key for credentials cannot be kept in {path}: {error.strerror}.",
            remedy="Set SECRET_KEY, or make the folder one that can be written.",
        ) from error
    made = _read_file(path)
    if made is None:
        raise SecretKeyError(f"The key in {path} is gone.", remedy="Restore the file from a backup.")
    return made


def _write_new(path: Path) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(base64.b64encode(os.urandom(KEY_BYTES)).decode() + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Encrypts secrets: AES-256-GCM, a key for each row, bound to the row, itself wrapped by a master key."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.domain.errors import SecretKeyError
from app.persistence.keys import KEY_BYTES, Keyring, MasterKey

_NONCE_BYTES = 12


@dataclass(frozen=True)
class Place:
    """The row that secrets belong to: anywhere else they are of no use."""

    row: str
    table: str = "secrets"


@dataclass(frozen=True)
class Sealed:
    """Secrets as a row keeps them."""

    ciphertext: bytes
    nonce: bytes
    wrapped_key: bytes
    key_id: str


def seal(keyring: Keyring, place: Place, credentials: Mapping[str, str]) -> Sealed:
    """Encrypt the secrets for that row and no other."""
    secret, nonce = AESGCM.generate_key(bit_length=8 * KEY_BYTES), os.urandom(_NONCE_BYTES)
    plain = json.dumps(dict(credentials)).encode()
    ciphertext = AESGCM(secret).encrypt(nonce, plain, _bound("ciphertext", place))
    master = keyring.current()
    return Sealed(ciphertext, nonce, _wrap(master, place, secret), master.id)


def unseal(keyring: Keyring, place: Place, sealed: Sealed) -> dict[str, str]:
    """What was encrypted for that row.

    Raises:
        SecretKeyError: The key is not at hand, or the row is not as it was written.
    """
    secret = _unwrap(keyring.find(sealed.key_id), place, sealed.wrapped_key)
    try:
        plain = AESGCM(secret).decrypt(sealed.nonce, sealed.ciphertext, _bound("ciphertext", place))
    except InvalidTag:
        raise _tampered() from None
    found: dict[str, str] = json.loads(plain)
    return found


def rewrap(keyring: Keyring, place: Place, wrapped_key: bytes, key_id: str) -> tuple[bytes, str]:
    """The row's key under the present master key, and that key's id.

    Raises:
        SecretKeyError: The key that it is under is not at hand, or the row was tampered with.
    """
    secret = _unwrap(keyring.find(key_id), place, wrapped_key)
    master = keyring.current()
    return _wrap(master, place, secret), master.id


def _wrap(master: MasterKey, place: Place, secret: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(master.secret).encrypt(nonce, secret, _bound("wrapped_key", place))


def _unwrap(master: MasterKey, place: Place, wrapped: bytes) -> bytes:
    nonce, encrypted = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
    try:
        return AESGCM(master.secret).decrypt(nonce, encrypted, _bound("wrapped_key", place))
    except (InvalidTag, ValueError):
        raise _tampered() from None


def _bound(column: str, place: Place) -> bytes:
    """What is authenticated with each text: where it belongs, so that it is of no use anywhere else."""
    return f"autoloader/{place.table}/{column}/{place.row}".encode()


def _tampered() -> SecretKeyError:
    return SecretKeyError("The credentials in the database are not as they were written for this ingestion.")

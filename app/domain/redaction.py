"""Takes secrets out of what is written down: values that are known, fields by their names, and forms of addresses."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from app.domain.addresses import passwords_of
from app.domain.secret_forms import HIDDEN, Secret, parts_of
from app.domain.secret_search import SecretSearch

# Shorter values stand in too many texts by chance, and so do numbers up to so many digits.
SHORTEST, LONGEST_NUMBER = 6, 9
MOST = 1_000
# What messages end in that were too long.
CUT = "…"
# Deeper than anything that is logged on purpose.
_DEPTH = 20

_SECRET_NAME = re.compile(
    r"secret|passw|token|credential|(?:api|account|access|private)[_-]?key|sas_|authorization|auth_?string"
    r"|cookie|signature|connection[_-]?string|service_account|wrapped_key",
    re.IGNORECASE,
)
# Names that hold the words above and tell nothing: which credentials there are, and how much of them.
_HARMLESS = frozenset({"credential_names", "aws_access_key_id_hint", "secrets", "tokens_required"})
_USER_INFO = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")
_PARAMETER = re.compile(
    r"((?:[?&;\s]|^)(?:sig|x-amz-signature|x-amz-security-token|x-goog-signature|password|token)=)[^&\s;\"']+",
    re.IGNORECASE,
)
# The form of a token of ours, whose prefix `domain.access` has.
_OURS = "autoloader_"
_TOKEN = re.compile(rf"{_OURS}[A-Za-z0-9_-]{{20,}}")
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
# Words that stand in what the service tells of itself. As passwords they are guessed first, and hidden they would take
# the sense out of every message.
_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """
        autoloader prefect prefecthq iceberg spark sqlite postgres postgresql seaweedfs localhost
        admin administrator operator viewer tenant password secret secrets credentials default public private example
        ingestion ingestions source sources destination schema schedule scheduled deployment webhook webhooks
        catalog catalogs warehouse database table tables columns snapshot bucket region object format
        server service scheduler worker workers hourly weekly monthly manual direct
        success succeeded failed partial queued running cancelled pending paused active
        string integer boolean timestamp number
        """,
    )
)
# Variables that say where a secret is.
_PLACES = ("_FILE", "_PATH", "_DIR", "APPLICATION_CREDENTIALS")


def secrets_of(environ: Mapping[str, str]) -> Iterator[str]:
    """What is secret in an environment, or in settings by the names of their variables."""
    for name, value in environ.items():
        if is_secret_name(name) and not name.upper().endswith(_PLACES):
            yield value
            # Of a name and a password, or of a client and its secret, the second is one by itself.
            yield "" if "://" in value else value.partition(":")[2]
        yield from passwords_of(value)


def is_ordinary(value: str) -> bool:
    """Whether a value stands in texts by chance, so that to hide it would tell less than it keeps."""
    return len(value) < SHORTEST or value.lower() in _WORDS or (len(value) <= LONGEST_NUMBER and value.isdecimal())


@lru_cache(maxsize=1_000)
def is_secret_name(name: str) -> bool:
    """Whether a field of that name holds what nobody may read."""
    return name not in _HARMLESS and _SECRET_NAME.search(name) is not None


class Redactor:
    """Knows the secrets that this process has seen. Used from any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # In the order in which they were last seen.
        self._known: dict[str, Secret] = {}
        self._search = SecretSearch()
        self._changing = threading.Lock()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these from now on, in every text and in every form that `Secret` knows; what is ordinary is left.

        The `MOST` that were seen last are kept: what a process can write down it has read or been sent, and so learned
        anew.
        """
        parts = {part.strip() for secret in secrets for part in parts_of(secret)}
        with self._changing:
            for part in parts:
                if not is_ordinary(part):
                    self._keep(part)
            while len(self._known) > MOST:
                self._search.remove(self._known.pop(next(iter(self._known))))

    def _keep(self, part: str) -> None:
        known = self._known.pop(part, None)
        if known is None:
            known = Secret(part)
            self._search.add(known)
        self._known[part] = known

    def text(self, text: str) -> str:
        """The text without them, and without what has the form of one."""
        for secret in self._search.perhaps_in(text):
            text = secret.hidden_in(text)
        if CUT in text:
            text = self._without_beginnings(text)
        # Most texts hold nothing of these forms, and a look for a plain text costs next to nothing.
        if "://" in text and "@" in text:
            text = _USER_INFO.sub(rf"\1:{HIDDEN}@", text)
        if "=" in text:
            text = _PARAMETER.sub(rf"\1{HIDDEN}", text)
        if _OURS in text:
            text = _TOKEN.sub(f"{_OURS}{HIDDEN}", text)
        lowered = text.lower()
        if "bearer" in lowered or "basic" in lowered:
            text = _BEARER.sub(rf"\1 {HIDDEN}", text)
        return text

    def _without_beginnings(self, text: str) -> str:
        """The text without what is left of secrets in whose middle somebody cut it."""
        *cut, rest = text.split(CUT)
        with self._changing:
            known = tuple(self._known)
        for number, part in enumerate(cut):
            for secret in known:
                at = part.rfind(secret[:SHORTEST])
                if at >= 0 and secret.startswith(part[at:]):
                    cut[number] = part[:at] + HIDDEN
        return CUT.join([*cut, rest])

    def value(self, value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - whatever is logged
        """The same for whatever JSON can hold; other objects as the text that they give."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= _DEPTH:
            return HIDDEN
        if isinstance(value, Mapping):
            return self.fields(value, depth + 1)
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(one, depth + 1) for one in value]
        return self.text(str(value))

    def fields(self, fields: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
        """The fields without secrets: those with a telling name are hidden whole."""
        return {
            str(name): HIDDEN if value and is_secret_name(str(name)) else self.value(value, depth)
            for name, value in fields.items()
        }

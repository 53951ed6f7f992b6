"""Clients of the API: so many requests a second, reads and writes, whether or not those before were answered."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

PATH = "/api/v1/ingestions"
A_SECOND = 50
TIMEOUT_S = 60.0
OK, CREATED, NO_CONTENT = httpx.codes.OK, httpx.codes.CREATED, httpx.codes.NO_CONTENT
# In this order, again and again: three of ten write.
MIX = ("list", "one", "runs", "change", "files", "health", "make", "search", "one", "remove")


@dataclass
class Answers:
    """What became of the requests."""

    latencies_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)


class Api:
    """The API's processes, asked in turn."""

    def __init__(self, urls: Sequence[str]) -> None:
        """Begin with the first one."""
        # A connection is not kept for as long as a server keeps it, which may end it just when it is used again.
        limits = httpx.Limits(max_connections=400, max_keepalive_connections=100, keepalive_expiry=1)
        self._clients = [
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False, limits=limits) for url in urls
        ]
        self._turns = itertools.cycle(self._clients)

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The answer of the one whose turn it is."""
        return await next(self._turns).request(method, path, json=body)

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be a good one."""
        answer = await self.ask(method, path, body)
        if not answer.is_success:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    async def close(self) -> None:
        """End the connections."""
        for client in self._clients:
            await client.aclose()


def document(name: str, folder: str, table: str, schedule: dict[str, Any] | None = None) -> dict[str, Any]:
    """An ingestion of JSON files."""
    return {
        "name": name,
        "source": {"type": "local", "path": folder, "file_pattern": "*.json"},
        "format": {"type": "json"},
        "destination": {"catalog": "local", "database": "loaded", "table": table},
        **({"schedule": schedule} if schedule else {}),
    }


class Clients:
    """Those who read what runs, and write what does not.

    Args:
        api: Whom they ask.
        looked_at: Ids of ingestions that are read.
        changed: Ids of ingestions that are changed; nothing else depends on them.
        folder: A source for what they make.
    """

    def __init__(self, api: Api, looked_at: Sequence[str], changed: Sequence[str], folder: str) -> None:
        self._api = api
        self._looked_at = itertools.cycle(looked_at)
        self._changed = itertools.cycle(changed)
        self._patterns = itertools.cycle(("*.json", "*.ndjson"))
        self._folder = folder
        self._made: list[str] = []

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Answers]:
        """They ask until the block ends; then all that was asked is waited for."""
        answers = Answers()
        task = asyncio.create_task(self._keep_asking(answers))
        try:
            yield answers
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep_asking(self, answers: Answers) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked: set[asyncio.Task[None]] = set()
        try:
            for number, kind in enumerate(itertools.cycle(MIX)):
                due = began + number / A_SECOND
                await asyncio.sleep(max(0.0, due - loop.time()))
                # From when it was due: who waits because those before him wait does not count less.
                one = asyncio.create_task(self._ask(kind, due, answers))
                asked.add(one)
                one.add_done_callback(asked.discard)
        finally:
            await asyncio.gather(*asked)

    async def _ask(self, kind: str, due: float, answers: Answers) -> None:
        try:
            answer, expected = await self._request(kind)
        except httpx.HTTPError as error:
            answers.failed[f"{kind}: {type(error).__name__}"] += 1
            return
        answers.latencies_s.append(asyncio.get_running_loop().time() - due)
        if answer.status_code != expected:
            answers.failed[f"{kind}: {answer.status_code} {answer.text[:200]}"] += 1

    async def _request(self, kind: str) -> tuple[httpx.Response, int]:
        """The answer, and the status that it has to have."""
        match kind:
            case "make":
                return await self._make(), CREATED
            case "remove" if self._made:
                return await self._api.ask("DELETE", f"{PATH}/{self._made.pop(0)}"), NO_CONTENT
            case "change":
                pattern = {"source": {"file_pattern": next(self._patterns)}}
                return await self._api.ask("PUT", f"{PATH}/{next(self._changed)}", pattern), OK
            case _:
                return await self._api.ask("GET", self._read(kind)), OK

    def _read(self, kind: str) -> str:
        """What is read; one ingestion where nothing else is asked for."""
        paths = {"list": PATH, "search": f"{PATH}?q=burst&sort=name&order=asc", "health": "/health"}
        if kind in paths:
            return paths[kind]
        one = f"{PATH}/{next(self._looked_at)}"
        return f"{one}/{kind}" if kind in {"runs", "files"} else one

    async def _make(self) -> httpx.Response:
        name = f"draft-{uuid.uuid4().hex}"
        made = await self._api.ask("POST", PATH, {**document(name, self._folder, name), "status": "draft"})
        if made.status_code == CREATED:
            self._made.append(made.json()["id"])
        return made

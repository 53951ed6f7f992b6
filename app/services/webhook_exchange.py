"""One call of a receiver, perhaps slow or hostile: bounded in time and bytes, and to addresses that were checked."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import cast

import httpx

from app.domain.webhooks import DEFAULT_PORTS
from app.services.host_addresses import Allowed, HostUnknownError, Resolver, allowed_addresses
from app.services.webhook_retries import Answer

# The whole exchange: name, connection, request, answer.
TIMEOUT_S = 10.0
# Of what is left of it, for a connection, and as much again for TLS.
CONNECT_SHARE = 0.45
# So much of an answer is read, for so long once its head is there; its status is all that counts.
MOST_BYTES = 4_096
BODY_S = 2.0
SHOWN_CHARACTERS = 500
_HEADERS = {
    "content-type": "application/json",
    "user-agent": "Autoloader-Webhooks/1",
    "accept": "*/*",
    "accept-encoding": "identity",
    # Never kept: a connection is good for the one name that its certificate was checked for.
    "connection": "close",
}


class WebhookExchange:
    """Calls receivers. No proxy, no cookies, no redirects; every call is a connection of its own."""

    def __init__(
        self,
        allowed: Allowed,
        resolver: Resolver,
        *,
        timeout_s: float = TIMEOUT_S,
        clean: Callable[[str], str] = str,
    ) -> None:
        """Connect to what `allowed` leaves of a host's addresses, and to nothing else.

        `clean` takes secrets out of what a receiver says: it knows the one that it checks signatures by.
        """
        self._clean = clean
        self._allowed = allowed
        self._resolver = resolver
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send `body` there; what came of it. Never raises for anything that a receiver does.

        Args:
            url: An address that was checked when it was kept.
            headers: Beside those that every call has.
            body: As it goes over the wire.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._post(httpx.URL(url), {**_HEADERS, **headers}, body, began + self._timeout_s)
        except TimeoutError:
            answer = Answer(error=f"The receiver did not answer within {self._timeout_s:g} s.")
        except HostUnknownError as error:
            answer = Answer(error=str(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            answer = Answer(error=_said(error, self._clean))
        return replace(answer, duration_s=time.monotonic() - began)

    async def _post(self, url: httpx.URL, headers: Mapping[str, str], body: bytes, deadline: float) -> Answer:
        host = url.raw_host.decode("ascii")
        port = url.port or DEFAULT_PORTS[url.scheme]
        addresses = await allowed_addresses(self._allowed, self._resolver, host, port)
        request_headers = {"host": url.netloc.decode("ascii"), **headers}
        request = httpx.Request("POST", url, headers=request_headers, content=body)
        return await self._first_answer(request, addresses, deadline)

    async def _first_answer(self, request: httpx.Request, addresses: Sequence[str], deadline: float) -> Answer:
        """Of the addresses, the first that can be connected to."""
        host = request.url.raw_host.decode("ascii")
        for number, address in enumerate(addresses, 1):
            # Connecting and TLS may each take so long, and then are closed in order: a library that is broken off from
            # outside while it shakes hands leaves its connection open.
            timeouts = {"connect": max(0.0, deadline - time.monotonic()) * CONNECT_SHARE}
            there = httpx.Request(
                "POST",
                request.url.copy_with(host=address),
                headers=request.headers,
                content=request.content,
                # The certificate is held against the name, not the address.
                extensions={"sni_hostname": host, "timeout": timeouts},
            )
            try:
                return await self._exchange(there)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                # Nothing was sent yet.
                if number == len(addresses):
                    raise
        raise HostUnknownError(f"{host} has no address that can be used.")

    async def _exchange(self, request: httpx.Request) -> Answer:
        async with httpx.AsyncHTTPTransport(verify=self._context(), trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            try:
                return Answer(
                    status=response.status_code,
                    error=_why_not(response.status_code),
                    retry_after_s=_seconds(response.headers.get("retry-after")),
                    beginning=await _beginning(response, self._clean),
                )
            finally:
                await response.aclose()

    def _context(self) -> ssl.SSLContext:
        # Reading the certificates takes some 20 ms.
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls


async def _beginning(response: httpx.Response, clean: Callable[[str], str]) -> str:
    """The first of an answer's body, as text; what is compressed is left as it is, and not told."""
    read = b""
    # It is a generator, which is closed here and not whenever it is collected.
    raw = cast("AsyncGenerator[bytes, None]", response.aiter_raw(MOST_BYTES))
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(BODY_S), aclosing(raw) as pieces:
            async for piece in pieces:
                read += piece
                if len(read) >= MOST_BYTES:
                    break
    if response.headers.get("content-encoding", "identity") != "identity":
        return ""
    # Before it is cut: half a secret would not be known for one.
    text = clean(read[:MOST_BYTES].decode("utf-8", "replace"))[:SHOWN_CHARACTERS]
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()


def _why_not(status: int) -> str:
    """Why an answer with that status is no receipt; empty where it is one."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return ""
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    redirects = " Redirects are not followed." if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST else ""
    return f"The receiver answered {phrase}.{redirects}"


def _seconds(retry_after: str | None) -> float | None:
    """What `Retry-After` says, seconds or a date; None where it says nothing that can be understood."""
    if retry_after is None:
        return None
    with suppress(ValueError, OverflowError):
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _said(error: Exception, clean: Callable[[str], str]) -> str:
    """An error of the connection as a sentence; its text may be the receiver's, so that it is cut."""
    text = " ".join(clean(str(error)).split())[:200].rstrip(".")
    if isinstance(error, httpx.ConnectTimeout):
        return "The receiver cannot be connected to: it did not answer in time."
    what = "cannot be connected to" if isinstance(error, httpx.ConnectError) else "broke the exchange off"
    return f"The receiver {what}: {text or type(error).__name__}."

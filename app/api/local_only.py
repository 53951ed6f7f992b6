"""Who may ask while there are no tokens: this machine itself, and no page of another site in its browser."""

from __future__ import annotations

import ipaddress
import re
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.api.problems import problem

# A proxy on this machine speaks for others: each of these says that there is one.
_FORWARDING = frozenset({
    "forwarded", "forwarded-for", "via", "x-forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip",
    "x-proxyuser-ip", "x-rewrite-url", "true-client-ip", "fastly-client-ip", "fly-client-ip",
})  # fmt: skip
_FORWARDING_PREFIXES = ("x-forwarded-", "x-original-", "x-envoy-", "x-azure-", "x-appengine-", "x-amzn-", "cf-")
_HOST = re.compile(r"(?P<name>\[[^\[\]]+\]|[^:@/\[\]]+)(?::\d{0,5})?", re.ASCII)


def is_local(peer: str | None, headers: Headers) -> bool:
    """Whether a request comes from this machine, was meant for it, and was handed on by nobody."""
    if peer is None or not _is_loopback(peer):
        return False
    # Some proxies and gateways write underscores.
    names = [name.replace("_", "-") for name in headers]
    if any(name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES) for name in names):
        return False
    hosts = headers.getlist("host")
    # By name too: a foreign name that leads to this machine is how a page of another site would get in.
    found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    return found is not None and _is_local_host(found["name"].strip("[]").lower())


def is_own_origin(headers: Headers) -> bool:
    """Whether no page of another site is behind a request; programs send no `Origin`."""
    return all(_is_local_host(_host_name(origin)) for origin in headers.getlist("origin"))


def _host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_local_host(name: str | None) -> bool:
    return name is not None and (name == "localhost" or _is_loopback(name))


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


TOKENS_REQUIRED = problem(
    HTTPStatus.UNAUTHORIZED,
    "tokens_required",
    "No tokens are configured, so only requests from this machine to this machine are answered: by a loopback address, "
    "with a loopback name as Host, and through no proxy.",
    remedy="Ask http://localhost on the machine itself, such as through `ssh -L`, or make a token there: "
    "`autoloader tokens create`.",
)
FOREIGN = problem(
    HTTPStatus.FORBIDDEN, "foreign_origin", "A page of another site may not ask this service through a browser."
)

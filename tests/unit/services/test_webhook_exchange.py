"""Calls of receivers over real connections: good ones, slow ones and hostile ones."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import ipaddress
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.domain.redaction import Redactor
from app.domain.webhooks import Webhook
from app.services.host_addresses import HostUnknownError, Resolver
from app.services.webhook_exchange import MOST_BYTES, WebhookExchange
from app.services.webhook_retries import Answer
from app.services.webhook_service import ReceiverLooks
from tests.support.receivers import Received, answering, plain, receiver
from tests.support.servers import free_ports

SHORT_S = 20.0


def everything(_host: str, _port: int, addresses: Sequence[str]) -> Sequence[str]:
    return addresses


def public_only(host: str, _port: int, addresses: Sequence[str]) -> Sequence[str]:
    return [one for one in addresses if host == "friend.example" or ipaddress.ip_address(one).is_global]


@pytest.fixture(autouse=True, scope="module")
def _every_connection_is_closed() -> Iterator[None]:
    """What is left open warns when it is collected, and a warning is an error."""
    yield
    gc.collect()


@dataclass
class Names(Resolver):
    """Names that lead where a test says, and what was asked for."""

    known: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def addresses(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.known[host] if host in self.known else await super().addresses(host, port)


def post(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    exchange: WebhookExchange | None = None,
    timeout_s: float = 30.0,
) -> Answer:
    one = exchange or WebhookExchange(everything, Names(), timeout_s=timeout_s)
    return asyncio.run(one.post(url, headers or {}, b'{"a":1}'))


def test_a_message_arrives_as_it_is() -> None:
    with receiver(answering(202, b"thanks")) as there:
        answer = post(there.url("/a%20b?c=d#e"), {"webhook-id": "x"})
        (one,) = there.received
    assert (answer.status, answer.error, answer.beginning, answer.is_accepted) == (202, "", "thanks", True)
    assert one.message.first_line == ["POST", "/a%20b?c=d", "HTTP/1.1"]
    assert one.message.body == b'{"a":1}'
    assert one.message.header("host") == f"127.0.0.1:{there.port}"
    assert one.message.header("content-type") == "application/json"
    assert one.id == "x"
    assert one.message.header("connection") == "close"


@pytest.mark.parametrize("status", [302, 307, 400, 404, 410, 429, 500, 503])
def test_what_is_no_2xx_is_no_receipt(status: int) -> None:
    with receiver(answering(status, b"no\x00\x07pe", Location="http://127.0.0.1:1/")) as there:
        answer = post(there.url())
        assert len(there.received) == 1
    assert (answer.status, answer.is_accepted, answer.beginning) == (status, False, "no  pe")
    assert str(status) in answer.error
    assert ("not followed" in answer.error) is (status < 400)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("120", 120), ("0", 0), ("-5", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("inf", None),
     ("Fri, 31 Dec 9999 23:59:59 GMT", 2.5e11)],
)  # fmt: skip
def test_when_to_come_again_is_heard(said: str, seconds: float | None) -> None:
    with receiver(answering(503, Retry_After=said)) as there:
        answer = post(there.url())
    assert answer.retry_after_s == (None if seconds is None else pytest.approx(seconds, rel=0.2))


# --- hostile -------------------------------------------------------------------------------------------------------


async def _silent(_received: Received, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def _drips_its_head(_received: Received, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 200 OK\r\nX: y\r\n" if not writer.transport.get_write_buffer_size() else b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _endless_head(_received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"y" * 10_000 + b"\r\n")
        await writer.drain()


async def _endless_body(_received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b"y" * 0x4000 + b"\r\n")
        await writer.drain()


async def _drips_its_body(_received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"y")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _bomb(_received: Received, writer: asyncio.StreamWriter) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(b"\0" * 50_000_000) + packer.flush()
    writer.write(plain(200, bomb, Content_Encoding="gzip"))
    await writer.drain()


async def _hangs_up(_received: Received, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _no_http(_received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\0\xff220 mail ready\r\n\r\n")
    await writer.drain()


async def _endless_hints(_received: Received, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("behave", [_silent, _drips_its_head, _endless_hints])
def test_a_slow_one_is_given_up_as_a_whole(behave: object) -> None:
    """However often something comes: the time is that of the whole exchange."""
    with receiver(behave) as there:  # type: ignore[arg-type]
        answer = post(there.url(), timeout_s=SHORT_S)
    assert answer.status is None
    assert answer.error == f"The receiver did not answer within {SHORT_S:g} s."


def test_one_that_says_yes_late_has_it() -> None:
    async def behave(_received: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.5)
        writer.write(plain(200))
        await writer.drain()

    with receiver(behave) as there:
        assert post(there.url()).is_accepted


def test_what_a_receiver_tells_is_kept_without_secrets_also_where_it_is_cut() -> None:
    secret = "hidden-value-" * 5
    exchange = WebhookExchange(everything, Names(), clean=Redactor([secret]).text)
    with receiver(answering(500, f"{'.' * 480} {secret}".encode())) as there:
        answer = post(there.url(), exchange=exchange)
    assert answer.beginning == f"{'.' * 480} ***"


@pytest.mark.parametrize("behave", [_endless_body, _drips_its_body, _bomb])
def test_of_an_answer_only_the_beginning_is_read(behave: object) -> None:
    with receiver(behave) as there:  # type: ignore[arg-type]
        answer = post(there.url())
    assert answer.status == 200
    assert answer.is_accepted
    assert len(answer.beginning) <= 500
    assert set(answer.beginning) <= {"y"}
    assert MOST_BYTES < 10_000


def test_the_rest_of_an_endless_answer_is_never_taken() -> None:
    sent = 0

    async def behave(_received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        # So that what is on the way is little.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0x4000)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 200_000_000:
            writer.write(b"y" * 0x4000)
            await writer.drain()
            sent += 0x4000

    with receiver(behave) as there:
        assert post(there.url()).is_accepted
    # No more than what the system holds on its own on the way.
    assert sent < 2_000_000


@pytest.mark.parametrize("behave", [_endless_head, _hangs_up, _no_http])
def test_what_is_no_answer_is_said(behave: object) -> None:
    with receiver(behave) as there:  # type: ignore[arg-type]
        answer = post(there.url())
    assert answer.status is None
    assert answer.error.startswith("The receiver broke the exchange off: ")
    assert len(answer.error) < 300


def test_one_that_is_not_there_is_said() -> None:
    (port,) = free_ports(1)
    assert post(f"http://127.0.0.1:{port}/").error.startswith("The receiver cannot be connected to")


# --- names and addresses -------------------------------------------------------------------------------------------


def test_what_was_checked_is_what_is_connected_to() -> None:
    """A name that leads elsewhere when it is asked for again leads nowhere else: it is asked for once."""
    with receiver() as there:
        names = Names(known={"hooks.example": ["127.0.0.1"]})
        answer = post(there.url(host="hooks.example"), exchange=WebhookExchange(everything, names))
        (one,) = there.received
    assert answer.is_accepted
    assert names.asked == ["hooks.example"]
    assert one.message.header("host") == f"hooks.example:{there.port}"


def test_of_several_addresses_the_first_that_is_there_is_called() -> None:
    with receiver() as there:
        names = Names(known={"hooks.example": ["::1", "127.0.0.2", "127.0.0.1"]})
        assert post(there.url(host="hooks.example"), exchange=WebhookExchange(everything, names)).is_accepted
        assert len(there.received) == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "inside.example", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"]
)
def test_an_address_that_is_not_allowed_is_not_connected_to(host: str) -> None:
    with receiver() as there:
        names = Names(known={"inside.example": ["10.0.0.1", "127.0.0.1"]})
        answer = post(there.url(host=host), exchange=WebhookExchange(public_only, names))
        assert there.received == []
        assert there.most_open == 0
    assert "AUTOLOADER_ALLOWED_HOSTS" in answer.error
    assert "itself" not in answer.error
    assert answer.status is None


def test_a_host_that_is_allowed_is() -> None:
    with receiver() as there:
        names = Names(known={"friend.example": ["127.0.0.1"]})
        assert post(there.url(host="friend.example"), exchange=WebhookExchange(public_only, names)).is_accepted


def test_a_name_that_leads_nowhere_is_said() -> None:
    answer = post("http://nowhere.invalid/", timeout_s=60)
    assert answer.status is None
    assert answer.error.startswith("nowhere.invalid does not resolve: ")


def test_a_name_server_that_says_nothing_keeps_nobody_else_waiting() -> None:
    async def ask() -> None:
        resolver = Resolver(at_once=1)
        resolver._free.acquire()
        with pytest.raises(HostUnknownError, match="busy"):
            await resolver.addresses("anything.example", 80)
        assert await resolver.addresses("127.0.0.1", 80) == ["127.0.0.1"]

    asyncio.run(ask())


def test_who_names_a_receiver_is_told_what_is_wrong_with_it() -> None:
    names = Names(known={"fine.example": ["8.8.8.8"], "inside.example": ["10.0.0.1"]})
    looks = ReceiverLooks(public_only, names, within_s=60)
    wanted = [Webhook(f"https://{host}/") for host in ("fine.example", "inside.example", "nowhere.invalid")]
    inside, nowhere = asyncio.run(looks.doubts([*wanted, Webhook("http://9.9.9.9:1/")]))
    assert "inside.example" in inside
    assert "AUTOLOADER_ALLOWED_HOSTS" in inside
    assert "does not resolve" in nowhere
    assert "Correct the name" in nowhere
    silent = asyncio.run(ReceiverLooks(public_only, _Silent(), within_s=0.05).doubts(wanted[:1]))
    assert "did not resolve within" in silent[0]


class _Silent(Resolver):
    async def addresses(self, host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        raise AssertionError(host, port)


# --- TLS -----------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> Path:
    """A certificate for a name, signed by its own key, with the key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_is_held_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path, "hooks.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    names = Names(known={"hooks.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    with receiver(tls=context) as there:
        untrusted = post(there.url(host="hooks.example"), exchange=WebhookExchange(everything, names, timeout_s=60))
        assert "certificate verify failed" in untrusted.error
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        exchange = WebhookExchange(everything, names, timeout_s=60)
        assert post(there.url(host="hooks.example"), exchange=exchange).is_accepted
        wrong = post(there.url(host="other.example"), exchange=exchange)
        assert "certificate" in wrong.error
        assert not wrong.is_accepted
        assert len(there.received) == 1


def test_one_that_does_not_shake_hands_is_given_up_and_hung_up_on() -> None:
    with receiver() as there:
        answer = post(f"https://127.0.0.1:{there.port}/", timeout_s=SHORT_S)
    # Both times run out together, and on a busy machine either comes first.
    connecting = "The receiver cannot be connected to: it did not answer in time."
    assert answer.error in {connecting, f"The receiver did not answer within {SHORT_S:g} s."}
    assert answer.status is None


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with receiver() as there:
        assert post(there.url()).is_accepted


def test_a_call_that_is_broken_off_leaves_nothing() -> None:
    with receiver(_silent) as there:

        async def call() -> None:
            exchange = WebhookExchange(everything, Names(), timeout_s=60)
            task = asyncio.create_task(exchange.post(there.url(), {}, b"{}"))
            while not there.received:  # noqa: ASYNC110 - it is in another thread
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(call())

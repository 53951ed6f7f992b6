"""A small HTTP server that answers as a test says, for what a real store cannot be made to do."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Answers:
    """A running server: where it is, and what it was asked, in order."""

    endpoint: str
    requests: list[Request] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables that lead to it."""
        return {
            "AWS_ACCESS_KEY_ID": "identity",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
            "AWS_ENDPOINT_URL": self.endpoint,
        }


@contextmanager
def answering(answer: Callable[[Request], Answer]) -> Iterator[Answers]:
    """Answer every request on a port of loopback by `answer`, until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            answers.requests.append(request)
            given = answer(request)
            self.send_response(given.status)
            headers = {"content-length": str(len(given.body)), "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
            for name, value in (headers | given.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(given.body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            self.do_GET()

        do_HEAD = do_GET  # noqa: N815  # the name is the base class's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    answers = Answers(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def s3_listing(*keys: str, next_token: str = "", etag: str = "abc", size: int = 3) -> Answer:
    """A page of a listing as S3 gives it."""
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        + (f"<ETag>&quot;{etag}&quot;</ETag>" if etag else "")
        + f"<Size>{0 if key.endswith('/') else size}</Size></Contents>"
        for key in keys
    )
    more = f"<NextContinuationToken>{next_token}</NextContinuationToken>" if next_token else ""
    page = f"<ListBucketResult><IsTruncated>{str(bool(next_token)).lower()}</IsTruncated>{more}{contents}"
    return Answer(body=f"{page}</ListBucketResult>".encode())


def s3_error(status: int, code: str, message: str = "") -> Answer:
    """An error as S3 gives it."""
    return Answer(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())


def azure_listing(*names: str, next_marker: str = "", etag: str = "0xabc", size: int = 3) -> Answer:
    """A page of a listing as Azure gives it."""
    blobs = "".join(
        f"<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>Thu, 01 Jan 2026 00:00:00 GMT</Creation-Time>"
        f"<Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified><Etag>{etag}</Etag>"
        f"<Content-Length>{size}</Content-Length><Content-Type>text/plain</Content-Type></Properties></Blob>"
        for name in names
    )
    page = f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{next_marker}</NextMarker></EnumerationResults>"
    return Answer(body=page.encode())


def token(text: str) -> Answer:
    """An access token, in the form that both clouds' token services have in common."""
    return Answer(
        body=f'{{"access_token":"{text}","token_type":"Bearer","expires_in":3600,"expires_on":"4102444800"}}'.encode()
    )

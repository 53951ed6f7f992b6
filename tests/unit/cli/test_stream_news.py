"""News by a stream of events: each rings, a broken line is taken up where it broke, and a refused one does no harm.

Nobody looks unless it rings: where a ring is missing, a test does not end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.cli import stream_news
from app.cli.desk_afar import AfarDesk
from app.domain.redaction import Redactor
from tests.support.service_process import until

NEVER_S = 600.0
pytestmark = pytest.mark.timeout(400)


class Line:
    """What a server does with one client that came for the stream."""

    def __init__(self, seen: str | None, token: str | None, path: str) -> None:
        self.seen, self.token, self.path = seen, token, path
        self._texts: list[str | None] = []
        self._news = threading.Condition()

    def send(self, text: str | None) -> None:
        """Send that; None: cut the line."""
        with self._news:
            self._texts.append(text)
            self._news.notify()

    def texts(self) -> Iterator[str]:
        while True:
            with self._news:
                assert self._news.wait_for(lambda: self._texts, 60)
                text = self._texts.pop(0)
            if text is None:
                return
            yield text


class Server:
    """A server whose streams say what they are told to."""

    def __init__(self) -> None:
        self.port = 0
        self.status = 200
        self.kind = "text/event-stream; charset=utf-8"
        self.lines: list[Line] = []
        self.refused = 0

    def desk(self) -> AfarDesk:
        return AfarDesk(f"http://127.0.0.1:{self.port}", "al_token", Redactor(), note=lambda _: None)

    def line(self, number: int) -> Line:
        """The one that came as the so manieth."""
        until(lambda: len(self.lines) > number, 60, f"line {number} stands")
        return self.lines[number]

    def close(self) -> None:
        for line in self.lines:
            line.send(None)


@contextmanager
def _served() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(told.status)
            self.send_header("Content-Type", told.kind)
            self.end_headers()
            if told.status != 200 or not told.kind.startswith("text/event-stream"):
                told.refused += 1
                return
            line = Line(self.headers.get("Last-Event-ID"), self.headers.get("Authorization"), self.path)
            self.wfile.write(b"retry: 2000\n\n")
            told.lines.append(line)
            for text in line.texts():
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield told
        finally:
            told.close()
            server.shutdown()
            thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(stream_news, "ANYWAY_S", NEVER_S)
    monkeypatch.setattr(stream_news, "LOOK_EVERY_S", NEVER_S)
    monkeypatch.setattr(stream_news, "AGAIN_S", 0.05)
    monkeypatch.setattr(stream_news, "REFUSED_S", 0.05)
    with _served() as one:
        yield one


def event(number: int, kind: str = "run.progress") -> str:
    return f'id: {number}\nevent: {kind}\ndata: {{"status": "running"}}\n\n'


def test_a_line_that_stands_and_each_event_on_it_ring(server: Server) -> None:
    with server.desk().listening("i", "r&s") as news:
        line = server.line(0)
        assert (line.path, line.token) == ("/api/v1/events?ingestion_id=i&run_id=r%26s", "Bearer al_token")
        assert line.seen is None
        news.wait()
        for number in (3, 4):
            line.send(event(number))
            news.wait()


def test_several_events_are_one_ring_and_a_beat_is_none(server: Server) -> None:
    with server.desk().listening("i", "r") as news:
        news.wait()
        server.line(0).send(event(3) + event(4))
        until(lambda: news._seen == 4, 60, "both are read")
        news.wait()
        server.line(0).send(":\nid: 9\n\n")
        until(lambda: news._seen == 9, 60, "the beat is read")
        assert not news._rung.is_set()


def test_a_broken_line_is_taken_up_behind_the_last_event(server: Server) -> None:
    with server.desk().listening("i", "r") as news:
        news.wait()
        # The second is not whole.
        server.line(0).send(event(7) + "id: 8\nevent: run.success\nda")
        server.line(0).send(None)
        # It rings, for from now on it is asked.
        news.wait()
        again = server.line(1)
        assert again.seen == "7"
        again.send(event(8, "run.success"))
        until(lambda: news._seen == 8, 60, "it is read on")


@pytest.mark.parametrize(("status", "kind"), [(503, "application/json"), (404, "text/html"), (200, "text/html")])
def test_where_there_is_no_stream_it_rings_every_second_until_there_is_one(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int, kind: str
) -> None:
    monkeypatch.setattr(stream_news, "LOOK_EVERY_S", 0.01)
    stream, server.status, server.kind = server.kind, status, kind
    with server.desk().listening("i", "r") as news:
        until(lambda: server.refused > 1, 60, "it was refused, and asked again")
        news.wait()
        news.wait()
        server.status, server.kind = 200, stream
        server.line(0)
        until(lambda: news._answer is not None, 60, "it listens")
        monkeypatch.setattr(stream_news, "LOOK_EVERY_S", NEVER_S)
        server.line(0).send(event(1))
        news.wait()


def test_what_is_no_stream_although_it_says_so_is_left(server: Server) -> None:
    with server.desk().listening("i", "r") as news:
        news.wait()
        server.line(0).send("id: 1\nevent: x\ndata: {no json\n\n")
        server.line(1).send("x" * (stream_news.LONGEST_LINE + 1))
        assert server.line(2).seen is None
        server.line(0).send(None)


def test_it_ends_at_once_although_nothing_comes(server: Server) -> None:
    with server.desk().listening("i", "r") as news:
        news.wait()
    # Without that it would take as long as a line is let be silent.
    until(lambda: not news._thread.is_alive(), 30, "nobody listens any more")

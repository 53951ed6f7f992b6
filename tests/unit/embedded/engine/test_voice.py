"""What a child says: beats are gathered, and nothing is lost or comes out of order with what it belongs to."""

from __future__ import annotations

import threading
from typing import BinaryIO, cast

from app.engines.embedded.messages import Beat, Frames, Opened, Ready, Refused
from app.engines.embedded.voice import Voice


class Pipe:
    """Takes a few bytes a write, as a pipe that is nearly full does."""

    def __init__(self) -> None:
        self.data = b""
        self.writes = 0

    def write(self, data: bytes) -> int:
        self.data += bytes(data[:7])
        self.writes += 1
        return min(7, len(data))

    def messages(self) -> list[object]:
        return Frames().feed(self.data)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def voice() -> tuple[Voice, Pipe, Clock]:
    pipe, clock = Pipe(), Clock()
    return Voice(cast("BinaryIO", pipe), pause_s=0.5, now_s=clock), pipe, clock


def test_the_first_beat_is_told_at_once_and_the_next_ones_together() -> None:
    told, pipe, clock = voice()
    for rows in range(10):
        told.tell(Beat(files=1, rows=rows, stored_bytes=2))
    assert pipe.messages() == [Beat(1, 0, 2)]
    clock.now_s += 0.5
    told.tell(Beat(files=1))
    assert pipe.messages() == [Beat(1, 0, 2), Beat(10, 45, 18)]


def test_whatever_else_is_told_takes_along_what_was_kept() -> None:
    told, pipe, _ = voice()
    for message in (Beat(1), Beat(2), Opened("p"), Ready(), Beat(3), Beat(4), Refused("no")):
        told.tell(message)
    assert pipe.messages() == [Beat(1), Beat(2), Opened("p"), Ready(), Beat(7), Refused("no")]


def test_threads_do_not_talk_across_each_other() -> None:
    told, pipe, _ = voice()

    def talk() -> None:
        for number in range(200):
            told.tell(Beat(files=1))
            told.tell(Opened(str(number)))

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = pipe.messages()
    assert sum(message.files for message in said if isinstance(message, Beat)) == 800
    assert sum(isinstance(message, Opened) for message in said) == 800

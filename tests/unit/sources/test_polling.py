"""Glances at the end of a store's listing, and looks at everything in between: what each of them finds, and costs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from app.domain.files import SourceFile
from app.sources.factory import open_lookout, open_source
from app.sources.object_store import ObjectStoreSource
from app.sources.polling import StoreWatch
from tests.support.azurite import Azurite
from tests.support.fake_gcs import FakeGcs
from tests.support.seaweed import Seaweed

STORES = {"s3": ("seaweed", "s3"), "azure_blob": ("azurite", "az"), "gcs": ("fake_gcs", "gs")}


@dataclass
class Bucket:
    server: Seaweed | Azurite | FakeGcs
    root: str
    name: str

    def put(self, *names: str) -> None:
        self.server.put(self.name, {f"in/{name}": name.encode() for name in names})

    def delete(self, name: str) -> None:
        self.server.store(self.name).delete(f"in/{name}")

    def source(self, pattern: str | None = None, complete_when: str | None = None) -> ObjectStoreSource:
        source = open_source(
            self.root,
            file_pattern=pattern,
            credentials=self.server.credentials,
            environ={},
            complete_when=complete_when,
        )
        assert isinstance(source, ObjectStoreSource)
        return source

    def names(self, files: Iterator[SourceFile] | None) -> list[str]:
        assert files is not None
        return [file.key.removeprefix(self.root) for file in files]


@pytest.fixture(params=STORES)
def bucket(request: pytest.FixtureRequest) -> Bucket:
    fixture, scheme = STORES[request.param]
    server = request.getfixturevalue(fixture)
    name = server.create_bucket(f"poll-{uuid.uuid4().hex[:12]}")
    return Bucket(server, f"{scheme}://{name}/in/", name)


def test_a_glance_sees_the_end_of_the_listing_and_what_lands_near_it(bucket: Bucket) -> None:
    bucket.put("a1", "b1", "c1", "d1", "e1")
    watch = StoreWatch(bucket.source(), window_keys=3)
    assert bucket.names(watch.everything()) == ["a1", "b1", "c1", "d1", "e1"]
    bucket.put("f1", "d2", "c2", "b2")
    # The window begins behind c1: a key that sorts before it is left to the next look at everything.
    assert bucket.names(watch.landed()) == ["c2", "d1", "d2", "e1", "f1"]
    # And it has moved: it begins behind the third from the end.
    bucket.put("e2", "d11", "g1")
    assert bucket.names(watch.landed()) == ["e1", "e2", "f1", "g1"]
    assert "b2" in bucket.names(watch.everything())
    assert bucket.names(watch.landed()) == ["f1", "g1"]


def test_a_store_that_holds_less_than_a_window_is_looked_at_whole(bucket: Bucket) -> None:
    watch = StoreWatch(bucket.source(), window_keys=3)
    bucket.put("m1", "n1")
    assert bucket.names(watch.everything()) == ["m1", "n1"]
    assert watch.landed() is None
    assert not watch.glances
    bucket.put("a1")
    assert bucket.names(watch.everything()) == ["a1", "m1", "n1"]
    assert watch.landed() is not None
    assert watch.glances


def test_objects_that_go_do_not_move_the_window(bucket: Bucket) -> None:
    bucket.put("a1", "b1", "c1", "d1")
    watch = StoreWatch(bucket.source(), window_keys=2)
    list(watch.everything())
    bucket.delete("c1")
    bucket.delete("d1")
    assert bucket.names(watch.landed()) == []
    bucket.put("c2")
    assert bucket.names(watch.landed()) == ["c2"]


def test_a_pattern_holds_for_glances_too(bucket: Bucket) -> None:
    bucket.put("d/a.json", "d/b.json", "e/a.json")
    watch = StoreWatch(bucket.source("d/*.json"), window_keys=1)
    assert bucket.names(watch.everything()) == ["d/a.json", "d/b.json"]
    bucket.put("d/c.csv", "d/c.json", "e/c.json")
    assert bucket.names(watch.landed()) == ["d/c.json"]


def test_a_look_that_was_not_ended_moves_no_window(bucket: Bucket) -> None:
    bucket.put("a1", "b1", "c1")
    watch = StoreWatch(bucket.source(), window_keys=1)
    next(watch.everything())
    assert watch.landed() is None


def test_folders_that_wait_for_a_marker_are_looked_at_whole(bucket: Bucket) -> None:
    bucket.put("a/x", "a/y", "b/x", "b/_SUCCESS")
    watch = StoreWatch(bucket.source(complete_when="_SUCCESS"), window_keys=1)
    assert bucket.names(watch.everything()) == ["b/x"]
    assert watch.landed() is None


def test_the_lookout_over_a_store_waits_as_long_as_it_is_told() -> None:
    pauses: list[float] = []
    source = open_source("s3://b/x/", file_pattern=None, credentials=None, environ={"AWS_ACCESS_KEY_ID": "x"} | KEY)
    assert isinstance(source, ObjectStoreSource)
    watch = StoreWatch(source, pause=pauses.append)
    assert not watch.wait(7.5)
    assert pauses == [7.5]
    lookout = open_lookout(source, lambda _: None)
    assert isinstance(lookout, StoreWatch)
    assert not lookout.hears


KEY = {"AWS_SECRET_ACCESS_KEY": "y"}


class Unsorted(ObjectStoreSource):
    """A store that lists as it likes, as directory buckets do."""

    def discover(self) -> Iterator[SourceFile]:
        yield from reversed(list(super().discover()))


def test_a_store_that_does_not_list_in_order_is_looked_at_whole(seaweed: Seaweed) -> None:
    name = seaweed.create_bucket(f"poll-{uuid.uuid4().hex[:12]}")
    place = Bucket(seaweed, f"s3://{name}/in/", name)
    place.put("a1", "b1", "c1")
    given = place.source()
    watch = StoreWatch(Unsorted(given._location, given._access), window_keys=1)
    assert place.names(watch.everything()) == ["c1", "b1", "a1"]
    assert watch.landed() is None

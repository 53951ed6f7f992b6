"""The server that other tests rely on does what they take for granted."""

from __future__ import annotations

import urllib.request

import obstore

from tests.support.seaweed import Seaweed


def test_objects_and_buckets_can_be_made(seaweed: Seaweed, bucket: str) -> None:
    seaweed.put(bucket, {"a/b.json": b"{}", "c": b"1"})
    listed = [o["path"] for page in obstore.list(seaweed.store(bucket)) for o in page]
    assert sorted(listed) == ["a/b.json", "c"]


def test_the_catalog_answers(seaweed: Seaweed) -> None:
    body = b"grant_type=client_credentials&client_id=admin&client_secret=secretsecret&scope=catalog"
    request = urllib.request.Request(f"{seaweed.rest_uri}/v1/oauth/tokens", data=body)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        assert answer.status == 200

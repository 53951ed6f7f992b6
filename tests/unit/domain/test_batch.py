from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import Category, FileFailure
from app.domain.files import LoadedFile

TEXT = st.text(st.characters(exclude_categories=()))
LOADED = st.builds(LoadedFile, TEXT, TEXT, st.integers(0), st.integers(0))
FAILED = st.builds(
    FileFailure, TEXT, TEXT, st.sampled_from(Category), TEXT, st.none() | st.integers(1), st.none() | st.integers(0)
)


@given(st.lists(LOADED), st.lists(FAILED), st.integers(1), st.integers(1))
def test_a_manifest_comes_back_as_it_was(
    loaded: list[LoadedFile], failed: list[FileFailure], number: int, epoch: int
) -> None:
    manifest = BatchManifest(BatchRef("i", number, epoch), 3, files=tuple(loaded), failed=tuple(failed))
    assert BatchManifest.from_json(manifest.to_json()) == manifest


GOOD = json.loads(BatchManifest(BatchRef("i", 1, 1), 1, files=(LoadedFile("k", "v", 1, 2),)).to_json())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        json.dumps({**GOOD, "format": 2}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "files"}).encode(),
        json.dumps({**GOOD, "kind": "unheard"}).encode(),
        json.dumps({**GOOD, "files": [{"key": "k"}]}).encode(),
        json.dumps({**GOOD, "files": None}).encode(),
        json.dumps({**GOOD, "failed": [{"key": "k"}]}).encode(),
    ],
)
def test_what_is_no_manifest_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        BatchManifest.from_json(data)


def test_a_batch_has_one_id_under_every_epoch() -> None:
    assert BatchRef("i", 7, 1).batch_id == BatchRef("i", 7, 9).batch_id == "i-00000007"
    assert BatchRef("i", 123456789, 1).batch_id == "i-123456789"

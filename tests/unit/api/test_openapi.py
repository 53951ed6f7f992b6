"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest

from app.api.codes import MEANINGS
from app.api.openapi import operations
from app.api.operations import OPERATIONS
from tests.support.api_in_memory import Api


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.client.get("/openapi.json").json()
    return found


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"]


def test_every_operation_is_described_and_none_that_is_not_there(document: dict[str, Any]) -> None:
    found = [operation["operationId"] for _, operation in operations(document)]
    assert sorted(found) == sorted(OPERATIONS)
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name


def test_every_answer_and_body_has_an_example_that_its_schema_allows(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        media = [("request", operation["requestBody"]["content"])] if "requestBody" in operation else []
        media += [(status, one["content"]) for status, one in operation["responses"].items() if "content" in one]
        assert media, name
        for where, content in media:
            for kind, one in content.items():
                assert "example" in one, (name, where, kind)
                schema = {**one["schema"], "components": document["components"]}
                jsonschema.Draft202012Validator(schema).validate(one["example"])


def test_every_refusal_is_a_problem_document(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, one in operation["responses"].items():
            if int(status) >= 400 and (operation["operationId"], status) != ("health", "503"):
                assert list(one["content"]) == ["application/problem+json"], (name, status)


def test_who_may_ask_is_described(document: dict[str, Any]) -> None:
    """A token, or none where none was ever made; Prefect's is no user's."""
    found = {operation["operationId"]: operation for _, operation in operations(document)}
    assert found["list_ingestions"]["security"] == [{"token": []}, {}]
    assert {"401", "403"} <= found["list_ingestions"]["responses"].keys()
    assert found["live"]["security"] == found["prefect_webhook"]["security"] == []
    assert "401" not in found["live"]["responses"]
    assert {"401", "403"} <= found["prefect_webhook"]["responses"].keys()


def test_what_can_be_repeated_says_so(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        headers = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"}
        assert ("Idempotency-Key" in headers) is (name.startswith("POST") and not name.endswith("/webhooks/prefect")), (
            name
        )


@pytest.mark.parametrize("word", ["avro", "sftp", "hints", "merge_keys", "quality", "backfill", 'pause"'])
def test_what_is_not_built_is_not_offered(document: dict[str, Any], word: str) -> None:
    shown = str(document["components"]["schemas"]["Definition"]).replace("'", '"')
    assert f'"{word}' not in shown


def test_the_definition_of_the_contract_is_allowed(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Definition", "components": document["components"]}
    asked = {
        "name": "Test Hourly Ingestion",
        "cluster_id": "cluster_123",
        "source": {"type": "s3", "path": "s3://test-bucket/data/", "credentials": {"aws_region": "us-east-1"}},
        "format": {"type": "json", "schema": {"inference": "auto", "evolution_enabled": True}},
        "destination": {"catalog": "x", "database": "default", "table": "t", "write_mode": "append"},
        "schedule": {"frequency": "hourly", "timezone": "UTC"},
    }
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(asked)
    assert not validator.is_valid({**asked, "nonsense": 1})
    assert not validator.is_valid({name: value for name, value in asked.items() if name != "name"})
    assert not validator.is_valid({**asked, "status": "paused"})


# --- the page ------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)
        for name, value in attrs:
            if name in {"href", "src"}:
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_everything_and_loads_nothing_from_outside(api: Api) -> None:
    answer = api.client.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    assert page.open == []
    assert page.links == ["/openapi.json"]
    assert page.tags.isdisjoint({"script", "link", "img", "iframe"})
    assert not re.search(r"@import|url\(", answer.text)
    assert set(OPERATIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert {f"code-{code}" for code in MEANINGS} <= set(page.ids)


def test_a_problem_leads_to_its_explanation(api: Api) -> None:
    kind = api.client.get("/api/v1/ingestions/none").json()["type"]
    page, _, anchor = kind.partition("#")
    assert anchor in Page(api.client.get(page).text).ids

"""The documentation page: OpenAPI as plain HTML, with nothing from outside and no script at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

# Nothing may be loaded from anywhere; the style stands in the page.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
_METHODS = ("get", "post", "put", "delete")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; color: #1b1f24;
  background: #fff }
code, pre { font: 13px/1.45 ui-monospace, monospace } pre { background: #f3f5f7; padding: .7rem; overflow: auto }
details { border: 1px solid #d5dae0; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer } summary b { display: inline-block; width: 4.5rem } table { border-collapse: collapse }
td, th { border-bottom: 1px solid #e3e7eb; padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top }
@media (prefers-color-scheme: dark) { body { background: #14171a; color: #dfe3e8 } pre { background: #1f2429 }
  details { border-color: #39414a } td, th { border-color: #2c333a } a { color: #7db3ff } }
"""


def render(document: Mapping[str, Any], codes: Mapping[str, str]) -> str:
    """The page.

    Args:
        document: The OpenAPI document, without references in parameters.
        codes: Code of a problem → what it means.
    """
    return "\n".join(_page(document, codes))


def _page(document: Mapping[str, Any], codes: Mapping[str, str]) -> Iterator[str]:
    info = document["info"]
    title = escape(info["title"])
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{title} <small>{escape(info['version'])}</small></h1><p>{escape(info.get('description', ''))}</p>"
    yield '<p>The whole of it as a document: <a href="/openapi.json">openapi.json</a></p>'
    for tag in document.get("tags", ()):
        yield f"<h2>{escape(tag['name'].capitalize())}</h2>"
        for path, operations in document["paths"].items():
            for method in _METHODS:
                if tag["name"] in operations.get(method, {}).get("tags", ()):
                    yield from _operation(path, method, operations[method], document)
    yield "<h2>Codes of problems</h2><table><tr><th>code</th><th>meaning</th></tr>"
    for code, meaning in sorted(codes.items()):
        yield f'<tr id="code-{escape(code)}"><td><code>{escape(code)}</code></td><td>{escape(meaning)}</td></tr>'
    yield "</table></body></html>"


def _operation(path: str, method: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    name = escape(operation["operationId"])
    yield f'<details id="{name}"><summary><b>{method.upper()}</b><code>{escape(path)}</code> '
    yield f"{escape(operation.get('summary', ''))}</summary><p>{escape(operation.get('description', ''))}</p>"
    parameters = operation.get("parameters", ())
    if parameters:
        yield "<table><tr><th>parameter</th><th>in</th><th></th></tr>"
        for one in parameters:
            yield f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}</td>"
            yield f"<td>{escape(one.get('description', ''))}</td></tr>"
        yield "</table>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        yield "<h4>Body</h4>" + _json(_example(body))
        yield f"<details><summary>Schema of the body</summary>{_json(_resolved(body['schema'], document))}</details>"
    for status, response in operation["responses"].items():
        yield f"<h4>{status}: {escape(response.get('description', ''))}</h4>"
        for media in response.get("content", {}).values():
            example = _example(media)
            if example is not None and int(status) < 400:  # noqa: PLR2004 - the first status that is a refusal
                yield _json(example)
    yield "</details>"


def _example(media: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    if "examples" in media:
        return next(iter(media["examples"].values()))["value"]
    return media.get("example")


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _json(value: Any) -> str:  # noqa: ANN401 - any JSON
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"<pre>{escape(text)}</pre>"

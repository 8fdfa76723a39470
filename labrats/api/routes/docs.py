"""The OpenAPI document, and the same as one HTML page without scripts or external files.

Everybody may read them, so each is rendered once: a client with many requests would otherwise keep all others waiting.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from itertools import groupby
from typing import Any, Final

from fastapi import FastAPI, Request

from labrats.api.http.shared_body import SharedResponse
from labrats.api.routing import api_router

router = api_router("Docs")

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_CALLERS: Final = {"apiKey": "with an API key", "session": "signed in", "signature": "signed with a source's secret"}
_METHODS: Final = ("get", "post", "put", "patch", "delete")

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
:root {{ color-scheme: light dark; }}
code, pre {{ font: 14px/1.4 ui-monospace, monospace; }}
pre {{ background: color-mix(in srgb, currentColor 8%, transparent); padding: .75rem; overflow-x: auto; }}
article {{ border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: .5rem 0 1rem; }}
td, th {{ text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0; }}
nav a {{ display: block; }}
code {{ overflow-wrap: anywhere; }}
@media (max-width: 40rem) {{
  tr, td {{ display: block; }}
  td {{ padding: 0; }}
  td:first-child {{ padding-top: .75rem; }}
}}
</style>
<h1>{title} API <small>{version}</small></h1>
<p>{description} For programs: <a href="/api/openapi.json">openapi.json</a>.</p>
<nav>{contents}</nav>
{operations}
<h2>Objects</h2>
{schemas}
</html>
"""


@router.get("/api/docs", include_in_schema=False)
async def read_docs(request: Request) -> SharedResponse:
    """Return the page."""
    page = _rendered(request.app, "page", lambda document: render(document).encode())
    return SharedResponse(page, "text/html; charset=utf-8", {"Content-Security-Policy": _POLICY})


@router.get("/api/openapi.json", include_in_schema=False)
async def read_openapi(request: Request) -> SharedResponse:
    """Return the OpenAPI document."""
    return SharedResponse(_rendered(request.app, "json", _as_json), "application/json")


def _rendered(app: FastAPI, form: str, render: Callable[[Mapping[str, Any]], bytes]) -> bytes:
    """Return the OpenAPI document in one form, rendered for the first request."""
    name = f"documentation_{form}"
    if not hasattr(app.state, name):
        setattr(app.state, name, render(app.openapi()))
    rendered: bytes = getattr(app.state, name)
    return rendered


def _as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def render(document: Mapping[str, Any]) -> str:
    """Return the HTML page of an OpenAPI document."""
    operations = list(_operations(document))
    return _PAGE.format(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        description=_prose(document["info"]["description"]),
        contents="".join(_contents(operations)),
        operations="".join(_operation(method, path, operation) for method, path, operation in operations),
        schemas="".join(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
    )


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def _contents(operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> Iterator[str]:
    for tag, group in groupby(operations, key=lambda each: each[2]["tags"][0]):
        yield f"<h4>{escape(tag)}</h4>"
        yield from (_link(method, path, operation) for method, path, operation in group)


def _link(method: str, path: str, operation: Mapping[str, Any]) -> str:
    where = f"<code>{method} {escape(path)}</code>"
    return f'<a href="#{escape(operation["operationId"])}">{where} {escape(operation["summary"])}</a>'


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    caller = " or ".join(_CALLERS[scheme] for each in operation["security"] for scheme in each) or "open to everybody"
    return "".join(
        (
            f'<article id="{escape(operation["operationId"])}">',
            f"<h3>{escape(operation['summary'])}</h3>",
            f"<p><code>{method} {escape(path)}</code> ({caller})</p>",
            f"<p>{_prose(operation['description'])}</p>",
            _table("Parameters", map(_parameter_row, operation.get("parameters", ()))),
            "".join(_content("Body", operation.get("requestBody", {}))),
            _table(
                "Responses",
                (_row(status, _prose(response["description"])) for status, response in _responses(operation)),
            ),
            *(part for _, response in _responses(operation)[:1] for part in _content("Response", response)),
            "</article>",
        )
    )


def _responses(operation: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the responses by status, success first."""
    return sorted(operation["responses"].items())


def _content(title: str, holder: Mapping[str, Any]) -> Iterator[str]:
    for media_type, content in holder.get("content", {}).items():
        yield f"<p>{title}, <code>{escape(media_type)}</code>: {_type_of(content.get('schema', {}))}</p>"
        if media_type == "application/json" and "example" in content:
            yield _example(content["example"])


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        _row(field, _type_of(value), "required" if field in required else "", _prose(value.get("description", "")))
        for field, value in schema.get("properties", {}).items()
    )
    examples = "".join(map(_example, schema.get("examples", ())))
    head = f"<h3>{escape(name)}</h3><p>{_prose(schema.get('description', ''))}</p>"
    return f'<article id="{escape(name)}">{head}{_table("", rows)}{examples}</article>'


def _example(value: object) -> str:
    return f"<details><summary>Example</summary><pre>{escape(json.dumps(value, indent=2))}</pre></details>"


def _prose(text: str) -> str:
    """Return text as HTML. Text between backticks becomes code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _parameter_row(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    description = _prose(parameter.get("description") or schema.get("description", ""))
    return _row(parameter["name"], escape(parameter["in"]), _type_of(schema), description)


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return a short description of a schema as HTML: its type, such as `string or null`, or a link to its object."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if choices := schema.get("anyOf"):
        return " or ".join(map(_type_of, choices))
    if choices := schema.get("enum"):
        return ", ".join(f"<code>{escape(str(choice))}</code>" for choice in choices)
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(map(_type_of, schema['prefixItems']))}]"
        return f"array of {_type_of(schema.get('items', {}))}"
    return escape(schema.get("type", "anything"))


def _table(title: str, rows: Iterable[str]) -> str:
    body = "".join(rows)
    heading = f"<h4>{title}</h4>" if title else ""
    return f"{heading}<table>{body}</table>" if body else ""


def _row(name: str, *cells: str) -> str:
    """Return a row of a table. The cells are HTML."""
    return f"<tr><td><code>{escape(name)}</code></td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

"""The HTML documentation page: its links, and the escaping of text from the OpenAPI document."""

from html.parser import HTMLParser
from typing import Any

import httpx2

from labrats.api.routes.docs import render


class Page(HTMLParser):
    """The tags, ids and links of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name == "href":
                self.links.add(value or "")


async def test_every_link_has_a_target(user: httpx2.AsyncClient) -> None:
    answer = await user.get("/api/docs")
    page = Page(answer.text)

    assert answer.status_code == 200
    assert len(page.links) > 100
    assert page.links - {"/api/openapi.json"} <= {f"#{name}" for name in page.ids}


async def test_the_page_loads_no_files_and_runs_no_scripts(user: httpx2.AsyncClient) -> None:
    answer = await user.get("/api/docs")

    assert not {"script", "link", "img", "iframe"} & set(Page(answer.text).tags)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_html_in_the_document_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    schema = {"description": evil, "properties": {evil: {"enum": [evil]}}, "examples": [{"a": evil}]}
    operation: dict[str, Any] = {
        "operationId": "evil", "summary": evil, "description": evil, "security": [], "tags": [evil],
        "parameters": [{"name": evil, "in": "query", "schema": {"type": "string"}, "description": evil}],
        "responses": {"200": {"description": evil, "content": {"text/plain": {"schema": {"type": evil}}}}},
    }  # fmt: skip
    document = {
        "info": {"title": evil, "version": evil, "description": evil},
        "paths": {f"/{evil}": {"get": operation}},
        "components": {"schemas": {"Evil": schema}},
    }

    assert "script" not in Page(render(document)).tags


async def test_text_in_backticks_becomes_code(user: httpx2.AsyncClient) -> None:
    text = (await user.get("/api/docs")).text
    assert "<code>details</code> names each invalid field" in text
    assert "`" not in text

"""The dashboard's files: which requests get them, and with which headers."""

import gzip
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import PlainTextResponse

from labrats.api.http.dashboard import BUILDING_MARKER, POLICY, Dashboard
from tests.api.conftest import Api

SCRIPT = b"console.log(1);" * 100
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A small build, in the layout that the dashboard's own build has."""
    assets = tmp_path / "build" / "assets"
    assets.mkdir(parents=True)
    (assets / "index-0aB_9-xy.js").write_bytes(SCRIPT)
    (assets / "index-0aB_9-xy.js.gz").write_bytes(gzip.compress(SCRIPT))
    (assets / "index-0aB_9-xy.js.br").write_bytes(b"pretend")
    (tmp_path / "build" / "icon.svg").write_text("<svg/>")
    (tmp_path / "build" / "index.html").write_text('<div id="root"></div>')
    return tmp_path / "build"


@pytest.fixture
def client(build: Path) -> httpx2.AsyncClient:
    return client_of(Dashboard(PlainTextResponse("the API", 404), build))


def client_of(app: Any) -> httpx2.AsyncClient:
    headers = {"Accept-Encoding": "identity"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://engine.test", headers=headers)


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/ir-1/log?line=3", "/nothing/here"])
async def test_page_is_the_index_and_is_never_stored(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers=HTML)
    assert (answer.status_code, answer.text) == (200, '<div id="root"></div>')
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY


async def test_page_may_send_a_form_to_the_forge(build: Path) -> None:
    client = client_of(Dashboard(PlainTextResponse("the API", 404), build, forge_url="https://github.test"))
    policy = (await client.get("/", headers=HTML)).headers["content-security-policy"]
    assert "form-action 'self' https://github.test;" in policy


@pytest.mark.parametrize("path", ["/api", "/api/nothing", "/health", "/ready", "/metrics", "/webhooks/x"])
async def test_paths_of_the_api_are_never_pages(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path, headers=HTML)).text == "the API"


async def test_only_reading_requests_that_accept_html_get_a_page_other_than_the_first(
    client: httpx2.AsyncClient,
) -> None:
    assert (await client.get("/", headers={"Accept": "*/*"})).text == '<div id="root"></div>'
    assert (await client.get("/jobs", headers={"Accept": "application/json"})).text == "the API"
    assert (await client.post("/jobs", headers=HTML)).text == "the API"


async def test_hashed_file_is_immutable_and_sent_in_the_smallest_accepted_encoding(client: httpx2.AsyncClient) -> None:
    path = "/assets/index-0aB_9-xy.js"
    plain = await client.get(path)
    assert (plain.content, plain.headers["content-type"]) == (SCRIPT, "text/javascript; charset=utf-8")
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    zipped = await client.get(path, headers={"Accept-Encoding": "gzip, deflate"})
    assert (zipped.headers["content-encoding"], zipped.content) == ("gzip", SCRIPT)
    assert zipped.headers["vary"] == "Accept-Encoding"
    refused = await client.get(path, headers={"Accept-Encoding": "gzip;q=0, br;q=0.0"})
    assert "content-encoding" not in refused.headers
    async with client.stream("GET", path, headers={"Accept-Encoding": "gzip, br"}) as answer:
        assert answer.headers["content-encoding"] == "br"
        assert b"".join([part async for part in answer.aiter_raw()]) == b"pretend"


async def test_file_that_the_client_has_is_not_sent_again(client: httpx2.AsyncClient) -> None:
    first = await client.get("/icon.svg")
    assert (first.headers["cache-control"], first.headers["content-type"]) == ("no-cache", "image/svg+xml")
    again = await client.get("/icon.svg", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


async def test_head_has_the_headers_of_get_and_no_body(client: httpx2.AsyncClient) -> None:
    head, get = await client.head("/icon.svg"), await client.get("/icon.svg")
    assert (head.content, dict(head.headers)) == (b"", dict(get.headers))


@pytest.mark.parametrize(
    "path",
    ["/../secret.js", "/assets/../../secret.js", "/assets/%2e%2e/%2e%2e/secret.js", "/%2fsecret.js", "/.building"],
)
async def test_no_path_leads_out_of_the_build(client: httpx2.AsyncClient, build: Path, path: str) -> None:
    (build.parent / "secret.js").write_text("secret")
    (build / BUILDING_MARKER).touch()
    assert (await client.get(path)).text == "the API"


async def test_missing_asset_is_not_answered_with_the_page(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/assets/gone-00000000.js", headers={"Accept": "*/*"})).text == "the API"


async def test_page_says_that_the_dashboard_is_being_built_and_then_shows_it(build: Path) -> None:
    index = (build / "index.html").rename(build / "later")
    (build / "later").rename(build / "index.tmp")
    client = client_of(Dashboard(PlainTextResponse("the API", 404), build))
    (build / BUILDING_MARKER).touch()
    building = await client.get("/", headers=HTML)
    assert "being built" in building.text
    assert 'http-equiv="refresh"' in building.text
    assert building.headers["cache-control"] == "no-store"
    (build / BUILDING_MARKER).unlink()
    assert "make dashboard" in (await client.get("/", headers=HTML)).text
    (build / "index.tmp").rename(index.with_name("index.html"))
    assert 'id="root"' in (await client.get("/", headers=HTML)).text


async def test_new_build_is_served_without_a_restart(client: httpx2.AsyncClient, build: Path) -> None:
    await client.get("/", headers=HTML)
    (build / "index.html").write_text("new")
    (build / "new.txt").write_text("new")
    os.utime(build / "index.html", ns=(1, 1))
    assert (await client.get("/", headers=HTML)).text == "new"
    assert (await client.get("/new.txt")).text == "new"


async def test_unknown_paths_of_the_engine_stay_json_errors(api: Api) -> None:
    async with api.client(None) as nobody:
        for path, accept in [("/api/nothing", "text/html"), ("/nothing", "application/json")]:
            answer = await nobody.get(path, headers={"Accept": accept})
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        page = await nobody.get("/jobs", headers=HTML)
    assert (page.status_code, page.headers["x-content-type-options"]) == (200, "nosniff")

"""An engine on loopback accepts only its own host names, as a defence against DNS rebinding. Other request checks."""

from pathlib import Path

import pytest

from labrats.api.auth.hosts import AllowedHosts
from labrats.settings import EngineSettings
from tests.api.conftest import Api, api_in_memory

ALLOWED = [
    "localhost",
    "localhost:3001",
    "LOCALHOST:3001".lower(),
    "labrats.localhost",
    "127.0.0.1:3001",
    "127.8.8.8",
    "[::1]",
    "[::1]:3001",
    "labrats.example.com",
    "labrats.example.com:8443",
    "proxy.internal:3001",
]
REFUSED = [
    "evil.example",
    "localhost.evil.example",
    "evil-localhost",
    "10.0.0.1",
    "",
    "[::1",
    "127.0.0.1.evil.example",
    ":3001",
    "evil@localhost",
    "localhost:port",
]


@pytest.fixture
def hosts() -> AllowedHosts:
    return AllowedHosts.of(EngineSettings(public_url="https://labrats.example.com", allowed_hosts=("proxy.internal",)))


@pytest.mark.parametrize("host", ALLOWED)
def test_an_own_name_is_allowed(hosts: AllowedHosts, host: str) -> None:
    assert hosts.include(host)


@pytest.mark.parametrize("host", REFUSED)
def test_a_foreign_name_is_not_allowed(hosts: AllowedHosts, host: str) -> None:
    assert not hosts.include(host)


@pytest.mark.parametrize("host", [*ALLOWED, *REFUSED])
def test_beyond_loopback_every_name_is_allowed(host: str) -> None:
    assert AllowedHosts.of(EngineSettings(host="0.0.0.0")).include(host)


@pytest.mark.parametrize("path", ["/health", "/api/jobs", "/api/auth/me"])
async def test_a_foreign_name_is_refused_with_the_setting_that_would_allow_it(tmp_path: Path, path: str) -> None:
    async with api_in_memory(tmp_path) as api, api.client("admin") as admin:
        refused = await admin.get(path, headers={"Host": "evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign_host")
    assert "LABRATS_ALLOWED_HOSTS" in refused.json()["error"]


async def test_a_second_host_header_is_checked_too(tmp_path: Path) -> None:
    async with api_in_memory(tmp_path) as api, api.client("admin") as admin:
        refused = await admin.get("/health", headers=[("Host", "localhost"), ("Host", "evil.example")])
    assert refused.status_code == 403
    assert "evil.example" in refused.json()["error"]


async def test_a_compressed_body_is_refused(api: Api) -> None:
    async with api.client("admin") as admin:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        refused = await admin.post("/api/jobs/submit", content=b"\x1f\x8b", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    assert "Content-Encoding" in refused.json()["error"]


@pytest.mark.parametrize("query", ["limt=5", "limit=5&x=", "status=failed&Status=failed"])
async def test_an_unknown_query_parameter_is_named_in_the_error(api: Api, query: str) -> None:
    async with api.client("admin") as admin:
        refused = await admin.get(f"/api/jobs?{query}")
    assert refused.status_code == 422
    assert [detail["field"] for detail in refused.json()["details"]] == [query.split("&")[-1].split("=")[0]]


@pytest.mark.parametrize("path", ["/health?probe=1", "/metrics?x=1", "/api/auth/me?x=1"])
async def test_an_unknown_query_parameter_of_an_open_route_is_ignored(api: Api, path: str) -> None:
    async with api.client(None) as nobody:
        assert (await nobody.get(path)).status_code == 200

"""Creating a GitHub App by its manifest, and connecting the repositories on which it is installed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from labrats.model.core_resources import Secret
from labrats.model.webhook_source import WebhookSource
from tests.api.conftest import Api, api_in_memory
from tests.support.github import APP_ID, APP_KEY_PEM, APP_LOGIN, Fault, GitHubStandIn, a_github

URL = "https://engine.test/api/github"
CALLBACK = "http://127.0.0.1:8123/"
PUBLIC = "https://engine.test"


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with a_github() as github:
        github.access.installed = set()
        yield github


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def api(tmp_path: Path, github: GitHubStandIn, settings: dict[str, Any]) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path, github_api_url=github.url, **settings) as api:
        yield api


async def form_of(admin: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await admin.post(f"{URL}/app/form", json={"redirectUrl": CALLBACK} | fields)
    assert answer.status_code == 200, answer.text
    form: dict[str, Any] = answer.json()
    return form


async def github_of(admin: httpx2.AsyncClient) -> dict[str, Any]:
    shown: dict[str, Any] = (await admin.get("https://engine.test/api/system")).json()["github"]
    return shown


async def submit(form: dict[str, Any]) -> dict[str, str]:
    """Send the form as a browser does. Return the query with which GitHub sends the browser back."""
    manifest = httpx2.Response(200, json=form["manifest"]).text
    async with httpx2.AsyncClient() as browser:
        answer = await browser.post(form["address"], data={"manifest": manifest})
    assert answer.status_code == 302, answer.text
    assert answer.headers["Location"].startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


async def create_app(admin: httpx2.AsyncClient, **fields: Any) -> httpx2.Response:
    back = await submit(await form_of(admin, **fields))
    return await admin.post(f"{URL}/app", json={"code": back["code"]})


async def refusal(answer: httpx2.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"])


async def test_form_leads_to_a_stored_app_whose_repositories_are_read_without_a_webhook(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    assert "labrats connect github" in await refusal(await admin.get(f"{URL}/app"), 404)
    unconnected = {
        "url": github.url, "hasApp": False, "sources": [], "summary": "", "problem": "no repository is connected",
        "command": "labrats connect github",
    }  # fmt: skip
    assert await github_of(admin) == unconnected
    form = await form_of(admin)
    assert (form["mode"], form["address"]) == ("poll", f"{github.url}/settings/apps/new?state={form['state']}")
    assert form["manifest"].keys().isdisjoint({"hook_attributes", "default_events"})
    assert form["manifest"]["public"] is False
    assert form["manifest"]["default_permissions"] == {
        "metadata": "read", "contents": "write", "issues": "write", "pull_requests": "write", "checks": "write",
    }  # fmt: skip

    back = await submit(form)
    assert back["state"] == form["state"]
    stored = await admin.post(f"{URL}/app", json={"code": back["code"]})

    assert stored.status_code == 200, stored.text
    app = {
        "secret": "github-app", "login": APP_LOGIN, "installUrl": f"{github.url}/apps/labrats-test/installations/new",
        "repositories": [], "suspended": [],
    }  # fmt: skip
    assert stored.json() == app
    assert (await api.store.get(Secret, "github-app")).data == {"appId": APP_ID, "privateKey": APP_KEY_PEM}
    assert (await admin.get(f"{URL}/app")).json() == app
    problem = "the GitHub App has no repository yet"
    assert await github_of(admin) == unconnected | {"hasApp": True, "problem": problem}

    github.access.installed = {"octo/demo"}
    assert (await admin.get(f"{URL}/app")).json() == app | {"repositories": ["octo/demo"]}
    connected = await admin.post(f"{URL}/connection", json={"repositories": ["octo/demo"]})
    assert connected.json() == {
        "source": "github", "secret": "github-app", "login": APP_LOGIN, "repositories": ["octo/demo"], "mode": "poll",
        "seeded": 4, "drawback": None,
    }  # fmt: skip
    source = {"name": "github", "mode": "poll", "repositories": ["octo/demo"]}
    assert await github_of(admin) == unconnected | {
        "hasApp": True, "sources": [source], "summary": "the source github reads octo/demo",
        "problem": None, "command": None,
    }  # fmt: skip


@pytest.mark.parametrize("settings", [{"write_secrets": False}])
async def test_form_is_refused_where_the_app_could_not_be_stored(api: Api, admin: httpx2.AsyncClient) -> None:
    answer = await admin.post(f"{URL}/app/form", json={"redirectUrl": CALLBACK})
    assert "the API writes no Secrets here" in await refusal(answer)


@pytest.mark.parametrize("settings", [{"public_url": PUBLIC}])
async def test_engine_with_a_public_address_gets_an_app_with_a_webhook(api: Api, admin: httpx2.AsyncClient) -> None:
    form = await form_of(admin, organization="octo-org")
    assert form["mode"] == "webhook"
    assert urlsplit(form["address"]).path == "/organizations/octo-org/settings/apps/new"
    assert form["manifest"]["hook_attributes"] == {"url": f"{PUBLIC}/webhooks/github", "active": True}
    assert {"issues", "issue_comment", "pull_request", "check_run"} <= set(form["manifest"]["default_events"])


@pytest.mark.parametrize("settings", [{"public_url": PUBLIC}])
async def test_deliveries_are_signed_with_the_secret_of_the_app(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    await create_app(admin)
    github.access.installed = {"octo/demo"}
    assert (await admin.post(f"{URL}/connection", json={"repositories": ["octo/demo"]})).json()["mode"] == "webhook"
    spec = (await api.store.get(WebhookSource, "github")).spec
    assert spec.secret_ref
    assert (spec.mode, spec.secret_ref.name, spec.secret_ref.key) == ("webhook", "github-app", "webhookSecret")
    assert (await api.store.get(Secret, "github-app")).data["webhookSecret"]

    read = await admin.post(f"{URL}/connection", json={"repositories": ["octo/demo"], "mode": "poll"})
    assert read.json()["mode"] == "poll"


async def test_agents_that_listen_already_decide_about_rights_and_events(api: Api, admin: httpx2.AsyncClient) -> None:
    trigger = {"source": "github", "events": ["push", "deployment"], "instruction": "Look."}
    await admin.post("/api/agents", json={"name": "watcher", "triggerName": "watcher", "eventTriggers": [trigger]})
    rights = (await form_of(admin))["manifest"]["default_permissions"]
    assert (rights["contents"], rights["checks"]) == ("read", "read")


async def test_webhook_needs_a_public_address(admin: httpx2.AsyncClient, api: Api) -> None:
    answer = await admin.post(f"{URL}/app/form", json={"redirectUrl": CALLBACK, "mode": "webhook"})
    assert "set LABRATS_PUBLIC_URL to its https address, or use the mode `poll`" in await refusal(answer)


async def test_app_without_a_webhook_delivers_nothing(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    await create_app(admin)
    github.access.installed = {"octo/demo"}
    answer = await admin.post(f"{URL}/connection", json={"repositories": ["octo/demo"], "mode": "webhook"})
    assert "was created without a webhook: leave out the mode" in await refusal(answer)
    answer = await admin.post(f"{URL}/connection", json={"repositories": ["o/d"], "mode": "webhook", "token": "t"})
    assert answer.status_code == 422


async def test_code_works_once(api: Api, admin: httpx2.AsyncClient) -> None:
    back = await submit(await form_of(admin))
    assert (await admin.post(f"{URL}/app", json={"code": back["code"]})).status_code == 200
    again = await admin.post(f"{URL}/app", json={"code": back["code"]})
    assert "was used already: it works once, within an hour: labrats connect github" in await refusal(again)


async def test_missing_installation_is_named_with_the_page_that_installs(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    await create_app(admin)
    answer = await admin.post(f"{URL}/connection", json={"repositories": ["octo/demo"]})
    assert f"not installed for the repository: install it at {github.url}/apps/" in await refusal(answer)
    assert await api.store.list(WebhookSource) == []


async def test_suspended_installation_is_named_with_its_place(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    await create_app(admin)
    github.access.installed, github.access.suspended = {"octo/demo"}, True
    app = (await admin.get(f"{URL}/app")).json()
    assert (app["repositories"], app["suspended"]) == ([], ["octo"])
    answer = await admin.post(f"{URL}/connection", json={"repositories": ["octo/demo"]})
    assert "is suspended: unsuspend it in the settings of octo" in await refusal(answer)


async def test_deleted_app_is_forgotten_by_a_command(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    await create_app(admin)
    github.faults.plan(Fault(401, "A JSON web token could not be decoded"), "GET /app")
    sentence = "if it was deleted there: labrats secret delete github-app, then labrats connect github"
    assert sentence in await refusal(await admin.get(f"{URL}/app"))


async def test_list_of_repositories_has_all_pages_and_no_archived_ones(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    await create_app(admin)
    for number in range(100):
        github.add_repository(f"octo/other-{number:03}", git=github.demo.git)
    github.add_repository("octo/old", git=github.demo.git).archived = True
    github.access.installed = None
    repositories = (await admin.get(f"{URL}/app")).json()["repositories"]
    assert (len(repositories), repositories[0], repositories[-1]) == (101, "octo/demo", "octo/other-099")


async def test_code_travels_over_tls_only(api: Api, admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("http://engine.test/api/github/app", json={"code": "a-code"})
    assert answer.json()["code"] == "tls_required"

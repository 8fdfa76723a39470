"""Connecting repositories on GitHub by the API, with a stand-in for GitHub."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound
from labrats.model.webhook_source import WebhookSource
from tests.api.conftest import Api, api_in_memory
from tests.support.github import Fault, GitHubStandIn, a_github

URL = "https://engine.test/api/github"
TOKEN = "ghp_a-token-of-a-test"
READ = {"metadata": "read", "contents": "read", "issues": "read", "pull_requests": "read"}
WRITE = {"metadata": "read", "contents": "write", "issues": "write", "pull_requests": "write"}


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with a_github() as github:
        github.access.add_person(TOKEN, "octo")
        yield github


@pytest.fixture
async def api(tmp_path: Path, github: GitHubStandIn) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path, github_api_url=github.url) as api:
        yield api


async def connect(admin: httpx2.AsyncClient, *repositories: str, **fields: Any) -> httpx2.Response:
    body = {"token": TOKEN, "repositories": repositories or ["octo/demo"]} | fields
    return await admin.post(f"{URL}/connection", json=body)


async def test_token_is_checked_and_stored_and_its_repository_is_read_from_then_on(
    api: Api, admin: httpx2.AsyncClient
) -> None:
    answer = await connect(admin, "octo/demo")

    assert answer.status_code == 200, answer.text
    connection = answer.json()
    assert "in the name of octo" in connection.pop("drawback")
    assert connection == {
        "source": "github", "secret": "github-token", "login": "octo", "repositories": ["octo/demo"], "mode": "poll",
        "seeded": 4,
    }  # fmt: skip
    assert TOKEN not in answer.text
    assert (await api.store.get(Secret, "github-token")).data == {"token": TOKEN}
    spec = (await api.store.get(WebhookSource, "github")).spec
    assert (spec.type, spec.mode, spec.credentials_ref) == ("github", "poll", "github-token")
    agents = {each["name"] for each in (await admin.get("/api/agents")).json()["agents"]}
    assert agents == {"ai-developer", "ai-reviewer", "ai-triager", "ai-documenter"}


async def test_second_run_adds_a_repository_and_renews_the_token(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    github.add_repository("octo/other")
    github.access.add_person("ghp_renewed", "octo")
    await connect(admin)
    await admin.delete("/api/agents/ai-triager")

    again = (await connect(admin, "octo/other", "octo/demo", token="ghp_renewed")).json()

    assert (again["repositories"], again["seeded"]) == (["octo/demo", "octo/other"], 0)
    assert (await api.store.get(Secret, "github-token")).data == {"token": "ghp_renewed"}


async def test_source_with_another_name_is_changed_and_keeps_its_deliveries(
    api: Api, admin: httpx2.AsyncClient
) -> None:
    own = {"name": "mine", "type": "github", "secret": "a-secret-of-webhooks", "credentialsRef": "github-app"}
    assert (await admin.post("/api/webhook-sources", json=own)).status_code == 201

    assert (await connect(admin)).json()["source"] == "mine"

    [source] = (await admin.get("/api/webhook-sources")).json()["webhookSources"]
    assert (source["mode"], source["credentialsRef"], source["repositories"]) == ("poll", "github-token", ["octo/demo"])
    assert source["secretRef"]["name"] == "mine.webhook-secret"


async def test_source_reads_at_most_50_repositories(api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient) -> None:
    await connect(admin)
    others = [github.add_repository(f"octo/other-{number}", git=github.demo.git).name for number in range(50)]
    refused = await connect(admin, *others)
    assert (refused.status_code, refused.json()["code"]) == (400, "too_many_repositories")


@pytest.mark.parametrize(
    ("permissions", "sentence"),
    [
        ({"metadata": "read"}, "may only read octo/demo"),
        (WRITE | {"issues": "none", "pull_requests": "none"}, "lacks the permission Issues: give it Contents, Issues"),
        (WRITE | {"pull_requests": "none"}, "lacks the permission Pull requests"),
        (READ, "may only read octo/demo: let an admin of the repository give it the role Write"),
    ],
)
async def test_token_without_rights_is_refused_with_the_rights_to_give(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient, permissions: dict[str, str], sentence: str
) -> None:
    github.access.add_person(TOKEN, "octo", permissions=permissions)
    await refused(api, admin, sentence)


NO_SSO = "Resource protected by organization SAML enforcement. You must grant your token access to this organization."
CLASSIC = "`octo` forbids access via a personal access token (classic). Please use a GitHub App."


@pytest.mark.parametrize(
    ("fault", "operation", "sentence"),
    [
        (Fault(401, "Bad credentials"), "GET /user", "misspelt, expired or revoked: create another one at http://"),
        (Fault(404, "Not Found"), "GET /repos/{owner}/{repo}", "cannot see octo/demo: check the name"),
        (Fault(301, "Moved"), "GET /repos/{owner}/{repo}", "was renamed or transferred: use its new name"),
        (Fault(403, NO_SSO), "GET /repos/{owner}/{repo}", "authorized for single sign-on: authorize it at"),
        (Fault(403, CLASSIC), "GET /repos/{owner}/{repo}", "use a fine-grained token"),
        (Fault(403, "Suspended."), "GET /repos/{owner}/{repo}", "GitHub refuses octo/demo: Suspended; give the token"),
        (Fault(410, "Gone"), "GET /repos/{owner}/{repo}/issues", "are turned off: turn them on"),
    ],
)
async def test_refusal_of_github_is_answered_with_the_next_step(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient, fault: Fault, operation: str, sentence: str
) -> None:
    headers = {"Location": "/repositories/1"} if fault.status == 301 else {}
    github.faults.plan(Fault(fault.status, fault.message, headers=headers), operation)
    await refused(api, admin, sentence)


async def test_classic_token_needs_the_scope_of_the_repository(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    github.demo.scopes = "read:user, public_repo"
    await refused(api, admin, "the token lacks the scope `repo`: add it at")
    github.demo.private = False
    assert (await connect(admin)).status_code == 200


async def test_archived_repository_is_refused(api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient) -> None:
    github.demo.archived = True
    await refused(api, admin, "octo/demo is archived")


async def refused(api: Api, admin: httpx2.AsyncClient, sentence: str) -> None:
    """Assert that the token is refused with a sentence, and that nothing is stored."""
    answer = await connect(admin)
    assert (answer.status_code, answer.json()["code"]) == (400, "refused_by_github"), answer.text
    assert sentence in answer.json()["error"]
    with pytest.raises(NotFound):
        await api.store.get(Secret, "github-token")
    assert await api.store.list(WebhookSource) == []


async def test_limit_of_github_asks_the_caller_to_wait(
    api: Api, github: GitHubStandIn, admin: httpx2.AsyncClient
) -> None:
    github.faults.plan(Fault.secondary_limit(17), "GET /repos/{owner}/{repo}")
    answer = await connect(admin)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "17")


@pytest.mark.parametrize("token", ["", "two words", "tökén"])
async def test_token_is_one_word(admin: httpx2.AsyncClient, token: str) -> None:
    assert (await connect(admin, token=token)).status_code == 422


async def test_token_travels_over_tls_only(api: Api, admin: httpx2.AsyncClient) -> None:
    body = {"token": TOKEN, "repositories": ["octo/demo"]}
    answer = await admin.post("http://engine.test/api/github/connection", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "tls_required")

"""Tokens and redeliveries for a GitHub App, from a fake GitHub on loopback."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from msgspec.structs import replace

from labrats.github.client.app import GitHub
from labrats.github.client.repository_tokens import RepositoryTokens
from labrats.model.core_resources import JOB_CREDENTIALS, Secret
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.job import Job, WorkspaceSetup
from labrats.model.record import Metadata
from tests.fakes.clock import NOON, FakeClock
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec
from tests.support.github import APP_ID, APP_KEY_PEM, Fault, GitHubStandIn, a_github
from tests.support.loopback import free_port

APP = {"appId": APP_ID, "privateKey": APP_KEY_PEM}


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with a_github() as github:
        yield github


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def tokens(github: GitHubStandIn, store: MemoryStore) -> RepositoryTokens:
    return RepositoryTokens(store, GitHub(github.url, FakeClock()))


async def a_stored_job(store: MemoryStore, github: GitHubStandIn, **setup: Any) -> Job:
    """Store a job of a webhook source with credentials."""
    usual = {"git_repo": f"{github.url}/octo/demo.git", "credentials_ref": "ir-00000001-git", "token_from": "app"}
    spec = a_spec(workspace_setup=WorkspaceSetup(**usual | setup))
    return await store.create(a_job(job_id="ir-00000001", spec=spec))


async def token_of(store: MemoryStore) -> str:
    return (await store.get(Secret, "ir-00000001-git")).data["password"]


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
async def test_a_private_key_with_a_passphrase_is_refused(github: GitHubStandIn, form: PrivateFormat) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"test"))
    with pytest.raises(GiveUp, match="is not an RSA key in PEM without a passphrase"):
        await GitHub(github.url, FakeClock()).app({"appId": APP_ID, "privateKey": key.decode()})


class TestApp:
    async def test_each_attempt_gets_a_fresh_token_for_its_one_repository(
        self, github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens
    ) -> None:
        await store.create(Secret(metadata=Metadata(name="app"), data=APP))
        job = await a_stored_job(store, github)

        await tokens.provide(job)
        assert await token_of(store) == "ghs_test_token_1"
        await tokens.provide(job)
        assert await token_of(store) == "ghs_test_token_2"

        assert github.access.grants == [{"repositories": ["demo"], "permissions": {"contents": "read"}}] * 2
        assert {claims["iss"] for claims in github.access.claims} == {APP_ID}
        assert all(claims["exp"] - claims["iat"] <= 600 for claims in github.access.claims)

    async def test_the_installation_is_looked_up_once_until_it_is_gone(self, github: GitHubStandIn) -> None:
        client = GitHub(github.url, FakeClock())
        await client.token_for("octo/demo", APP)
        await asyncio.gather(*(client.token_for("octo/demo", APP) for _ in range(2)))
        lookups = "GET /repos/{owner}/{repo}/installation"
        assert len(github.calls_of(lookups)) == 1
        creation = "POST /app/installations/{installation_id}/access_tokens"
        github.faults.plan(Fault(404), creation)  # the installation was removed, and there is a new one
        assert await client.token_for("octo/demo", APP) == "ghs_test_token_4"
        assert len(github.calls_of(lookups)) == 2
        github.access.installed = {"octo/other"}
        with pytest.raises(GiveUp, match="not installed"):
            await client.token_for("octo/demo", APP)

    async def test_the_token_is_deleted_with_its_job(
        self, github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens
    ) -> None:
        await store.create(Secret(metadata=Metadata(name="app"), data=APP))
        job = await a_stored_job(store, github)
        await tokens.provide(job)
        await store.delete(Job, job.id)
        assert [secret.name for secret in await store.list(Secret)] == ["app"]

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            ({}, "must have a `token`, or"),
            ({"appId": APP_ID}, "must have a `token`, or"),
            (APP | {"privateKey": "test-key-that-is-none"}, "not an RSA key"),
            (APP | {"privateKey": APP_KEY_PEM[:-200]}, "not an RSA key"),
        ],
    )
    async def test_invalid_credentials_are_named_and_not_shown(
        self, github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens, data: dict[str, str], reason: str
    ) -> None:
        await store.create(Secret(metadata=Metadata(name="app"), data=data))
        with pytest.raises(GiveUp, match=reason) as given_up:
            await tokens.provide(await a_stored_job(store, github))
        assert "test-key" not in str(given_up.value)
        assert given_up.value.code == "git_clone"

    async def test_missing_credentials_are_named(
        self, github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens
    ) -> None:
        with pytest.raises(GiveUp, match="'app'"):
            await tokens.provide(await a_stored_job(store, github))

    async def test_an_app_that_is_not_installed_gets_no_token(
        self, github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens
    ) -> None:
        await store.create(Secret(metadata=Metadata(name="app"), data=APP))
        github.access.installed = {"octo/other"}
        with pytest.raises(GiveUp, match="not installed"):
            await tokens.provide(await a_stored_job(store, github))

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault(403, "This installation has been suspended"), "the installation of the GitHub App is suspended"),
            (Fault(451, "Repository access blocked"), "GitHub has blocked the repository for legal reasons"),
            (Fault(301, headers={"Location": "/repositories/1"}), "the repository was renamed or transferred"),
        ],
        ids=["suspended", "blocked", "renamed"],
    )
    async def test_a_problem_that_lasts_is_named_and_not_retried(
        self, github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens, fault: Fault, reason: str
    ) -> None:
        await store.create(Secret(metadata=Metadata(name="app"), data=APP))
        github.faults.plan(fault)
        with pytest.raises(GiveUp, match=reason):
            await tokens.provide(await a_stored_job(store, github))

    @pytest.mark.parametrize(("status", "error"), [(401, GiveUp), (422, GiveUp), (403, RetryLater), (502, RetryLater)])
    async def test_transient_failures_are_retried_and_permanent_ones_are_not(
        self, github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens, status: int, error: type[Exception]
    ) -> None:
        await store.create(Secret(metadata=Metadata(name="app"), data=APP))
        github.faults.plan(Fault(status))
        with pytest.raises(error):
            await tokens.provide(await a_stored_job(store, github))


class TestHook:
    """The webhook of an App: its deliveries and their redelivery."""

    @pytest.fixture
    def api(self, github: GitHubStandIn) -> GitHub:
        github.hook.url = f"http://127.0.0.1:{free_port()}/nobody-listens"
        return GitHub(github.url, FakeClock())

    async def test_the_hook_url_is_that_of_the_app(self, github: GitHubStandIn, api: GitHub) -> None:
        assert await api.hook_url(APP) == github.hook.url

    async def test_all_pages_are_read_newest_first(self, github: GitHubStandIn, api: GitHub) -> None:
        for _ in range(5):
            github.hook.deliver("ping", b"{}")
        found = await api.deliveries(APP, NOON)
        assert [each.id for each in found] == [5, 4, 3, 2, 1]
        assert {(each.status, each.arrived, each.redelivery) for each in found} == {
            ("failed to connect to host", False, False)
        }

    async def test_no_page_before_the_given_time_is_read(self, github: GitHubStandIn, api: GitHub) -> None:
        for _ in range(6):
            github.hook.deliver("ping", b"{}")
        for delivery in github.hook.deliveries[:4]:
            delivery["delivered_at"] = "2020-01-01T12:00:00Z"
        assert [each.id for each in await api.deliveries(APP, NOON)] == [6, 5]
        assert len(github.access.claims) == 2

    async def test_a_redelivery_has_the_guid_of_the_delivery(self, github: GitHubStandIn, api: GitHub) -> None:
        github.hook.deliver("ping", b"{}")
        await api.deliver_again(APP, 1)
        again, first = await api.deliveries(APP, NOON)
        assert (again.guid, again.redelivery) == (first.guid, True)

    async def test_redelivery_of_a_missing_delivery_is_given_up(self, api: GitHub) -> None:
        with pytest.raises(GiveUp, match="no such delivery"):
            await api.deliver_again(APP, 7)

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "77"}, 77),
            ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOON.timestamp()) + 120)}, 120),
            ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOON.timestamp()) - 120)}, 10),
            ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOON.timestamp()) + 86400)}, 3600),
            ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": str(int(NOON.timestamp()) + 120)}, 60),
            ({"Retry-After": "soon"}, 60),
        ],
    )
    async def test_the_retry_delay_follows_githubs_headers(
        self, github: GitHubStandIn, api: GitHub, headers: dict[str, str], seconds: float
    ) -> None:
        github.faults.plan(Fault(429, headers=headers))
        with pytest.raises(RetryLater) as later:
            await api.deliveries(APP, NOON)
        assert later.value.delay_seconds == pytest.approx(seconds, abs=2)


async def test_a_stored_token_is_used_unchanged(
    github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens
) -> None:
    await store.create(Secret(metadata=Metadata(name="app"), data={"token": "ghp_test_token\n"}))
    await tokens.provide(await a_stored_job(store, github))
    assert await token_of(store) == "ghp_test_token"
    assert github.access.claims == []


async def test_no_other_host_gets_a_token(github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens) -> None:
    await store.create(Secret(metadata=Metadata(name="app"), data=APP))
    with pytest.raises(GiveUp, match="not on the GitHub"):
        await tokens.provide(await a_stored_job(store, github, git_repo="https://elsewhere.test/octo/demo.git"))
    assert github.access.claims == []


@pytest.mark.parametrize(
    ("api_url", "clone_url", "expected"),
    [
        ("https://api.github.com", "https://github.com/a/b.git", True),
        ("https://api.github.com", "https://api.github.com.evil.test/a/b.git", False),
        ("https://api.github.com", "https://github.com@evil.test/a/b.git", False),
        ("https://ghe.example/api/v3", "https://ghe.example/a/b.git", True),
        ("https://ghe.example/api/v3", "https://github.com/a/b.git", False),
        ("https://ghe.example/api/v3", "http://ghe.example/a/b.git", False),
        ("https://ghe.example/api/v3", "https://ghe.example:8443/a/b.git", False),
        ("https://ghe.example:8443/api/v3", "https://ghe.example:8443/a/b.git", True),
    ],
)
def test_only_repositories_on_its_host_are_its_own(api_url: str, clone_url: str, expected: bool) -> None:
    assert GitHub(api_url, FakeClock()).is_host_of(clone_url) == expected


async def test_a_secret_of_another_owner_is_not_changed(
    github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens
) -> None:
    await store.create(Secret(metadata=Metadata(name="app"), data={"token": "ghp_test_token"}))
    other = await store.create(Secret(metadata=Metadata(name="ir-00000001-git"), data={"password": "test-own"}))
    with pytest.raises(GiveUp, match="belongs to another object"):
        await tokens.provide(await a_stored_job(store, github))
    assert await store.get(Secret, "ir-00000001-git") == other


async def test_a_job_without_token_from_gets_no_token(
    github: GitHubStandIn, store: MemoryStore, tokens: RepositoryTokens
) -> None:
    await tokens.provide(await a_stored_job(store, github, token_from=None))
    assert await store.list(Secret) == []


async def test_unlabelled_credentials_give_no_token_where_labels_are_required(
    github: GitHubStandIn, store: MemoryStore
) -> None:
    tokens = RepositoryTokens(store, GitHub(github.url, FakeClock()), labelled_only=True)
    secret = await store.create(Secret(metadata=Metadata(name="app"), data={"token": "ghp_test"}))
    job = await a_stored_job(store, github)

    with pytest.raises(GiveUp, match="not labelled for jobs"):
        await tokens.provide(job)
    await store.update(replace(secret, metadata=replace(secret.metadata, labels=JOB_CREDENTIALS)))
    await tokens.provide(job)

    assert await token_of(store) == "ghp_test"
    assert (await store.get(Secret, "ir-00000001-git")).metadata.labels == JOB_CREDENTIALS

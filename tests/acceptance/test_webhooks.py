"""Webhook deliveries: answered once their jobs are stored, and recognized after a crash."""

import asyncio
import subprocess
from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User
from tests.support.deliveries import SECRET, an_issue_event, github_headers, json_body
from tests.support.github import APP_ID, APP_KEY_PEM, GitHubStandIn, a_github
from tests.support.waiting import DEADLINE_SECONDS

GITHUB = "/api/webhooks/github"
SCRIPTED: dict[str, Any] = {
    "name": "developer",
    "eventTriggers": [{"source": "github", "events": ["issues.labeled"]}],
    "defaultProvider": "mock",
}
SOURCE: dict[str, Any] = {"name": "github", "type": "github", "secret": SECRET}


@pytest.fixture
def receiver(start_engine: EngineFactory) -> LocalEngine:
    return start_engine()


async def set_up(admin: User) -> None:
    for path, body in (("/api/agents", SCRIPTED), ("/api/webhook-sources", SOURCE)):
        assert (await admin.post(path, body)).status_code == 201


async def deliver(engine: LocalEngine, payload: Any, delivery: str = "one", path: str = GITHUB) -> dict[str, Any]:
    body = json_body(payload)
    async with engine.client() as github:
        answer = await github.post(path, content=body, headers=github_headers("issues", body, delivery=delivery))
    assert answer.status_code == 200, answer.text
    received: dict[str, Any] = answer.json()
    return received


def an_issue(**fields: Any) -> dict[str, Any]:
    """Return a payload without a clone URL, so that no repository is cloned."""
    payload = an_issue_event(**fields)
    del payload["repository"]["clone_url"]
    return payload


async def test_delivery_starts_a_job(receiver: LocalEngine) -> None:
    async with receiver.admin() as admin:
        await set_up(admin)
        (job,) = (await deliver(receiver, an_issue(), path="/webhooks/github"))["jobs"]
        detail = await admin.wait(job["jobId"])
        source = (await admin.get("/api/webhook-sources/github")).json()
        (delivery,) = await listed_deliveries(admin, "github", 1)
        receiver.restart()
        recorded = (await admin.get(f"/api/webhook-sources/github/deliveries/{delivery['id']}")).json()
    assert recorded["payload"] == an_issue()
    assert (delivery["outcome"], delivery["event"], delivery["repo"]) == ("started", "issues.labeled", "octo/demo")
    assert delivery["jobs"] == [job["jobId"]]
    assert (detail["status"], detail["agentRole"], detail["source"]) == ("completed", "developer", "github")
    assert source["url"] == f"{receiver.url}/webhooks/github"
    assert SECRET not in receiver.log


@pytest.mark.parametrize("is_external", [True, False], ids=["external contributor", "member"])
async def test_only_a_members_event_gets_the_secrets_of_its_agent(receiver: LocalEngine, is_external: bool) -> None:
    receiver.set_secret("npm", "token", "test-npm-token-0123456789")
    trigger = {"source": "github", "events": ["issues.opened"]}
    agent = SCRIPTED | {"eventTriggers": [trigger], "env": {"NPM_TOKEN": {"secret": "npm", "key": "token"}}}
    source = SOURCE | {"allowedAssociations": ["OWNER", "MEMBER", "COLLABORATOR", "NONE"]}
    association = "NONE" if is_external else "MEMBER"
    async with receiver.admin() as admin:
        for path, body in (("/api/agents", agent), ("/api/webhook-sources", source)):
            assert (await admin.post(path, body)).status_code == 201
        opened = an_issue(action="opened", association=association, sender={"id": 2, "login": "stranger"})
        (job,) = (await deliver(receiver, opened))["jobs"]
        detail = await admin.wait(job["jobId"])
    if is_external:
        refusal = "an external contributor caused this job, so it does not get the secret in config.env.NPM_TOKEN"
        assert (detail["status"], detail["failedCode"], detail["failedReason"]) == ("failed", "auth", refusal)
    else:
        assert detail["status"] == "completed", detail["failedReason"]


async def test_source_can_be_created_again_right_after_its_deletion(admin: User) -> None:
    source: dict[str, Any] = {"name": f"again-{uuid4().hex[:8]}", "type": "generic"}
    address = f"/api/webhook-sources/{source['name']}"
    for secret in (
        {"secret": "test-secret-the-first"},
        {"secret": "test-secret-the-second"},
        {"secretRef": {"name": "none", "key": "none"}},
    ):
        created = await admin.post("/api/webhook-sources", source | secret)
        assert created.status_code == 201, created.text
        changed = await admin.http.patch(address, json={"secret": "test-secret-yet-another"})
        assert changed.status_code == 200, changed.text
        assert (await admin.http.delete(address)).status_code == 204


async def test_replayed_delivery_is_answered_with_its_first_job_after_a_crash(receiver: LocalEngine) -> None:
    async with receiver.admin() as admin:
        await set_up(admin)
        first = await deliver(receiver, an_issue())
        receiver.kill()
        receiver.start()
        again = await asyncio.gather(*(deliver(receiver, an_issue(), f"id-{number}") for number in range(20)))
        assert again == [first] * 20
        assert (await admin.get("/api/jobs")).json()["total"] == 1
        await admin.wait(first["jobs"][0]["jobId"])


async def test_delivery_is_answered_while_its_job_waits_for_a_slot(receiver: LocalEngine) -> None:
    async with receiver.admin() as admin:
        await set_up(admin)
        await admin.post("/api/ai-models", {"name": "none", "provider": "mock", "model": "mock", "slots": 0})
        (job,) = (await deliver(receiver, an_issue()))["jobs"]
        assert (await admin.job(job["jobId"]))["status"] == "waiting"


async def test_conditions_of_a_source_follow_its_secret(receiver: LocalEngine) -> None:
    reference = {"name": "hook", "key": "token"}
    async with receiver.admin() as admin:
        await admin.post("/api/webhook-sources", {"name": "github", "type": "github", "secretRef": reference})
        missing = await condition(admin, "SecretFound", "False")
        assert missing["message"] == "there is no Secret 'hook'"
        assert (await condition(admin, "Ready", "False"))["reason"] == "SecretMissing"

        set_secret(receiver, "hook", "token", SECRET)
        await condition(admin, "SecretFound", "True")
        await condition(admin, "Ready", "True")

        secret_command(receiver, "delete", "hook")
        await condition(admin, "Ready", "False")


async def condition(admin: User, kind: str, status: str) -> dict[str, Any]:
    """Wait until the source's condition has that status, and return the condition."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            source = (await admin.get("/api/webhook-sources/github")).json()
            for each in source["conditions"]:
                if (each["type"], each["status"]) == (kind, status):
                    return dict(each)
            await asyncio.sleep(0.05)


async def test_private_repository_is_cloned_with_a_token_of_the_github_app(
    start_engine: EngineFactory,
) -> None:
    with a_github() as github:
        engine = start_engine(LABRATS_GITHUB_API_URL=github.url, OUTBOUND_ALLOWED_CIDRS="127.0.0.0/8")
        for key, value in (("appId", APP_ID), ("privateKey", APP_KEY_PEM)):
            set_secret(engine, "app", key, value)
        payload = an_issue_event()
        payload["repository"]["clone_url"] = github.demo.clone_url
        async with engine.admin() as admin:
            await set_up(admin)
            await admin.http.patch("/api/webhook-sources/github", json={"credentialsRef": "app"})
            (job,) = (await deliver(engine, payload))["jobs"]
            detail = await admin.wait(job["jobId"])
        assert detail["status"] == "completed", detail
        assert (engine.workspace(job["jobId"]) / "README.md").exists()
        assert github.access.grants == [{"repositories": ["demo"], "permissions": {"contents": "read"}}]
        assert engine.files_with("ghs_test_token") == []
        assert engine.resources_with("ghs_test_token") == [f"Secret {job['jobId']}-git"]


async def test_deliveries_missed_while_the_engine_is_down_are_redelivered_once(
    start_engine: EngineFactory,
) -> None:
    with a_github() as github:
        engine = start_engine(LABRATS_GITHUB_API_URL=github.url)
        github.hook.url = f"{engine.url}/webhooks/github"
        for key, value in (("appId", APP_ID), ("privateKey", APP_KEY_PEM)):
            set_secret(engine, "app", key, value)
        async with engine.admin() as admin:
            await set_up(admin)
            await admin.http.patch("/api/webhook-sources/github", json={"credentialsRef": "app"})
            await condition(admin, "Ready", "True")
            await send_issues(github, 1, 2)
            engine.kill()
            await send_issues(github, 3, 4, 5)
            assert [delivery["status"] for delivery in github.hook.deliveries].count("OK") == 2
            engine.start()

            await condition(admin, "CaughtUp", "False")
            jobs = await jobs_of(admin, 5)
            assert (await deliver(engine, an_issue(number=4)))["jobs"]
            assert await jobs_of(admin, 5) == jobs
        assert [each["redelivery"] for each in github.hook.deliveries] == [False] * 5 + [True] * 3
        assert {each["status"] for each in github.hook.deliveries[5:]} == {"OK"}


async def listed_deliveries(admin: User, source: str, number: int) -> list[dict[str, Any]]:
    """Wait until the source lists that many deliveries, and return them, the latest first."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            answer = (await admin.get(f"/api/webhook-sources/{source}/deliveries")).json()
            if len(answer["deliveries"]) == number:
                return list(answer["deliveries"])
            await asyncio.sleep(0.05)


async def send_issues(github: GitHubStandIn, *numbers: int) -> None:
    for number in numbers:
        await asyncio.to_thread(github.hook.deliver, "issues", json_body(an_issue(number=number)))


async def jobs_of(admin: User, count: int) -> set[str]:
    """Wait until there are `count` jobs, and return their ids."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(jobs := (await admin.get("/api/jobs")).json()["jobs"]) < count:
            await asyncio.sleep(0.05)
    return {job["id"] for job in jobs}


def set_secret(engine: LocalEngine, name: str, key: str, value: str) -> None:
    secret_command(engine, "set", name, key, value=value)


def secret_command(engine: LocalEngine, *arguments: str, value: str = "") -> None:
    program = [*engine.command()[:1], "secret", *arguments, "--data-dir", str(engine.data_dir)]
    subprocess.run(program, input=value, text=True, check=True, capture_output=True)

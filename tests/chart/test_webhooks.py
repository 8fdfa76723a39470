"""The webhook receivers of an installation."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, User, an_http_client
from tests.acceptance.test_webhooks import listed_deliveries
from tests.chart.installation import Installation
from tests.chart.test_installation import a_user_of
from tests.support.deliveries import SECRET, an_issue_event, github_headers, json_body

pytestmark = [pytest.mark.kubernetes(node=True, helm=True, engine_image=True), pytest.mark.timeout(400)]

START_SECONDS: Final = 120


@pytest.fixture
async def admin(installation: Installation) -> AsyncIterator[User]:
    async with a_user_of(installation) as admin:
        yield admin


@pytest.fixture
async def name(admin: User) -> AsyncIterator[str]:
    """Yield the name of a source and of an agent that its events start."""
    name = f"hook-{secrets.token_hex(3)}"
    trigger = {"source": "github", "events": ["issues.labeled"], "filters": {"label.name": name}}
    agent = {"name": name, "eventTriggers": [trigger], "defaultProvider": "mock"}
    assert (await admin.post("/api/agents", agent)).status_code == 201
    yield name
    await admin.http.delete(f"/api/agents/{name}")
    await admin.http.delete(f"/api/webhook-sources/{name}")


async def source_of(admin: User, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await admin.get(f"/api/webhook-sources/{name}")).json()
    return found


async def until(admin: User, name: str, holds: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, Any]:
    """Return the source once `holds` is true of its conditions by type."""
    source: dict[str, Any] = {}
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                source = await source_of(admin, name)
                if holds({each["type"]: each for each in source["conditions"]}):
                    return source
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"timed out waiting for conditions of {source}")


def is_true(kind: str) -> Callable[[dict[str, dict[str, Any]]], bool]:
    return lambda conditions: kind in conditions and conditions[kind]["status"] == "True"


@asynccontextmanager
async def receiver_of(installation: Installation, name: str) -> AsyncIterator[Callable[..., Any]]:
    """Yield a function that delivers an event to the source's Service and returns the answer."""
    service = installation.get("service", f"labrats-webhook-{name}")[0]["spec"]
    with installation.reach(service["clusterIP"], service["ports"][0]["port"]) as url:

        async def deliver(path: str = f"/webhooks/{name}", secret: str = SECRET, **fields: Any) -> Any:
            body = json_body(payload_for(name, **fields))
            async with an_http_client(url) as github:
                return await github.post(path, content=body, headers=github_headers("issues", body, secret))

        yield deliver


def payload_for(name: str, **fields: Any) -> dict[str, Any]:
    """Build an event that starts the agent `name` and does not lead to a clone."""
    payload = an_issue_event(label={"name": name}, **fields)
    del payload["repository"]["clone_url"]
    return payload


async def test_delivery_to_the_receiver_of_a_source_starts_a_job(
    installation: Installation, admin: User, name: str
) -> None:
    created = await admin.post("/api/webhook-sources", {"name": name, "type": "github", "secret": SECRET})
    assert created.status_code == 201
    source = await until(admin, name, is_true("Ready"))
    assert {each["type"]: each["status"] for each in source["conditions"]} == {
        "Accepting": "True",
        "Exposed": "False",  # the test cluster has no ingress controller
        "Provisioned": "True",
        "Ready": "True",
        "SecretFound": "True",
    }
    assert source["url"] == f"http://labrats-webhook-{name}.{installation.namespace}.svc/webhooks/{name}"

    async with receiver_of(installation, name) as deliver:
        first, again = await deliver(), await deliver()
        assert first.status_code == 200, first.text
        assert again.json() == first.json()
        (job,) = first.json()["jobs"]
        assert (await admin.wait(job["jobId"]))["status"] == "completed"
        assert (await deliver(secret="test-secret-of-another")).status_code == 401
        assert (await deliver("/api/jobs")).status_code == 404
        refused, *started = await listed_deliveries(admin, name, 3)
        assert (refused["outcome"], refused["jobs"]) == ("refused", [])
        assert [(each["outcome"], each["jobs"]) for each in started] == 2 * [("started", [job["jobId"]])]

        await admin.http.patch(f"/api/webhook-sources/{name}", json={"enabled": False})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await deliver()).status_code != 404:
                await asyncio.sleep(0.1)

    assert (await admin.http.delete(f"/api/webhook-sources/{name}")).status_code == 204
    async with asyncio.timeout(START_SECONDS):
        while f"labrats-webhook-{name}" in installation.kubectl("get", "deploy,service,ingress", "--output=name"):
            await asyncio.sleep(0.5)


async def test_receiver_waits_for_its_secret_and_rolls_out_a_new_one(
    installation: Installation, admin: User, name: str
) -> None:
    reference = {"name": f"{name}-secret", "key": "github"}
    await admin.post("/api/webhook-sources", {"name": name, "type": "github", "secretRef": reference})
    source = await until(admin, name, lambda conditions: "SecretFound" in conditions)
    assert {each["type"]: each["status"] for each in source["conditions"]} == {
        "Accepting": "True",
        "Provisioned": "False",
        "SecretFound": "False",
    }
    assert f"there is no Secret '{name}-secret'" in str(source["conditions"])

    installation.kubectl("create", "secret", "generic", f"{name}-secret", f"--from-literal=github={SECRET}")
    await until(admin, name, is_true("Ready"))
    patch = json.dumps({"stringData": {"github": "test-secret-that-is-new"}})
    installation.kubectl("patch", "secret", f"{name}-secret", "--patch", patch)
    async with receiver_of(installation, name) as deliver, asyncio.timeout(START_SECONDS):
        while (await deliver(secret="test-secret-that-is-new")).status_code != 200:
            await asyncio.sleep(0.5)


async def test_ingress_follows_the_source_and_the_receiver_serves_its_path(
    installation: Installation, admin: User, name: str
) -> None:
    ingress_fields = {
        "host": "hooks.example.com",
        "path": "/from/github",
        "ingressClassName": "nginx",
        "tlsSecretName": "tls",
    }
    await admin.post("/api/webhook-sources", {"name": name, "type": "github", "secret": SECRET} | ingress_fields)
    source = await until(admin, name, is_true("Ready"))
    assert source["url"] == "https://hooks.example.com/from/github"

    (ingress,) = installation.get("ingress", f"labrats-webhook-{name}")
    assert ingress["spec"] == {
        "ingressClassName": "nginx",
        "rules": [
            {
                "host": "hooks.example.com",
                "http": {
                    "paths": [
                        {
                            "path": "/from/github",
                            "pathType": "Exact",
                            "backend": {"service": {"name": f"labrats-webhook-{name}", "port": {"name": "http"}}},
                        }
                    ]
                },
            }
        ],
        "tls": [{"hosts": ["hooks.example.com"], "secretName": "tls"}],
    }
    async with receiver_of(installation, name) as deliver:
        assert (await deliver("/from/github")).status_code == 200


async def test_receiver_works_while_the_api_is_down(installation: Installation, admin: User, name: str) -> None:
    await admin.post("/api/webhook-sources", {"name": name, "type": "github", "secret": SECRET})
    await until(admin, name, is_true("Ready"))
    installation.kubectl("scale", "deploy/labrats-api", "--replicas=0")
    try:
        async with receiver_of(installation, name) as deliver:
            answer = await deliver()
    finally:
        installation.kubectl("scale", "deploy/labrats-api", "--replicas=2")
        installation.kubectl("rollout", "status", "deploy/labrats-api", "--timeout=120s")
    (job,) = answer.json()["jobs"]
    async with a_user_of(installation) as user:
        assert (await user.wait(job["jobId"]))["status"] == "completed"


async def test_settings_that_a_receiver_writes_are_ignored_and_other_fields_refused(
    installation: Installation, admin: User, name: str
) -> None:
    assert (await admin.post("/api/webhook-sources", {"name": name, "type": "github", "secret": SECRET})).is_success
    await until(admin, name, is_true("Ready"))
    async with receiver_of(installation, name) as deliver:
        (started,) = (await deliver()).json()["jobs"]
    await admin.wait(started["jobId"])
    [job] = installation.get("ir", started["jobId"])
    assert job["status"]["resolved"] == job["spec"]["resolved"]
    account = f"--as=system:serviceaccount:{installation.namespace}:labrats-webhook-receiver"

    def forge(suffix: str, **fields: Any) -> str:
        job_id = f"{name}-{suffix}"
        texts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{job_id}-prompt"}}
        spec = job["spec"] | {"promptRef": {"name": f"{job_id}-prompt", "key": "prompt"}} | fields
        forged = {each: job[each] for each in ("apiVersion", "kind")} | {"metadata": {"name": job_id}, "spec": spec}
        for each in (texts | {"data": {"prompt": "An event."}}, forged):
            installation.kubectl("create", "-f", "-", account, stdin=json.dumps(each))
        return job_id

    resolved = {"config": {"provider": "mock", "model": "of-the-receiver", "env": {"A": {"secret": "b", "key": "c"}}}}
    ran, refused = await admin.wait(forge("resolved", resolved=resolved)), await admin.wait(forge("first", priority=0))
    assert (ran["status"], ran["model"]) == ("completed", "mock")
    assert (refused["status"], refused["failedCode"]) == ("failed", "invalid")
    assert refused["failedReason"].startswith("priority: is not as the agent")

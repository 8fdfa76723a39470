"""The engine on a cluster with a real node, from its users' point of view."""

import asyncio
import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest

from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient
from labrats.model.record import encode
from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User
from tests.cluster.cluster import Cluster
from tests.cluster.volumes import bind_volume
from tests.kubernetes.audit_log import Write, writes_in
from tests.kubernetes.conftest import EngineFactory

pytestmark = pytest.mark.kubernetes(node=True)

HANG = {"hang": True}


def is_of_a_job(write: Write) -> bool:
    """Return whether a write is neither an event nor the record of an API key's last use."""
    return write.target != "events" and (write.verb, write.target) != ("patch", "secrets")


async def test_a_job_runs_in_a_pod(user: User) -> None:
    detail = await user.run({"log": "hello"}, {"usage": {"inputTokens": 5, "costUsd": 0.5}}, {"result": {"answer": 42}})

    assert detail["status"] == "completed"
    assert detail["returnvalue"] == {"answer": 42}
    assert detail["logs"] == ["hello"]
    assert detail["usage"]["inputTokens"] == 5
    assert await user.log_lines(detail["id"]) == ["hello"]
    assert detail["k8sJobName"] == f"{detail['id']}-1"
    assert detail["executorPodName"].startswith(f"{detail['k8sJobName']}-")


async def test_a_job_costs_five_writes(cluster: Cluster | None, jobs_namespace: str, user: User) -> None:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, which has an audit log")
    since = datetime.now(UTC)
    await user.run({"log": "hello"})

    writes = [write for write in writes_in(cluster, jobs_namespace) if write.at > since]
    assert sorted(f"{write.verb} {write.target}" for write in writes if is_of_a_job(write)) == [
        "create configmaps",
        "create inferencerequests",
        "create jobs",
        "update inferencerequests/status",  # started
        "update inferencerequests/status",  # ended
    ]


async def test_a_git_token_costs_one_more_write(cluster: Cluster | None, jobs_namespace: str, user: User) -> None:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, which has an audit log")
    since = datetime.now(UTC)
    await user.run(workspaceSetup={"gitRepo": "https://rat:test-secret-token@git.example/rats.git"})

    writes = [write for write in writes_in(cluster, jobs_namespace) if write.at > since]
    assert sorted(f"{write.verb} {write.target}" for write in writes if is_of_a_job(write)) == [
        "create configmaps",
        "create inferencerequests",
        "create jobs",
        "create secrets",
        "update inferencerequests/status",  # started
        "update inferencerequests/status",  # failed: no such repository
    ]


async def test_a_running_job_can_be_followed_and_cancelled(user: User) -> None:
    job_id = await user.submit({"log": "here"}, HANG)
    async with user.log_stream(job_id) as events:
        assert (await anext(events)).data == {"log": "here"}
        await user.cancel(job_id)

    detail = await user.wait(job_id)
    assert detail["status"] == "cancelled"
    assert detail["logs"] == ["here"]


async def test_a_job_continues_while_no_engine_runs(engine: LocalEngine) -> None:
    async with engine.user() as user:
        job_id = await user.submit({"log": "tick {n}", "times": 10, "everyMs": 300}, {"result": "done"})
        async with user.log_stream(job_id) as events:
            await anext(events)
    engine.kill()
    engine.start()
    async with engine.client(user.key) as http:
        user = User(http, user.key)
        detail = await user.wait(job_id)
        assert (detail["status"], detail["attempts"], detail["failedReason"]) == ("completed", 1, None)
        assert await user.log_lines(job_id) == [f"tick {number}" for number in range(1, 11)]


async def test_deletion_of_a_running_job_ends_its_pod_and_leaves_nothing(
    engine: LocalEngine, user: User, api_client: ApiClient, jobs_namespace: str
) -> None:
    job_id = await user.submit({"log": "here"}, HANG)
    async with user.log_stream(job_id) as events:
        await anext(events)
    resources = f"/apis/labrats.work/v1alpha1/namespaces/{jobs_namespace}/inferencerequests"
    await api_client.request("DELETE", f"{resources}/{job_id}")

    async with asyncio.timeout(60):
        while await leftovers_in(api_client, jobs_namespace) or any(engine.data_dir.rglob(f"{job_id}-*")):
            await asyncio.sleep(0.1)


async def test_the_secret_of_an_mcp_server_is_mounted_as_a_file(
    start_engine: EngineFactory, api_client: ApiClient, jobs_namespace: str
) -> None:
    secret = {"metadata": {"name": "docs-token"}, "stringData": {"TOKEN": "test-token-0123456789"}}
    await api_client.request("POST", f"/api/v1/namespaces/{jobs_namespace}/secrets", encode(secret))
    servers = {"docs": {"command": "docs", "credentialsRef": "docs-token"}}
    async with start_engine().admin() as admin:
        agent = {"name": "with-tools", "defaultProvider": "mock", "mcpServers": servers}
        assert (await admin.post("/api/agents", agent)).status_code == 201
        detail = await admin.run(agentRole="with-tools")

    assert detail["status"] == "completed"
    job = await api_client.request("GET", f"/apis/batch/v1/namespaces/{jobs_namespace}/jobs/{detail['k8sJobName']}")
    assert b'"path":"secrets/mcp.docs.TOKEN"' in job
    assert b"test-token" not in job


async def test_an_applied_job_runs_and_can_be_replaced_by_one_of_the_same_name(
    engine: LocalEngine, api_client: ApiClient, jobs_namespace: str
) -> None:
    job: dict[str, Any] = {
        "apiVersion": "labrats.work/v1alpha1",
        "kind": "InferenceRequest",
        "metadata": {"name": "by-hand"},
        "spec": {"source": "manual", "type": "greeting", "prompt": "Say hello.", "config": {"provider": "mock"}},
    }
    resources = f"/apis/labrats.work/v1alpha1/namespaces/{jobs_namespace}/inferencerequests"
    await api_client.request("POST", resources, encode(job))
    async with engine.admin() as admin:
        detail = await admin.wait("by-hand")
        assert detail["status"] == "completed"
        assert "2 words" in detail["returnvalue"]

        # A second job of the same name is independent of the first, although a pod of that may still exist.
        await add_finalizer_to_pods(api_client, jobs_namespace, detail["k8sJobName"])
        await api_client.request("DELETE", f"{resources}/by-hand")
        job["spec"]["prompt"] = "Say hello again."
        await api_client.request("POST", resources, encode(job))
        second = await next_job(admin, detail)
        assert "3 words" in second["returnvalue"], second


async def test_a_job_is_independent_of_a_running_deleted_job_of_the_same_name(
    engine: LocalEngine, api_client: ApiClient, jobs_namespace: str
) -> None:
    def a_job(*steps: Any) -> bytes:
        spec = {"source": "manual", "type": "any", "prompt": "-", "config": {"provider": "mock"}}
        meta = {"apiVersion": "labrats.work/v1alpha1", "kind": "InferenceRequest", "metadata": {"name": "by-hand"}}
        return encode(meta | {"spec": spec | {"metadata": {"mock": {"steps": steps}}}})

    resources = f"/apis/labrats.work/v1alpha1/namespaces/{jobs_namespace}/inferencerequests"
    await api_client.request("POST", resources, a_job({"log": "first"}, {"hang": True}))
    async with engine.admin() as admin:
        first = await admin.wait("by-hand", "active")
        async with admin.log_stream("by-hand") as events:
            await anext(events)
        await add_finalizer_to_pods(api_client, jobs_namespace, "by-hand-1")
        await api_client.request("DELETE", f"{resources}/by-hand")
        await api_client.request("POST", resources, a_job({"log": "second"}))
        second = await next_job(admin, first)
        assert (second["status"], await admin.log_lines("by-hand")) == ("completed", ["second"])


async def next_job(admin: User, earlier: dict[str, Any]) -> dict[str, Any]:
    """Wait until the next job of the same name has ended, and return its detail."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = await admin.job(earlier["id"])
            if found["createdAt"] != earlier["createdAt"] and found["finishedAt"]:
                return found
            await asyncio.sleep(0.1)


async def add_finalizer_to_pods(client: ApiClient, namespace: str, k8s_job: str) -> None:
    """Add a finalizer that keeps the pods until the namespace is deleted."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    query = {"labelSelector": f"batch.kubernetes.io/job-name={k8s_job}"}
    for pod in json.loads(await client.request("GET", path, query=query))["items"]:
        patch = {"metadata": {"finalizers": [*pod["metadata"].get("finalizers", ()), "labrats.test/keep"]}}
        await client.request("PATCH", f"{path}/{pod['metadata']['name']}", encode(patch), content_type=MERGE_PATCH)


async def test_a_job_has_its_files(start_engine: EngineFactory, api_client: ApiClient, jobs_namespace: str) -> None:
    engine = start_engine(LABRATS_UPLOADS_CLAIM="uploads")
    uploads = engine.data_dir / "uploads"
    await bind_volume(api_client, jobs_namespace, "uploads", str(uploads))
    async with engine.admin() as admin:
        await admin.post("/api/ai-models", {"name": "paused", "provider": "mock", "model": "mock", "slots": 0})
        job_id = await admin.submit(workspaceFiles=[{"name": "notes/a.txt", "data": "aGVsbG8K"}])
        # An installed engine and its executors have the same user. Here the engine has another one.
        for path in [uploads, *uploads.rglob("*")]:
            os.chmod(path, 0o755)
        await admin.http.patch("/api/ai-models/paused", json={"slots": 1})
        assert (await admin.wait(job_id))["status"] == "completed"


async def leftovers_in(client: ApiClient, namespace: str) -> list[bytes]:
    """Return the Jobs, pods and ConfigMaps of jobs in the namespace."""
    paths = [
        f"/apis/batch/v1/namespaces/{namespace}/jobs",
        f"/api/v1/namespaces/{namespace}/pods",
        f"/api/v1/namespaces/{namespace}/configmaps",
    ]
    items = [bytes(item) for path in paths async for page in client.pages(path, {}) for item in page.items]
    return [item for item in items if b"kube-root-ca.crt" not in item]

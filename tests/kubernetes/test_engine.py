"""The engine as its users meet it, on a real node: the same as on one machine."""

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
from tests.kubernetes.audit_log import writes_in
from tests.kubernetes.conftest import EngineFactory

pytestmark = pytest.mark.kubernetes(node=True)

HANG = {"hang": True}


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
        pytest.skip("only a cluster of our own shows its audit log")
    since = datetime.now(UTC)
    await user.run({"log": "hello"})

    writes = [write for write in writes_in(cluster, jobs_namespace) if write.at > since]
    assert sorted(f"{write.verb} {write.target}" for write in writes) == [
        "create configmaps",
        "create inferencerequests",
        "create jobs",
        "update inferencerequests/status",  # it has started
        "update inferencerequests/status",  # it has ended
    ]


async def test_a_git_token_costs_one_write_more(cluster: Cluster | None, jobs_namespace: str, user: User) -> None:
    if cluster is None:
        pytest.skip("only a cluster of our own shows its audit log")
    since = datetime.now(UTC)
    await user.run(workspaceSetup={"gitRepo": "https://rat:test-secret-token@git.example/rats.git"})

    writes = [write for write in writes_in(cluster, jobs_namespace) if write.at > since]
    assert sorted(f"{write.verb} {write.target}" for write in writes if write.target != "events") == [
        "create configmaps",
        "create inferencerequests",
        "create jobs",
        "create secrets",
        "update inferencerequests/status",  # it has started
        "update inferencerequests/status",  # there is no such repository
    ]


async def test_a_running_job_can_be_followed_and_cancelled(user: User) -> None:
    job_id = await user.submit({"log": "here"}, HANG)
    async with user.log_stream(job_id) as events:
        assert (await anext(events)).data == {"log": "here"}
        await user.cancel(job_id)

    detail = await user.wait(job_id)
    assert detail["status"] == "cancelled"
    assert detail["logs"] == ["here"]


async def test_a_job_goes_on_while_no_engine_runs(engine: LocalEngine) -> None:
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


async def test_deleting_the_resource_ends_the_pod_and_leaves_nothing(
    engine: LocalEngine, user: User, api_client: ApiClient, jobs_namespace: str
) -> None:
    job_id = await user.submit({"log": "here"}, HANG)
    async with user.log_stream(job_id) as events:
        await anext(events)
    resources = f"/apis/labrats.work/v1alpha1/namespaces/{jobs_namespace}/inferencerequests"
    await api_client.request("DELETE", f"{resources}/{job_id}")

    async with asyncio.timeout(60):
        while await left_in(api_client, jobs_namespace) or any(engine.data_dir.rglob(f"{job_id}-*")):
            await asyncio.sleep(0.1)


async def test_an_mcp_server_has_its_secret_as_a_file(
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


async def test_a_resource_that_a_person_applies_is_a_job_too(
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

        # Another one of that name has nothing to do with the first, of which the cluster may still have a pod.
        await keep_pods(api_client, jobs_namespace, detail["k8sJobName"])
        await api_client.request("DELETE", f"{resources}/by-hand")
        job["spec"]["prompt"] = "Say hello again."
        await api_client.request("POST", resources, encode(job))
        second = await the_next_one(admin, detail)
        assert "3 words" in second["returnvalue"], second


async def test_a_job_has_nothing_of_one_of_its_name_that_still_runs(
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
        await keep_pods(api_client, jobs_namespace, "by-hand-1")
        await api_client.request("DELETE", f"{resources}/by-hand")
        await api_client.request("POST", resources, a_job({"log": "second"}))
        second = await the_next_one(admin, first)
        assert (second["status"], await admin.log_lines("by-hand")) == ("completed", ["second"])


async def the_next_one(admin: User, earlier: dict[str, Any]) -> dict[str, Any]:
    """The detail of the next job by the name of `earlier`, once it has ended."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = await admin.job(earlier["id"])
            if found["createdAt"] != earlier["createdAt"] and found["finishedAt"]:
                return found
            await asyncio.sleep(0.1)


async def keep_pods(client: ApiClient, namespace: str, k8s_job: str) -> None:
    """As somebody does who has given them a finalizer, until the namespace is cleared."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    query = {"labelSelector": f"batch.kubernetes.io/job-name={k8s_job}"}
    for pod in json.loads(await client.request("GET", path, query=query))["items"]:
        patch = {"metadata": {"finalizers": [*pod["metadata"].get("finalizers", ()), "labrats.test/keep"]}}
        await client.request("PATCH", f"{path}/{pod['metadata']['name']}", encode(patch), content_type=MERGE_PATCH)


async def test_files_come_with_a_job(start_engine: EngineFactory, api_client: ApiClient, jobs_namespace: str) -> None:
    engine = start_engine(LABRATS_UPLOADS_CLAIM="uploads")
    uploads = engine.data_dir / "uploads"
    await bind_volume(api_client, jobs_namespace, "uploads", str(uploads))
    async with engine.admin() as admin:
        await admin.post("/api/ai-models", {"name": "paused", "provider": "mock", "model": "mock", "slots": 0})
        job_id = await admin.submit(workspaceFiles=[{"name": "notes/a.txt", "data": "aGVsbG8K"}])
        # Engine and executors have one user in a cluster. Here the engine has another, whose files are its own.
        for path in [uploads, *uploads.rglob("*")]:
            os.chmod(path, 0o755)
        await admin.http.patch("/api/ai-models/paused", json={"slots": 1})
        assert (await admin.wait(job_id))["status"] == "completed"


async def left_in(client: ApiClient, namespace: str) -> list[bytes]:
    """The Jobs, pods and ConfigMaps of jobs in the namespace."""
    paths = [
        f"/apis/batch/v1/namespaces/{namespace}/jobs",
        f"/api/v1/namespaces/{namespace}/pods",
        f"/api/v1/namespaces/{namespace}/configmaps",
    ]
    items = [bytes(item) for path in paths async for page in client.pages(path, {}) for item in page.items]
    return [item for item in items if b"kube-root-ca.crt" not in item]

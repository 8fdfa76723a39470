"""A lost node with jobs: their end is unknown until the node is deleted or declared out of service."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.acceptance.engine import ENDED, LocalEngine, User
from tests.cluster.cluster import Cluster
from tests.cluster.node import Node
from tests.cluster.product import EXECUTOR
from tests.kubernetes.conftest import EngineFactory

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.timeout(900)]

PATIENCE_SECONDS = 300.0
"""The cluster waits a minute for a silent node, and checks for pods without a node three times a minute."""

TO_BE_LOST = "labrats.test/to-be-lost"


async def test_slots_are_held_until_a_lost_node_is_deleted_or_declared_out_of_service(
    cluster: Cluster | None, start_engine: EngineFactory
) -> None:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose nodes can be lost")
    async with an_engine_on_nodes_to_be_lost(start_engine).user() as user:
        deleted, declared = Node(cluster, 2), Node(cluster, 3)
        (on_deleted,) = await start_jobs(cluster, deleted, user, ["deleted"])
        on_declared, to_cancel = await start_jobs(cluster, declared, user, ["declared", "cancelled"])
        waiting = [await user.submit(config={"model": model}) for model in ("deleted", "declared", "cancelled")]

        deleted.kill_kubelet()
        declared.kill_kubelet()
        await user.cancel(to_cancel)
        assert await statuses(user, on_deleted, waiting[0]) == ["active", "waiting"]
        cluster.kubectl("delete", "node", deleted.name, "--wait=false")
        cluster.kubectl("wait", "--for=condition=Ready=Unknown", f"node/{declared.name}", "--timeout=300s")
        assert await statuses(user, on_declared, to_cancel, *waiting[1:]) == ["active"] * 2 + ["waiting"] * 2
        cluster.kubectl("taint", "node", declared.name, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")

        ended = [
            await once(user, job_id, lambda job: job["status"] in ENDED)
            for job_id in (on_deleted, on_declared, to_cancel)
        ]
        for job, node in zip(ended[:2], (deleted, declared), strict=True):
            assert (job["status"], job["failedCode"], job["logs"]) == ("failed", "node_lost", ["here"])
            assert node.name in job["failedReason"]
        assert ended[2]["status"] == "cancelled"
        for before, job_id in zip(ended, waiting, strict=True):
            after = await once(user, job_id, lambda job: job["status"] != "waiting")
            assert after["processedAt"] >= before["finishedAt"]
            await user.cancel(job_id)


async def test_a_job_outlives_a_restart_of_its_kubelet_but_not_a_taint_on_its_node(
    cluster: Cluster | None, start_engine: EngineFactory
) -> None:
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose nodes can be lost")
    async with an_engine_on_nodes_to_be_lost(start_engine).user() as user:
        node = Node(cluster, 4)
        steps = {"log": "here"}, {"sleepMs": 8_000}, {"log": "and there"}, {"hang": True}
        (job_id,) = await start_jobs(cluster, node, user, ["tainted"], *steps)
        node.restart_kubelet()  # for a moment it knows none of its pods, and answers 404
        await once(user, job_id, lambda job: job["logs"] == ["here", "and there"])
        cluster.kubectl("taint", "node", node.name, "labrats.test/maintenance=true:NoExecute")
        job = await once(user, job_id, lambda job: job["status"] in ENDED)

    assert (job["status"], job["failedCode"], job["logs"]) == ("failed", "evicted", ["here", "and there"])
    assert f"evicted from {node.name}: Taint manager" in job["failedReason"]


def an_engine_on_nodes_to_be_lost(start_engine: EngineFactory) -> LocalEngine:
    """Return an engine whose jobs run only on nodes to be lost, one at a time for each model."""
    pod = {"dnsPolicy": "Default", "nodeSelector": {TO_BE_LOST: "true"}}
    return start_engine(DEFAULT_MODEL_SLOTS="1", LABRATS_EXECUTOR_POD=json.dumps(pod))


async def start_jobs(
    cluster: Cluster, node: Node, user: User, models: Sequence[str], *steps: dict[str, Any]
) -> list[str]:
    """Start `node` with one running job per model, and cordon it. Return the ids of the jobs.

    steps: of each job, the first of which logs "here"; by default, the job then hangs.
    """
    steps = steps or ({"log": "here"}, {"hang": True})
    node.start([EXECUTOR.archive()])
    cluster.kubectl("label", "node", node.name, f"{TO_BE_LOST}=true")
    job_ids = [await user.submit(*steps, config={"model": model}) for model in models]
    for job_id in job_ids:
        await once(user, job_id, lambda job: job["logs"] == ["here"])
    cluster.kubectl("cordon", node.name)
    return job_ids


async def statuses(user: User, *job_ids: str) -> list[str]:
    return [(await user.job(job_id))["status"] for job_id in job_ids]


async def once(user: User, job_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until `condition` holds for the job, and return its detail."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition(detail := await user.job(job_id)):
            await asyncio.sleep(0.2)
    return detail

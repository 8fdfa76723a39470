"""A long queue of jobs on a cluster. LABRATS_QUEUE_JOBS sets its length."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.model.job import Job
from labrats.model.record import encode
from tests.acceptance.engine import LocalEngine, User
from tests.cluster.cluster import Cluster
from tests.kubernetes.audit_log import answers_in
from tests.kubernetes.conftest import EngineFactory

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.timeout(900)]

JOBS: Final = int(os.environ.get("LABRATS_QUEUE_JOBS", "500"))
MIB_PER_1000_JOBS: Final = 15
CLIENTS: Final = 16
PATIENCE_SECONDS: Final = 300


async def test_a_long_queue_survives_a_restart_within_a_memory_bound(
    start_engine: EngineFactory,
    api_client: ApiClient,
    cluster: Cluster | None,
    jobs_namespace: str,
    counters: Counter[str],
) -> None:
    counters["queued"] = JOBS
    engine, path = start_engine(), resource_type(Job).path(jobs_namespace)
    async with engine.admin() as admin:
        await admin.post("/api/ai-models", {"name": "paused", "provider": "mock", "model": "mock", "slots": 0})
        before = resident_mib(engine)
        await create(api_client, path, range(JOBS))
        await until_waiting(admin, JOBS)
        assert resident_mib(engine) - before < 10 + JOBS / 1000 * MIB_PER_1000_JOBS
    if cluster:
        assert Counter(answers_in(cluster, jobs_namespace))[429] == 0

    engine.restart()
    async with engine.admin() as admin:
        assert await waiting(admin) == JOBS
        await api_client.request("DELETE", path)
        await until_waiting(admin, 0)


async def create(client: ApiClient, path: str, numbers: Iterable[int]) -> None:
    """Create jobs by several concurrent clients."""
    remaining = iter(numbers)

    async def create_some() -> None:
        for number in remaining:
            spec = {"source": "kubectl", "type": "any", "prompt": "Hello.", "config": {"provider": "mock"}}
            job = {
                "apiVersion": "labrats.work/v1alpha1",
                "kind": "InferenceRequest",
                "metadata": {"name": f"job-{number}"},
                "spec": spec,
            }
            await client.request("POST", path, encode(job))

    await asyncio.gather(*(create_some() for _ in range(CLIENTS)))


async def waiting(user: User) -> int:
    total: int = (await user.get("/api/jobs", status="waiting", limit=1)).json()["total"]
    return total


async def until_waiting(user: User, jobs: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await waiting(user) != jobs:
            await asyncio.sleep(0.1)


def resident_mib(engine: LocalEngine) -> float:
    status = Path(f"/proc/{engine.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1024

"""The whole engine on a real node, while its API server fails at random or is out of reach.

LABRATS_STORM_SECONDS sets how long jobs are submitted, LABRATS_OUTAGE_SECONDS the length of an outage, and LABRATS_SEED
the random choices.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from labrats.backends.kubernetes.client import ApiClient
from tests.acceptance.engine import ENDED, LocalEngine, User
from tests.cluster.proxy import Break, Cut, Drop, Fault, FaultyProxy, Lose, Refuse, is_log, is_watch, is_write
from tests.kubernetes.engine import an_engine
from tests.kubernetes.recorded_history import NOT_UNDER_FAULTS, errors_in, history_of, pods_by_job, recorded_versions
from tests.support.random_seed import SEED
from tests.torture.history import violations
from tests.torture.load import Clients

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.timeout(900)]

STORM_SECONDS: Final = float(os.environ.get("LABRATS_STORM_SECONDS", "10"))
OUTAGE_SECONDS: Final = float(os.environ.get("LABRATS_OUTAGE_SECONDS", "10"))
"""Long enough for the engine to lose leadership, and for all retry poll_intervals to reach their maximum."""

JOBS_PER_SECOND: Final = 1.5
PEACE_SECONDS: Final = 300
FAULTY: Final = 0.1
"""Share of requests that meet a fault."""

OpenEngine = Callable[..., AbstractAsyncContextManager[LocalEngine]]


@pytest.fixture
async def proxy(api_client: ApiClient, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy.open(api_client, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def open_engine(proxy: FaultyProxy, jobs_namespace: str, executor_image: str, tmp_path: Path) -> OpenEngine:
    """Return a function that opens an engine behind the proxy. It waits in a thread: this one serves the proxy."""

    @asynccontextmanager
    async def open_engine(**environment: str) -> AsyncIterator[LocalEngine]:
        folder = tmp_path / "engine"
        folder.mkdir()
        volume = tmp_path / "volume"
        engine = an_engine(proxy.kubeconfig, jobs_namespace, executor_image, folder, volume=volume, **environment)
        await asyncio.to_thread(engine.__enter__)
        try:
            yield engine
        finally:
            proxy.plan = lambda request: None
            await asyncio.to_thread(engine.__exit__, None, None, None)

    return open_engine


async def test_random_faults_violate_no_guarantee(
    api_client: ApiClient, jobs_namespace: str, proxy: FaultyProxy, open_engine: OpenEngine, counters: Counter[str]
) -> None:
    counters["seed"] = SEED
    async with open_engine() as engine, recorded_versions(api_client, jobs_namespace) as written:
        async with engine.admin() as admin:
            clients = Clients(admin.http, random.Random(f"{SEED} clients"))
            await clients.configure_models()
            proxy.plan = random_faults(random.Random(f"{SEED} faults"), counters)
            await load(clients)
            proxy.plan = lambda request: None
            with suppress(TimeoutError):  # the checks below find jobs that have not ended
                async with asyncio.timeout(PEACE_SECONDS):
                    await clients.all_ended()
        history = await history_of(api_client, jobs_namespace, engine, clients.answers, written)
    counters.update({"jobs": len(history.accepted), "runs": len(history.runs)})
    found = [each for each in violations(history) if each.promise not in NOT_UNDER_FAULTS]
    assert found == [], f"seed {SEED}: {found[:20]}"
    assert errors_in(engine) == []


@pytest.mark.parametrize("fault", [Drop(), Refuse(429, retry_after=2)], ids=["refused", "busy"])
async def test_an_outage_only_delays_jobs(
    api_client: ApiClient, jobs_namespace: str, proxy: FaultyProxy, open_engine: OpenEngine, fault: Fault
) -> None:
    ticks = round(OUTAGE_SECONDS * 1.4)  # the jobs end after the outage
    steps = [{"log": "tick {n}", "times": ticks, "everyMs": 1000}, {"result": "done"}]
    async with open_engine(DEFAULT_MODEL_SLOTS="3") as engine, engine.user() as user:
        running = [await user.submit(*steps) for _ in range(2)]
        for job_id in running:
            await user.wait(job_id, "active")
        waiting = [await user.submit({"result": "done"}) for _ in range(4)]
        before = len(proxy.requests)
        async with proxy.outage(fault):
            await asyncio.sleep(OUTAGE_SECONDS)
            requests = len(proxy.requests) - before
            refusal = await user.post("/api/jobs/submit", {"source": "manual", "type": "any", "prompt": "Hello."})
            assert (refusal.status_code, "Retry-After" in refusal.headers) == (503, True)
        ended = [await end_of(user, job_id) for job_id in running + waiting]
        assert {(job["status"], job["attempts"]) for job in ended} == {("completed", 1)}
        for job_id in running:
            assert await user.log_lines(job_id) == [f"tick {number}" for number in range(1, ticks + 1)]
        assert await pods_by_job(api_client, jobs_namespace) == Counter(dict.fromkeys(running + waiting, 1))
    assert requests < 20 * OUTAGE_SECONDS, "the engine must not flood a failing API server"
    assert engine.log.count("engine ready") == 1
    assert errors_in(engine) == []


async def test_an_engine_that_starts_during_an_outage_waits_for_its_end(
    proxy: FaultyProxy, open_engine: OpenEngine
) -> None:
    async with proxy.outage(Drop()):
        opening = asyncio.create_task(open_and_run_a_job(open_engine))
        refused_so_far = len(proxy.requests)
        async with asyncio.timeout(60):
            while len(proxy.requests) < refused_so_far + 5:
                await asyncio.sleep(0.1)
        assert not opening.done()
    assert await opening == "completed"


async def open_and_run_a_job(open_engine: OpenEngine) -> str:
    async with open_engine() as engine, engine.user() as user:
        status: str = (await user.run({"result": "done"}))["status"]
        return status


def random_faults(chance: random.Random, counters: Counter[str]) -> Callable[[web.BaseRequest], Fault | None]:
    """Return a plan in which one request in ten meets a fault that suits it."""

    def plan(request: web.BaseRequest) -> Fault | None:
        if chance.random() > FAULTY:
            return None
        counters["faults"] += 1
        if is_watch(request) or is_log(request):
            cuts = [Cut.RESET, Cut.HALF_LINE, Cut.END] + [Cut.INVALID_JSON, Cut.EXPIRED] * is_watch(request)
            return Refuse(410) if is_watch(request) and chance.random() < 0.1 else Break(chance.choice(cuts), 3)
        faults: list[Fault] = [Refuse(500), Refuse(503), Refuse(429, retry_after=1), Drop()]
        if is_write(request):
            faults += [Lose(), Lose()]
        if request.method == "PUT" or request.path.endswith("/jobs"):
            faults.append(Refuse(409))
        return chance.choice(faults)

    return plan


async def load(clients: Clients) -> None:
    """Run clients for a while, and wait until each has finished."""
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(clients.load(JOBS_PER_SECOND, enough))
        await asyncio.sleep(STORM_SECONDS)
        enough.set()


async def end_of(user: User, job_id: str) -> dict[str, Any]:
    """Wait until the job has ended, which may take longer after an outage, and return its detail."""
    async with asyncio.timeout(PEACE_SECONDS):
        while (detail := await user.job(job_id))["status"] not in ENDED:
            await asyncio.sleep(0.1)
    return detail

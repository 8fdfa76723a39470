"""The whole engine on a real node, while its API server fails in every way it can, or is away.

LABRATS_STORM_SECONDS sets for how long jobs come, LABRATS_OUTAGE_SECONDS how long the API server is away, LABRATS_SEED
what is done.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from aiohttp import web

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.jobs_api import JobsApi
from labrats.backends.kubernetes.objects import PodObject
from labrats.backends.kubernetes.resources import resource_type
from labrats.model.job import Job
from tests.acceptance.engine import ENDED, LocalEngine, User
from tests.cluster.proxy import Break, Cut, Drop, Fault, FaultyProxy, Lose, Refuse, is_log, is_watch, is_write
from tests.kubernetes.engine import an_engine
from tests.torture.history import History, Run, Written, violations
from tests.torture.load import SLOTS, Clients
from tests.torture.witnesses import run_of, written_by

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.timeout(900)]

STORM_SECONDS: Final = float(os.environ.get("LABRATS_STORM_SECONDS", "10"))
OUTAGE_SECONDS: Final = float(os.environ.get("LABRATS_OUTAGE_SECONDS", "15"))
"""Long enough for the engine to lose the lead, and for every pause between two tries to be as long as it gets."""
SEED: Final = int(os.environ.get("LABRATS_SEED") or random.randrange(1_000_000))

JOBS_PER_SECOND: Final = 1.5
PEACE_SECONDS: Final = 300
FAULTY: Final = 0.1
"""How many of all requests meet a fault."""

OpenEngine = Callable[..., AbstractAsyncContextManager[LocalEngine]]


@pytest.fixture
async def proxy(api_client: ApiClient, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy.open(api_client, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def open_engine(proxy: FaultyProxy, jobs_namespace: str, executor_image: str, tmp_path: Path) -> OpenEngine:
    """An engine behind the proxy. Whatever waits for it does so in a thread, since the proxy is served by this one."""

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


async def test_whatever_fails_no_promise_is_broken(
    api_client: ApiClient, jobs_namespace: str, proxy: FaultyProxy, open_engine: OpenEngine, tally: Counter[str]
) -> None:
    tally["seed"] = SEED
    async with open_engine() as engine, recorded_versions(api_client, jobs_namespace) as written:
        async with engine.admin() as admin:
            clients = Clients(admin.http, random.Random(f"{SEED} clients"))
            await clients.configure_models()
            proxy.plan = a_storm(random.Random(f"{SEED} faults"), tally)
            await load(clients)
            proxy.plan = lambda request: None
            with suppress(TimeoutError):  # what has not ended by then is found to be lost
                async with asyncio.timeout(PEACE_SECONDS):
                    await clients.all_ended()
        said = clients.statements
        history = History(
            accepted=said.accepted,
            asked=said.asked,
            told=said.told,
            followed=said.followed,
            refused=said.refused,
            written=written,
            runs=read_runs(engine.data_dir / "attempts"),
            leftovers=await living_pods(api_client, jobs_namespace),
            slots=SLOTS,
        )
    tally.update({"jobs": len(history.accepted), "runs": len(history.runs)})
    found = [each for each in violations(history) if each.promise not in NOT_UNDER_FAULTS]
    assert found == [], f"seed {SEED}: {found[:20]}"
    assert errors_in(engine) == []


NOT_UNDER_FAULTS: Final = {"priority"}
"""A job whose start could not be recorded keeps its slot until the next try, and others begin before it."""


@pytest.mark.parametrize("fault", [Drop(), Refuse(429, retry_after=2)], ids=["refused", "busy"])
async def test_an_outage_costs_only_its_time(
    api_client: ApiClient, jobs_namespace: str, proxy: FaultyProxy, open_engine: OpenEngine, fault: Fault
) -> None:
    ticks = round(OUTAGE_SECONDS * 2)
    steps = [{"log": "tick {n}", "times": ticks, "everyMs": 1000}, {"result": "done"}]
    async with open_engine(DEFAULT_MODEL_SLOTS="3") as engine, engine.user() as user:
        running = [await user.submit(*steps) for _ in range(2)]
        for job_id in running:
            await user.wait(job_id, "active")
        waiting = [await user.submit({"result": "done"}) for _ in range(4)]
        before = len(proxy.asked)
        async with proxy.outage(fault):
            await asyncio.sleep(OUTAGE_SECONDS)
            asked = len(proxy.asked) - before
            refusal = await user.post("/api/jobs/submit", {"source": "manual", "type": "any", "prompt": "Hello."})
            assert (refusal.status_code, "Retry-After" in refusal.headers) == (503, True)
        ended = [await end_of(user, job_id) for job_id in running + waiting]
        assert {(job["status"], job["attempts"]) for job in ended} == {("completed", 1)}
        for job_id in running:
            assert await user.log_lines(job_id) == [f"tick {number}" for number in range(1, ticks + 1)]
        assert await pods_by_job(api_client, jobs_namespace) == Counter(dict.fromkeys(running + waiting, 1))
    assert asked < 20 * OUTAGE_SECONDS, "it may not hammer an API server that is in trouble"
    assert engine.log.count("engine ready") == 1
    assert errors_in(engine) == []


async def test_an_engine_that_starts_during_an_outage_waits_for_its_end(
    proxy: FaultyProxy, open_engine: OpenEngine
) -> None:
    async with proxy.outage(Drop()):
        opening = asyncio.create_task(open_and_run_a_job(open_engine))
        refused_so_far = len(proxy.asked)
        async with asyncio.timeout(60):
            while len(proxy.asked) < refused_so_far + 5:
                await asyncio.sleep(0.1)
        assert not opening.done()
    assert await opening == "completed"


async def open_and_run_a_job(open_engine: OpenEngine) -> str:
    async with open_engine() as engine, engine.user() as user:
        status: str = (await user.run({"result": "done"}))["status"]
        return status


def a_storm(chance: random.Random, tally: Counter[str]) -> Callable[[web.BaseRequest], Fault | None]:
    """One request in ten meets a fault that is possible for it."""

    def plan(request: web.BaseRequest) -> Fault | None:
        if chance.random() > FAULTY:
            return None
        tally["faults"] += 1
        if is_watch(request) or is_log(request):
            cuts = [Cut.RESET, Cut.HALF_LINE, Cut.END] + [Cut.NONSENSE, Cut.EXPIRED] * is_watch(request)
            return Refuse(410) if is_watch(request) and chance.random() < 0.1 else Break(chance.choice(cuts), 3)
        faults: list[Fault] = [Refuse(500), Refuse(503), Refuse(429, retry_after=1), Drop()]
        if is_write(request):
            faults += [Lose(), Lose()]
        if request.method == "PUT" or request.path.endswith("/jobs"):
            faults.append(Refuse(409))
        return chance.choice(faults)

    return plan


async def load(clients: Clients) -> None:
    """Let clients come for a while, and stay until each has what it wants."""
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(clients.load(JOBS_PER_SECOND, enough))
        await asyncio.sleep(STORM_SECONDS)
        enough.set()


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


@asynccontextmanager
async def recorded_versions(client: ApiClient, namespace: str) -> AsyncIterator[list[Written]]:
    """Every version of every job that is written while the block runs, by a watch that nothing disturbs.

    What was taken back is left out: a job of which not all could be created, which was therefore never accepted.
    """
    jobs, versions = resource_type(Job), list[Written]()
    path = jobs.path(namespace)
    start = json.loads(await client.request("GET", path, query={"limit": "1"}))["metadata"]["resourceVersion"]

    async def record() -> None:
        async with aclosing(client.lines(path, {"watch": "true", "resourceVersion": start})) as lines:
            async for line in lines:
                event = msgspec.json.decode(line, type=_Event)
                version = written_by(time.time(), jobs.read(event.object))
                if event.type == "DELETED":
                    versions[:] = [each for each in versions if each.job_id != version.job_id]
                else:
                    versions.append(version)

    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(record())
        yield versions
        recording.cancel()


def read_runs(attempts: Path) -> list[Run]:
    """Every attempt that said anything, by its output."""
    runs = [run_of(folder.name, folder / "output.jsonl") for folder in sorted(attempts.glob("*/*"))]
    return [run for run in runs if run]


async def living_pods(client: ApiClient, namespace: str) -> list[str]:
    return [pod.name for pod in await _pods(client, namespace) if not pod.is_over]


async def pods_by_job(client: ApiClient, namespace: str) -> Counter[str]:
    """How many pods each job has had."""
    return Counter(pod.attempt.rpartition("-")[0] for pod in await _pods(client, namespace))


async def _pods(client: ApiClient, namespace: str) -> list[PodObject]:
    pods = JobsApi(client, namespace).all_pods
    return [pods.read(item) async for page in client.pages(pods.path, pods.query) for item in page.items]


async def end_of(user: User, job_id: str) -> dict[str, Any]:
    """The job's detail once it has ended: after an outage, that may take longer than usual."""
    async with asyncio.timeout(PEACE_SECONDS):
        while (detail := await user.job(job_id))["status"] not in ENDED:
            await asyncio.sleep(0.1)
    return detail


def errors_in(engine: LocalEngine) -> list[str]:
    return [line for line in engine.log.splitlines() if '"level": "error"' in line or not line.startswith("{")]

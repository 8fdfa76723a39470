"""Attempts on a real node while the API server fails: no attempt runs twice, and no output is lost."""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.failures import AttemptFailure
from labrats.backends.kubernetes.files import AttemptFiles
from labrats.backends.kubernetes.runner import KubernetesRunner, KubernetesRunnerSettings
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.job import FailedCode
from labrats.model.protocol import LogEvent, ResultEvent, events_in
from labrats.ports import Attempt, Gone, NotStarted
from tests.cluster.proxy import Break, Cut, Fault, FaultyProxy, Lose, Refuse, is_log, is_watch, is_write
from tests.conformance.attempts import end_of, start_with_retries
from tests.conformance.kubernetes_backend import a_pod_settings
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background
from tests.support.builders import an_attempt
from tests.support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.kubernetes(node=True)

STEPS = [{"log": "tick {n}", "times": 10, "everyMs": 100}, {"result": "done"}]
SLOW_STEPS = [{"log": "tick {n}", "times": 10, "everyMs": 400}, {"result": "done"}]
"""Long enough for several interruptions of the log, also on a busy machine."""
TICKS = [f"tick {number}" for number in range(1, 11)]

OpenRunner = Callable[[ApiClient], AbstractAsyncContextManager[KubernetesRunner]]


def is_watch_of_pods(request: web.BaseRequest) -> bool:
    return is_watch(request) and request.path.endswith("/pods")


@pytest.fixture
async def proxy(api_client: ApiClient, tmp_path: Path) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy.open(api_client, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def open_runner(jobs_namespace: str, executor_image: str, tmp_path: Path) -> OpenRunner:
    """Return a function that opens the runner of an engine with this client."""
    settings = KubernetesRunnerSettings(jobs_namespace, tmp_path / "attempts", a_pod_settings(executor_image))

    @asynccontextmanager
    async def open_runner(client: ApiClient) -> AsyncIterator[KubernetesRunner]:
        runner = KubernetesRunner(client, MemoryStore(), settings)
        async with run_in_background(runner.run()):
            yield runner

    return open_runner


@pytest.fixture
async def runner(proxy: FaultyProxy, open_runner: OpenRunner) -> AsyncIterator[KubernetesRunner]:
    """A runner behind the proxy."""
    async with open_runner(proxy.client) as runner:
        yield runner


async def assert_ran_once(runner: KubernetesRunner, attempt: Attempt) -> None:
    """Assert that the attempt succeeded, and that its output is complete and without duplicates."""
    gone = await end_of(runner, attempt)
    assert isinstance(gone.outcome, ResultEvent), gone
    events = [event async for lines in runner.read(attempt.name, follow=False) for event in events_in(lines)]
    assert [event.text for event in events if isinstance(event, LogEvent)] == TICKS
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("fault", [Refuse(500), Refuse(429, retry_after=1), Lose()], ids=["500", "429", "lost"])
async def test_a_start_with_an_unknown_outcome_runs_one_executor(
    runner: KubernetesRunner, proxy: FaultyProxy, fault: Fault
) -> None:
    attempt = an_attempt(STEPS)
    async with proxy.faults(is_write, fault):
        with pytest.raises(RetryLater):
            await runner.start(attempt)
        await start_with_retries(runner, attempt)
    await assert_ran_once(runner, attempt)


@pytest.mark.parametrize("how", [Cut.RESET, Cut.HALF_LINE, Cut.INVALID_JSON, Cut.END])
async def test_an_interrupted_log_is_continued(runner: KubernetesRunner, proxy: FaultyProxy, how: Cut) -> None:
    attempt = an_attempt(SLOW_STEPS)
    async with proxy.faults(is_log, Break(how, 0), Break(how, 3), Break(how, 2)):
        await runner.start(attempt)
        await assert_ran_once(runner, attempt)


async def test_a_lagging_watch_of_pods_loses_no_output(proxy: FaultyProxy, open_runner: OpenRunner) -> None:
    attempt = an_attempt(STEPS)
    async with proxy.faults(is_watch_of_pods, Break(Cut.SILENCE)), open_runner(proxy.client) as runner:
        await runner.start(attempt)
        await assert_ran_once(runner, attempt)


@pytest.mark.parametrize("seed", range(3))
async def test_every_attempt_runs_once_despite_random_faults(
    runner: KubernetesRunner, proxy: FaultyProxy, seed: int
) -> None:
    dice = random.Random(seed)

    answers: list[Fault] = [Refuse(500), Refuse(503), Refuse(429, retry_after=1), Lose()]

    def plan(request: web.BaseRequest) -> Fault | None:
        if dice.random() > 0.1:
            return None
        if is_watch(request) or is_log(request):
            return Break(dice.choice([Cut.RESET, Cut.HALF_LINE, Cut.END]), dice.randrange(6))
        return dice.choice(answers)

    proxy.plan = plan
    attempts = [an_attempt(STEPS) for _ in range(8)]
    for attempt in attempts:
        await start_with_retries(runner, attempt)
    for attempt in attempts:
        await assert_ran_once(runner, attempt)


async def test_kill_with_lost_answers_ends_the_attempt(runner: KubernetesRunner, proxy: FaultyProxy) -> None:
    attempt, unstarted = an_attempt([{"log": "here"}, {"hang": True}]), an_attempt()
    await runner.start(attempt)
    for each in (attempt, unstarted):
        async with proxy.faults(is_write, Lose()):
            with suppress(RetryLater):  # aiohttp repeats a DELETE without an answer
                await runner.kill(each.name)
        await runner.kill(each.name)
        assert isinstance(await runner.find(each.name), Gone)


async def test_attempts_removed_before_their_start_leave_nothing(runner: KubernetesRunner, tmp_path: Path) -> None:
    for name in [an_attempt().name for _ in range(20)]:
        await runner.kill(name)
        await runner.remove(name)
    await runner.kill(an_attempt().name)  # afterwards, all changes of the earlier attempts were observed
    [last] = [path for path in (tmp_path / "attempts").rglob("*") if path.is_file()]
    assert last.name == "ending.json"


async def test_the_ending_of_a_removed_attempt_is_not_written(
    runner: KubernetesRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ending is written twice: by the kill, and by the supervisor, which here comes after the removal."""
    record_ending, turn, second_came = AttemptFiles.record_ending, itertools.count(), threading.Event()

    def record_in_turn(files: AttemptFiles, failure: AttemptFailure) -> None:
        if next(turn) == 0:
            assert second_came.wait(DEADLINE_SECONDS)
        else:
            second_came.set()
            time.sleep(0.5)
        record_ending(files, failure)

    monkeypatch.setattr(AttemptFiles, "record_ending", record_in_turn)
    name = an_attempt().name
    await runner.kill(name)
    await runner.remove(name)
    await asyncio.sleep(1)
    assert [path for path in (tmp_path / "attempts").rglob("*") if path.is_file()] == []


async def test_a_foreign_job_is_neither_adopted_nor_changed(
    runner: KubernetesRunner, api_client: ApiClient, jobs_namespace: str
) -> None:
    attempt = an_attempt()
    pod = {"restartPolicy": "Never", "containers": [{"name": "foreign", "image": "none"}]}
    foreign = {"metadata": {"name": str(attempt.name)}, "spec": {"suspend": True, "template": {"spec": pod}}}
    api = BatchClient(api_client, jobs_namespace)
    before = await api.create_job(foreign)

    with pytest.raises(GiveUp, match="that Labrats did not create") as refusal:
        await runner.start(attempt)
    assert FailedCode(refusal.value.code) is FailedCode.INTERNAL
    assert await runner.find(attempt.name) == NotStarted()
    await runner.kill(attempt.name)
    assert isinstance(await runner.find(attempt.name), Gone)
    assert (await api.get_job(attempt.name)).spec == before.spec


async def test_an_attempt_deleted_while_no_engine_ran_is_lost_and_not_started_again(
    api_client: ApiClient, jobs_namespace: str, open_runner: OpenRunner
) -> None:
    attempt = an_attempt([{"log": "here"}, {"hang": True}])
    async with open_runner(api_client) as first:
        await first.start(attempt)
    api = BatchClient(api_client, jobs_namespace)
    await api.delete_job(await api.get_job(attempt.name))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await api.pods_of(str(attempt.name)):
            await asyncio.sleep(0.1)

    async with open_runner(api_client) as second:
        assert (await end_of(second, attempt)).code is FailedCode.LOST
        await second.start(attempt)
        assert isinstance(await second.find(attempt.name), Gone)
    assert await api.pods_of(str(attempt.name)) == []

"""Attempts with two pods: the Job controller starts a second one after the answer to its first request was lost."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import PodObject
from labrats.backends.kubernetes.claims import Claims, claim_path
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.restricted_pod import RESTRICTED_CONTAINER, RESTRICTED_POD, USER
from labrats.backends.kubernetes.runner import KubernetesRunner, KubernetesRunnerSettings
from labrats.model.attempt_name import AttemptName
from labrats.model.job import FailedCode
from labrats.model.protocol import LogEvent, ResultEvent
from labrats.model.record import encode
from labrats.ports import Attempt, Gone
from tests.cluster.cluster import Cluster
from tests.cluster.proxy import FaultyProxy, Lose, is_watch
from tests.cluster.volumes import bind_volume
from tests.conformance.attempts import events_of
from tests.conformance.kubernetes_backend import a_pod_settings
from tests.fakes.store import MemoryStore
from tests.kubernetes.test_attempt_failures import end_of
from tests.support.background import run_in_background
from tests.support.builders import an_attempt

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.timeout(400)]

PATIENCE_SECONDS = 90.0
STEPS = [{"log": "tick {n}", "times": 5, "everyMs": 200}, {"result": "done"}]

OpenRunner = Callable[..., AbstractAsyncContextManager[KubernetesRunner]]


@pytest.fixture
async def proxy(
    cluster: Cluster | None, api_client: ApiClient, jobs_namespace: str, tmp_path: Path
) -> AsyncIterator[FaultyProxy]:
    """A proxy between the cluster's running controllers and its API server."""
    if cluster is None:
        pytest.skip("needs the tests' own cluster, whose controllers can be restarted")
    async with FaultyProxy.open(api_client, tmp_path, cluster.listen()) as proxy:
        with cluster.controllers_behind(proxy.kubeconfig):
            await until_controllers_work(BatchClient(api_client, jobs_namespace))
            yield proxy


async def until_controllers_work(api: BatchClient) -> None:
    """Wait until a new Job has a pod: the controllers then know all existing pods."""
    pod = {**RESTRICTED_POD, "containers": [{**RESTRICTED_CONTAINER, "name": "none", "image": "none"}]}
    probe = await api.create_job({"metadata": {"name": "probe"}, "spec": {"template": {"spec": pod}}})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await api.pods_of("probe"):
            await asyncio.sleep(0.05)
    await api.delete_job(probe)


@dataclass
class PodObserver:
    """The observed states of an attempt's pods, with those of deleted ones."""

    api: BatchClient
    name: AttemptName
    pods: dict[str, PodObject] = field(default_factory=dict)

    async def observe(self) -> None:
        """Poll the pods until cancelled."""
        while True:
            for pod in await self.api.pods_of(str(self.name)):
                known = self.pods.get(pod.name)
                if known is None or pod.metadata.is_newer_than(known.metadata):
                    self.pods[pod.name] = pod
            await asyncio.sleep(0.05)

    @property
    def acting(self) -> list[str]:
        return [pod.name for pod in self.pods.values() if pod.has_acted]

    @property
    def refused(self) -> list[str]:
        return [pod.name for pod in self.pods.values() if pod.was_refused]


@pytest.fixture
async def volume(api_client: ApiClient, jobs_namespace: str, tmp_path: Path) -> Path:
    """The folder of a volume that the engine and the pods share. Its claim is `data`."""
    folder = tmp_path / "volume"
    folder.mkdir()
    await bind_volume(api_client, jobs_namespace, "data", str(folder))
    return folder


@pytest.fixture
def open_runner(api_client: ApiClient, jobs_namespace: str, executor_image: str, tmp_path: Path) -> OpenRunner:
    """Return a function that opens a runner with these fields of PodSettings, and its files in `tmp_path`/volume."""

    @asynccontextmanager
    async def open_runner(**fields: Any) -> AsyncIterator[KubernetesRunner]:
        pods = a_pod_settings(executor_image, **fields)
        settings = KubernetesRunnerSettings(jobs_namespace, tmp_path / "volume" / "attempts", pods)
        runner = KubernetesRunner(api_client, MemoryStore(), settings)
        async with run_in_background(runner.run()):
            yield runner

    return open_runner


@asynccontextmanager
async def doubled(
    runner: KubernetesRunner, proxy: FaultyProxy, observer: PodObserver, attempt: Attempt
) -> AsyncIterator[asyncio.Event]:
    """Start the attempt and wait until it has two pods. The Job controller sees neither before the event is set."""
    released = asyncio.Event()
    losses: list[Lose] = [Lose()]
    proxy.withheld = lambda request: released if is_watch(request) and request.path.endswith("/pods") else None
    proxy.plan = lambda request: losses.pop() if losses and is_creation_of_a_pod(request, observer.api) else None
    async with run_in_background(observer.observe()):
        await runner.start(attempt)
        await until(lambda: len(observer.pods) == 2)
        yield released


def is_creation_of_a_pod(request: web.BaseRequest, api: BatchClient) -> bool:
    return request.method == "POST" and request.path == api.all_pods.path


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.05)


def allow_claims(volume: Path, attempt: Attempt) -> None:
    """Give the attempt's claim folder to the user of the pods, as which an installed engine runs, too."""
    Claims(volume / "claims").prepare(attempt.name)
    os.chown(volume / claim_path(attempt.name), USER, USER)


@pytest.mark.parametrize("noticed", ["when one acts", "when the other has been refused"])
async def test_one_of_two_pods_runs_the_attempt_and_provides_its_result(
    open_runner: OpenRunner,
    proxy: FaultyProxy,
    api_client: ApiClient,
    jobs_namespace: str,
    volume: Path,
    noticed: str,
) -> None:
    attempt = an_attempt(STEPS)
    observer = PodObserver(BatchClient(api_client, jobs_namespace), attempt.name)
    allow_claims(volume, attempt)
    async with open_runner(data_claim="data") as runner, doubled(runner, proxy, observer, attempt) as released:
        await until(lambda: bool(observer.acting and (noticed == "when one acts" or observer.refused)))
        released.set()
        gone = await end_of(runner, attempt.name)
        place = await runner.place(attempt.name)
        events = await events_of(runner, attempt)

    assert isinstance(gone.outcome, ResultEvent), gone
    assert observer.acting == [place.pod_name] == [Claims(volume / "claims").holder(attempt.name)]
    assert [event.text for event in events if isinstance(event, LogEvent)] == [f"tick {n}" for n in range(1, 6)]


async def test_an_attempt_whose_pod_is_deleted_is_lost_and_no_other_pod_takes_over(
    open_runner: OpenRunner, proxy: FaultyProxy, api_client: ApiClient, jobs_namespace: str, volume: Path
) -> None:
    attempt = an_attempt([{"hang": True}])
    observer = PodObserver(BatchClient(api_client, jobs_namespace), attempt.name)
    allow_claims(volume, attempt)
    async with open_runner(data_claim="data") as runner, doubled(runner, proxy, observer, attempt) as released:
        await until(lambda: bool(observer.acting and observer.refused))
        await delete_as_surplus(observer.api, observer.pods[observer.acting[0]])
        released.set()
        gone = await end_of(runner, attempt.name)

    assert gone.code is FailedCode.LOST
    assert gone.reason == f"the pod {observer.acting[0]} was deleted while the attempt ran in it"
    assert len(observer.acting) == 1


async def delete_as_surplus(api: BatchClient, pod: PodObject) -> None:
    """Delete a pod as the Job controller deletes a surplus one: without counting it as a failure of the Job."""
    path = f"{api.all_pods.path}/{pod.name}"
    patch = [{"op": "remove", "path": "/metadata/finalizers"}]
    await api.client.request("PATCH", path, encode(patch), content_type="application/json-patch+json")
    await api.kill_pod(pod)


async def test_without_a_volume_two_acting_pods_are_both_ended_and_the_attempt_is_lost(
    open_runner: OpenRunner, proxy: FaultyProxy, api_client: ApiClient, jobs_namespace: str
) -> None:
    attempt = an_attempt([{"log": "here"}, {"hang": True}])
    observer = PodObserver(BatchClient(api_client, jobs_namespace), attempt.name)
    async with open_runner() as runner, doubled(runner, proxy, observer, attempt) as released:
        await until(lambda: len(observer.acting) == 2)
        released.set()
        gone = await end_of(runner, attempt.name)

    assert isinstance(gone, Gone)
    assert (gone.outcome, gone.code) == (None, FailedCode.LOST)
    assert all(name in gone.reason for name in observer.acting)
    assert "LABRATS_DATA_CLAIM" in gone.reason

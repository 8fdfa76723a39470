"""An attempt of which the Job controller starts two pods, since the answer to its first request was lost."""

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
from labrats.backends.kubernetes.pod import RESTRICTED_CONTAINER, RESTRICTED_POD, USER
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
    """A proxy between the cluster's controllers, which are at work, and its API server."""
    if cluster is None:
        pytest.skip("the controllers of a cluster that was given to the tests are not theirs to restart")
    async with FaultyProxy.open(api_client, tmp_path, cluster.listen()) as proxy:
        with cluster.controllers_behind(proxy.kubeconfig):
            await until_controllers_work(BatchClient(api_client, jobs_namespace))
            yield proxy


async def until_controllers_work(api: BatchClient) -> None:
    """Wait until a Job has a pod: the controllers then know all pods that there are."""
    pod = {**RESTRICTED_POD, "containers": [{**RESTRICTED_CONTAINER, "name": "none", "image": "none"}]}
    probe = await api.create_job({"metadata": {"name": "probe"}, "spec": {"template": {"spec": pod}}})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await api.pods_of("probe"):
            await asyncio.sleep(0.05)
    await api.delete_job(probe)


@dataclass
class Witness:
    """The states seen of an attempt's pods, also of deleted ones."""

    api: BatchClient
    name: AttemptName
    pods: dict[str, PodObject] = field(default_factory=dict)

    async def look(self) -> None:
        """Look until cancelled."""
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
    """The folder of a volume that both the engine and the pods have; its claim is called `data`."""
    folder = tmp_path / "volume"
    folder.mkdir()
    await bind_volume(api_client, jobs_namespace, "data", str(folder))
    return folder


@pytest.fixture
def open_runner(api_client: ApiClient, jobs_namespace: str, executor_image: str, tmp_path: Path) -> OpenRunner:
    """A runner with these fields of PodSettings, which keeps what it knows below `tmp_path`/volume."""

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
    runner: KubernetesRunner, proxy: FaultyProxy, witness: Witness, attempt: Attempt
) -> AsyncIterator[asyncio.Event]:
    """The attempt, once it has two pods. The Job controller sees neither before the event is set."""
    seen = asyncio.Event()
    lost: list[Lose] = [Lose()]
    proxy.withheld = lambda request: seen if is_watch(request) and request.path.endswith("/pods") else None
    proxy.plan = lambda request: lost.pop() if lost and is_creation_of_a_pod(request, witness.api) else None
    async with run_in_background(witness.look()):
        await runner.start(attempt)
        await until(lambda: len(witness.pods) == 2)
        yield seen


def is_creation_of_a_pod(request: web.BaseRequest, api: BatchClient) -> bool:
    return request.method == "POST" and request.path == api.all_pods.path


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.05)


def allow_claims(volume: Path, attempt: Attempt) -> None:
    """Give the attempt's claims to the pods' user, as whom the engine of an installation runs too."""
    Claims(volume / "claims").prepare(attempt.name)
    os.chown(volume / claim_path(attempt.name), USER, USER)


@pytest.mark.parametrize("noticed", ["when one acts", "when the other has been refused"])
async def test_one_of_two_pods_acts_and_its_result_is_the_attempts(
    open_runner: OpenRunner,
    proxy: FaultyProxy,
    api_client: ApiClient,
    jobs_namespace: str,
    volume: Path,
    noticed: str,
) -> None:
    attempt = an_attempt(STEPS)
    witness = Witness(BatchClient(api_client, jobs_namespace), attempt.name)
    allow_claims(volume, attempt)
    async with open_runner(data_claim="data") as runner, doubled(runner, proxy, witness, attempt) as seen:
        await until(lambda: bool(witness.acting and (noticed == "when one acts" or witness.refused)))
        seen.set()
        gone = await end_of(runner, attempt.name)
        place = await runner.place(attempt.name)
        events = await events_of(runner, attempt)

    assert isinstance(gone.outcome, ResultEvent), gone
    assert witness.acting == [place.pod_name] == [Claims(volume / "claims").holder(attempt.name)]
    assert [event.text for event in events if isinstance(event, LogEvent)] == [f"tick {n}" for n in range(1, 6)]


async def test_an_attempt_whose_pod_is_taken_from_it_is_lost_and_no_other_pod_takes_it_over(
    open_runner: OpenRunner, proxy: FaultyProxy, api_client: ApiClient, jobs_namespace: str, volume: Path
) -> None:
    attempt = an_attempt([{"hang": True}])
    witness = Witness(BatchClient(api_client, jobs_namespace), attempt.name)
    allow_claims(volume, attempt)
    async with open_runner(data_claim="data") as runner, doubled(runner, proxy, witness, attempt) as seen:
        await until(lambda: bool(witness.acting and witness.refused))
        await delete_as_surplus(witness.api, witness.pods[witness.acting[0]])
        seen.set()
        gone = await end_of(runner, attempt.name)

    assert gone.code is FailedCode.LOST
    assert gone.reason == f"the pod {witness.acting[0]} was deleted while the attempt ran in it"
    assert len(witness.acting) == 1


async def delete_as_surplus(api: BatchClient, pod: PodObject) -> None:
    """Delete it as the Job controller does with a pod too many, which then counts as no failure of the Job."""
    path = f"{api.all_pods.path}/{pod.name}"
    patch = [{"op": "remove", "path": "/metadata/finalizers"}]
    await api.client.request("PATCH", path, encode(patch), content_type="application/json-patch+json")
    await api.kill_pod(pod)


async def test_without_a_volume_two_pods_that_act_are_both_ended_and_the_attempt_says_why(
    open_runner: OpenRunner, proxy: FaultyProxy, api_client: ApiClient, jobs_namespace: str
) -> None:
    attempt = an_attempt([{"log": "here"}, {"hang": True}])
    witness = Witness(BatchClient(api_client, jobs_namespace), attempt.name)
    async with open_runner() as runner, doubled(runner, proxy, witness, attempt) as seen:
        await until(lambda: len(witness.acting) == 2)
        seen.set()
        gone = await end_of(runner, attempt.name)

    assert isinstance(gone, Gone)
    assert (gone.outcome, gone.code) == (None, FailedCode.LOST)
    assert all(name in gone.reason for name in witness.acting)
    assert "LABRATS_DATA_CLAIM" in gone.reason

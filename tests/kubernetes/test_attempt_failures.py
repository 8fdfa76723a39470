"""Failures of attempts that Kubernetes ends or never starts, on a real node: the code and the reason of each."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labrats.backends.kubernetes.client import ApiClient, ApiServerRefusal
from labrats.backends.kubernetes.runner import KubernetesRunner, KubernetesRunnerSettings
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import GiveUp, NotFound, RetryLater
from labrats.model.job import FailedCode, KeyReference
from labrats.model.phases import Phase
from labrats.model.protocol import LogEvent, events_in
from labrats.model.record import encode
from labrats.ports import Alive, Attempt, Gone
from tests.conformance.kubernetes_backend import a_pod_settings
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background
from tests.support.builders import a_job, a_spec, an_attempt

pytestmark = pytest.mark.kubernetes(node=True)

PATIENCE_SECONDS = 90.0

OpenRunner = Callable[..., AbstractAsyncContextManager[KubernetesRunner]]


@pytest.fixture
def open_runner(api_client: ApiClient, jobs_namespace: str, executor_image: str, tmp_path: Path) -> OpenRunner:
    """A runner with these fields of PodSettings."""

    @asynccontextmanager
    async def open_runner(**fields: Any) -> AsyncIterator[KubernetesRunner]:
        pods = a_pod_settings(executor_image, **fields)
        settings = KubernetesRunnerSettings(
            jobs_namespace,
            tmp_path / "attempts",
            pods,
            kill_seconds=1.0,
            parts_seconds=3.0,
            pending_request_seconds=1.0,
        )
        runner = KubernetesRunner(api_client, MemoryStore(), settings)
        async with run_in_background(runner.run()):
            yield runner

    return open_runner


async def end_of(runner: KubernetesRunner, name: AttemptName) -> Gone:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not isinstance(state := await runner.find(name), Gone):
            await asyncio.sleep(0.05)
    return state


async def failure_of(open_runner: OpenRunner, steps: list[Any] | None = None, **fields: Any) -> tuple[FailedCode, str]:
    """Run an attempt in a pod with these settings, and return the code and reason of its failure."""
    attempt = an_attempt(steps)
    async with open_runner(**fields) as runner:
        await runner.start(attempt)
        gone = await end_of(runner, attempt.name)
    assert gone.outcome is None
    return gone.code, gone.reason


async def test_an_image_that_cannot_be_pulled_fails_with_image_pull(open_runner: OpenRunner) -> None:
    image = "docker.io/labrats/there-is-no-such:1"
    code, reason = await failure_of(open_runner, image=image, start_timeout_seconds=3.0)

    assert code is FailedCode.IMAGE_PULL
    assert image in reason


async def test_an_invalid_image_name_fails_at_once(open_runner: OpenRunner) -> None:
    code, reason = await failure_of(open_runner, image="NO IMAGE", start_timeout_seconds=3600.0)

    assert code is FailedCode.IMAGE_PULL
    assert "NO IMAGE" in reason


async def test_a_pod_without_a_suitable_node_fails_with_unschedulable(open_runner: OpenRunner) -> None:
    nowhere = {"nodeSelector": {"kubernetes.io/hostname": "nowhere"}}
    code, reason = await failure_of(open_runner, pod_fields=nowhere, start_timeout_seconds=3.0)

    assert code is FailedCode.UNSCHEDULABLE
    assert "0/1 nodes are available" in reason


async def test_a_pod_that_waits_for_another_reason_fails_with_start_timeout(open_runner: OpenRunner) -> None:
    fields = {"dnsPolicy": "Default", "runtimeClassName": "none-such"}
    code, reason = await failure_of(open_runner, pod_fields=fields, start_timeout_seconds=3.0)

    assert code is FailedCode.START_TIMEOUT
    assert "did not start within 3 s" in reason


async def test_a_missing_prompt_fails_with_internal(open_runner: OpenRunner) -> None:
    spec = a_spec(prompt=None, prompt_ref=KeyReference(name="none", key="prompt"))
    attempt = Attempt(a_job(Phase.RUNNING, spec=spec, created_at=datetime.now(UTC)))
    async with open_runner(start_timeout_seconds=3600.0) as runner:
        await runner.start(attempt)
        gone = await end_of(runner, attempt.name)

    assert (gone.outcome, gone.code) == (None, FailedCode.INTERNAL)
    assert gone.reason == "the job's prompt is missing: there is no ConfigMap 'none'"


async def test_an_attempt_above_its_memory_limit_fails_with_out_of_memory(open_runner: OpenRunner) -> None:
    code, reason = await failure_of(open_runner, resources={"limits": {"memory": "10Mi"}})

    assert code is FailedCode.OUT_OF_MEMORY
    assert "10Mi" in reason


async def test_an_evicted_attempt_fails_with_evicted(
    open_runner: OpenRunner, api_client: ApiClient, jobs_namespace: str
) -> None:
    attempt = an_attempt([{"log": "here"}, {"hang": True}])
    async with open_runner() as runner:
        await runner.start(attempt)
        pod = await running_pod_of(runner, attempt.name)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{jobs_namespace}/pods/{pod}/eviction"
        await api_client.request("POST", path, encode(eviction))  # as `kubectl drain` does
        gone = await end_of(runner, attempt.name)

    assert (gone.outcome, gone.code) == (None, FailedCode.EVICTED)
    assert gone.tail.logs == ("here",)


async def test_requests_above_the_limits_are_invalid(open_runner: OpenRunner) -> None:
    resources = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
    async with open_runner(resources=resources) as runner:
        with pytest.raises(GiveUp, match="must be less than or equal to cpu limit") as refused:
            await runner.start(an_attempt())

    assert FailedCode(refused.value.code) is FailedCode.INVALID


@asynccontextmanager
async def a_quota(client: ApiClient, namespace: str) -> AsyncIterator[str]:
    """Forbid Jobs by a quota (403), and yield a part of the error message."""
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    quota = {"metadata": {"name": "no-jobs"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    await client.request("POST", quotas, encode(quota))
    await until_refused(client, namespace)
    yield "exceeded quota: no-jobs"
    await client.request("DELETE", f"{quotas}/no-jobs")


@asynccontextmanager
async def a_policy(client: ApiClient, namespace: str) -> AsyncIterator[str]:
    """Forbid Jobs by a policy (422), and yield a part of the error message."""
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"], "operations": ["CREATE"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    validations = [{"expression": "false", "message": "no Jobs here"}]
    policy = {"matchConstraints": {"resourceRules": [rule], "namespaceSelector": here}, "validations": validations}
    binding = {"policyName": namespace, "validationActions": ["Deny"]}
    specs = {"validatingadmissionpolicies": policy, "validatingadmissionpolicybindings": binding}
    api = "/apis/admissionregistration.k8s.io/v1"
    for kind, spec in specs.items():
        await client.request("POST", f"{api}/{kind}", encode({"metadata": {"name": namespace}, "spec": spec}))
    await until_refused(client, namespace)
    yield "no Jobs here"
    for kind in specs:
        await client.request("DELETE", f"{api}/{kind}/{namespace}")


async def until_refused(client: ApiClient, namespace: str) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}
    job = encode({"metadata": {"generateName": "probe-"}, "spec": {"template": {"spec": pod}}})
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ApiServerRefusal):
            while True:
                await client.request(
                    "POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", job, query={"dryRun": "All"}
                )
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("refusal", [a_quota, a_policy])
async def test_a_refused_job_is_retried_until_the_start_timeout(
    open_runner: OpenRunner, api_client: ApiClient, jobs_namespace: str, refusal: Callable[..., Any]
) -> None:
    attempt = Attempt(a_job(Phase.RUNNING, created_at=datetime.now(UTC)))
    async with open_runner(start_timeout_seconds=2.0) as runner:
        async with refusal(api_client, jobs_namespace) as words:
            with pytest.raises(RetryLater, match=words):  # temporary
                await runner.start(attempt)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not isinstance(gone := await runner.find(attempt.name), Gone):
                    with suppress(RetryLater):
                        await runner.start(attempt)
        await runner.start(attempt)
        assert await runner.find(attempt.name) == gone
        with pytest.raises(NotFound):
            await api_client.request("GET", f"/apis/batch/v1/namespaces/{jobs_namespace}/jobs/{attempt.name}")

    assert gone.code is FailedCode.START_TIMEOUT
    assert words in gone.reason


@pytest.mark.parametrize("refusal", [a_quota, a_policy])
async def test_an_attempt_can_be_killed_although_its_placeholder_is_refused(
    open_runner: OpenRunner, api_client: ApiClient, jobs_namespace: str, refusal: Callable[..., Any]
) -> None:
    attempt = an_attempt()
    async with open_runner() as runner, refusal(api_client, jobs_namespace) as words:
        with pytest.raises(RetryLater, match=words):  # an earlier request may still create the Job
            await runner.kill(attempt.name)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not isinstance(gone := await runner.find(attempt.name), Gone):
                with suppress(RetryLater):
                    await runner.kill(attempt.name)

    assert gone.code is FailedCode.START_TIMEOUT
    assert words in gone.reason


async def running_pod_of(runner: KubernetesRunner, name: AttemptName) -> str:
    """Wait until the executor has logged something, and return the attempt's pod."""
    async with asyncio.timeout(PATIENCE_SECONDS), aclosing(runner.read(name, follow=True)) as batches:
        async for lines in batches:
            if any(isinstance(event, LogEvent) for event in events_in(lines)):
                break
    state = await runner.find(name)
    assert isinstance(state, Alive)
    assert state.pod_name
    return state.pod_name

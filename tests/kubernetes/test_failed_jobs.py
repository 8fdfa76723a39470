"""A job that fails says of what: to its caller, in its condition and in an Event, by the same code and sentence."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.model.errors import Invalid
from labrats.model.job import Job
from labrats.model.record import encode
from tests.acceptance.engine import LocalEngine, User
from tests.kubernetes.conftest import EngineFactory
from tests.support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.kubernetes(node=True)

NO_IMAGE = "docker.io/labrats/there-is-no-such:1"
HANG = [{"log": "here"}, {"hang": True}]
NOWHERE = {"kubernetes.io/hostname": "nowhere"}
SOON = {"LABRATS_START_TIMEOUT_SECONDS": "3"}
REPORT_SECONDS = 25
"""A node reports what it cannot pull when it looks at the pod again: after the step before, up to 15 s later."""

LATE = {"LABRATS_START_TIMEOUT_SECONDS": str(REPORT_SECONDS)}


@dataclass(frozen=True)
class Bystander:
    """The test's namespace, as somebody with kubectl sees it."""

    client: ApiClient
    namespace: str

    async def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.client.request("GET", path))
        return found

    async def condition(self, job_id: str, kind: str) -> dict[str, Any]:
        job = await self.get(resource_type(Job).path(self.namespace, job_id))
        return next(each for each in job["status"]["conditions"] if each["type"] == kind)

    async def events(self, job_id: str) -> list[str]:
        """What was told of the job, once something was: nobody waits for that."""
        path, notes = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events", list[str]()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not notes:
                found = (await self.get(path))["items"]
                notes = [each["note"] for each in found if each["regarding"]["name"] == job_id]
        return notes

    async def create_request(self, name: str, **metadata: Any) -> None:
        """Create an InferenceRequest by hand."""
        job = {
            "apiVersion": resource_type(Job).api_version,
            "kind": Job.kind(),
            "metadata": {"name": name} | metadata,
            "spec": {"source": "manual", "type": "greeting", "prompt": "Say hello.", "config": {"provider": "mock"}},
        }
        await self.client.request("POST", resource_type(Job).path(self.namespace), encode(job))

    async def create_foreign_job(self, name: str) -> None:
        """Create a foreign Job that never starts a pod."""
        pod = {"containers": [{"name": "other", "image": NO_IMAGE}], "restartPolicy": "Never"}
        job = {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}}
        await self.client.request("POST", self.jobs, encode(job))

    async def evict(self, pod: str) -> None:
        """As `kubectl drain` does."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        await self.client.request("POST", path, encode(eviction))

    async def delete_job(self, name: str) -> None:
        await self.client.request("DELETE", f"{self.jobs}/{name}", encode({"propagationPolicy": "Background"}))

    @property
    def jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"


@pytest.fixture
def bystander(api_client: ApiClient, jobs_namespace: str) -> Bystander:
    return Bystander(api_client, jobs_namespace)


async def evicted(bystander: Bystander, detail: dict[str, Any]) -> None:
    await bystander.evict(detail["executorPodName"])


async def deleted(bystander: Bystander, detail: dict[str, Any]) -> None:
    await bystander.delete_job(detail["k8sJobName"])


@dataclass(frozen=True)
class Case:
    """A job that fails. words: in its sentence. engine: its settings. disturb: what is done to the job once it runs."""

    code: str
    words: str
    steps: list[Any] = field(default_factory=lambda: HANG)
    config: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, str] = field(default_factory=dict)
    disturb: Callable[[Bystander, dict[str, Any]], Awaitable[None]] | None = None


def pods(**fields: Any) -> dict[str, str]:
    return {"LABRATS_EXECUTOR_POD": json.dumps({"dnsPolicy": "Default"} | fields)}


CASES = [
    Case("image_pull", NO_IMAGE, config={"executorImage": NO_IMAGE}, engine=LATE),
    Case("image_pull", NO_IMAGE, config={"executorImage": NO_IMAGE, "timeoutMs": REPORT_SECONDS * 1000}),
    Case("unschedulable", "no node can take", config={"timeoutMs": 3000}, engine=pods(nodeSelector=NOWHERE)),
    Case("unschedulable", "no node can take", engine=SOON | pods(nodeSelector=NOWHERE)),
    Case("start_timeout", "did not start within 3 s", engine=SOON | pods(runtimeClassName="none-such")),
    Case("out_of_memory", "10Mi", engine={"LABRATS_EXECUTOR_RESOURCES": json.dumps({"limits": {"memory": "10Mi"}})}),
    Case("timeout", "1 s", config={"timeoutMs": 1000}),
    Case("executor_died", "exited with code 3", steps=[{"exit": 3}]),
    Case("agent_error", "as asked", steps=[{"fail": "as asked"}]),
    Case("evicted", "evicted from node-1", disturb=evicted),
    Case("lost", "were deleted while the attempt ran", disturb=deleted),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
async def test_each_failure_is_told_by_its_code_and_one_sentence(
    start_engine: EngineFactory, bystander: Bystander, case: Case
) -> None:
    async with start_engine(**case.engine).user() as user:
        job_id = await user.submit(*case.steps, config=case.config)
        if case.disturb:
            await case.disturb(bystander, await until_it_says(user, job_id, "here"))
        detail = await user.wait(job_id)

    assert (detail["status"], detail["failedCode"], detail["attempts"]) == ("failed", case.code, 1)
    assert case.words in detail["failedReason"]
    condition = await bystander.condition(job_id, "Finished")
    assert condition["status"] == "True"
    assert condition["reason"] == "".join(word.title() for word in case.code.split("_"))
    assert condition["message"] == detail["failedReason"]
    assert await bystander.events(job_id) == [f"{case.code}: {detail['failedReason']}"]


async def test_credentials_that_are_nowhere_are_named(start_engine: EngineFactory, bystander: Bystander) -> None:
    async with start_engine().admin() as admin:
        model = {"name": "poor", "provider": "mock", "model": "poor", "slots": 1, "credentialsRef": "there-is-none"}
        assert (await admin.post("/api/ai-models", model)).status_code == 201
        detail = await admin.run(config={"model": "poor"})

    assert detail["failedCode"] == "auth"
    assert detail["failedReason"] == "the credentials of AiModel poor are missing: there is no Secret 'there-is-none'"
    assert (await bystander.condition(detail["id"], "Finished"))["reason"] == "Auth"


async def test_a_foreign_job_of_an_attempts_name_is_left_alone(engine: LocalEngine, bystander: Bystander) -> None:
    """Somebody else's Job may have the name already. It is no attempt of ours, and stays as it is."""
    await bystander.create_foreign_job("by-hand-1")
    before = await bystander.get(f"{bystander.jobs}/by-hand-1")
    await bystander.create_request("by-hand")
    async with engine.admin() as admin:
        detail = await admin.wait("by-hand")
        assert (await admin.run())["status"] == "completed"

    assert (detail["status"], detail["failedCode"]) == ("failed", "internal")
    assert detail["failedReason"] == "the cluster has a Job 'by-hand-1' that Labrats did not create"
    assert (await bystander.get(f"{bystander.jobs}/by-hand-1"))["spec"] == before["spec"]


async def test_as_many_annotations_as_a_resource_can_have_change_nothing(
    engine: LocalEngine, bystander: Bystander
) -> None:
    """The API server takes no more than 256 KiB of them."""
    with pytest.raises(Invalid, match="Too long: may not be more than 262144 bytes"):
        await bystander.create_request("too-many", annotations={f"note-{n}": "x" * 1000 for n in range(1000)})
    await bystander.create_request("many", annotations={f"note-{n}": "x" * 1000 for n in range(250)})
    async with engine.admin() as admin:
        detail = await admin.wait("many")

    assert detail["status"] == "completed"


async def until_it_says(user: User, job_id: str, line: str) -> dict[str, Any]:
    """The job's detail once it has said `line`."""
    async with user.log_stream(job_id) as events:
        assert (await anext(events)).data == {"log": line}
    return await user.job(job_id)

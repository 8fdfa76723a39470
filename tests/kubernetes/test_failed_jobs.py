"""A failed job has the same code and reason in the API, in its condition and in an Event."""

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
from tests.kubernetes.engine import SOON_WITHOUT_PARTS
from tests.support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.kubernetes(node=True)

NO_IMAGE = "docker.io/labrats/there-is-no-such:1"
HANG = [{"log": "here"}, {"hang": True}]
NOWHERE = {"kubernetes.io/hostname": "nowhere"}
SOON = {"LABRATS_START_TIMEOUT_SECONDS": "3"}
REPORT_SECONDS = 25
"""Time for a node to report an image that it cannot pull: up to 15 s after the step before the executor."""


@dataclass(frozen=True)
class Person:
    """A person with kubectl, in the test's namespace."""

    client: ApiClient
    namespace: str

    async def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.client.request("GET", path))
        return found

    async def condition(self, job_id: str, kind: str) -> dict[str, Any]:
        job = await self.get(resource_type(Job).path(self.namespace, job_id))
        return next(each for each in job["status"]["conditions"] if each["type"] == kind)

    async def events(self, job_id: str) -> list[str]:
        """Wait for Events of the job and return their notes. The engine writes Events in the background."""
        path, notes = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events", list[str]()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not notes:
                found = (await self.get(path))["items"]
                notes = [each["note"] for each in found if each["regarding"]["name"] == job_id]
        return notes

    async def create_request(self, name: str, **metadata: Any) -> None:
        """Create an InferenceRequest as with kubectl."""
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
        """Evict a pod as `kubectl drain` does."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        await self.client.request("POST", path, encode(eviction))

    async def delete_job(self, name: str) -> None:
        await self.client.request("DELETE", f"{self.jobs}/{name}", encode({"propagationPolicy": "Background"}))

    @property
    def jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"


@pytest.fixture
def person(api_client: ApiClient, jobs_namespace: str) -> Person:
    return Person(api_client, jobs_namespace)


async def evicted(person: Person, detail: dict[str, Any]) -> None:
    await person.evict(detail["executorPodName"])


async def deleted(person: Person, detail: dict[str, Any]) -> None:
    await person.delete_job(detail["k8sJobName"])


@dataclass(frozen=True)
class Case:
    """A failing job. words: part of the reason. disturb: called once the job runs."""

    code: str
    words: str
    steps: list[Any] = field(default_factory=lambda: HANG)
    config: dict[str, Any] = field(default_factory=dict)
    disturb: Callable[[Person, dict[str, Any]], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Group:
    """Failing jobs that run at once on an engine with the same settings."""

    name: str
    engine: dict[str, str]
    cases: list[Case]


def pods(**fields: Any) -> dict[str, str]:
    return {"LABRATS_EXECUTOR_POD": json.dumps({"dnsPolicy": "Default"} | fields)}


GROUPS = [
    Group(
        "while the job runs",
        engine={"DEFAULT_MODEL_SLOTS": "5"},
        cases=[
            Case("timeout", "1 s", config={"timeoutMs": 1000}),
            Case("executor_died", "exited with code 3", steps=[{"exit": 3}]),
            Case("agent_error", "as asked", steps=[{"fail": "as asked"}]),
            Case("evicted", "evicted from node-1", disturb=evicted),
            Case("lost", "were deleted while the attempt ran", disturb=deleted),
        ],
    ),
    Group(
        "without its image",
        engine={"LABRATS_START_TIMEOUT_SECONDS": str(REPORT_SECONDS + 5)},
        cases=[
            Case("image_pull", NO_IMAGE, config={"executorImage": NO_IMAGE}),
            Case("image_pull", NO_IMAGE, config={"executorImage": NO_IMAGE, "timeoutMs": REPORT_SECONDS * 1000}),
        ],
    ),
    Group(
        "without a node",
        engine=SOON | pods(nodeSelector=NOWHERE),
        cases=[
            Case("unschedulable", "no node can take"),
            Case("unschedulable", "no node can take", config={"timeoutMs": 2000}),
        ],
    ),
    Group(
        "without a runtime",
        engine=SOON | pods(runtimeClassName="none-such"),
        cases=[Case("start_timeout", "did not start within 3 s")],
    ),
    Group(
        "without memory",
        engine={"LABRATS_EXECUTOR_RESOURCES": json.dumps({"limits": {"memory": "10Mi"}})},
        cases=[Case("out_of_memory", "10Mi")],
    ),
]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
async def test_each_failure_has_the_same_code_and_reason_everywhere(
    start_engine: EngineFactory, person: Person, group: Group
) -> None:
    async with start_engine(**group.engine).user() as user, asyncio.TaskGroup() as tasks:
        for case in group.cases:
            tasks.create_task(assert_fails_as(case, user, person))


async def assert_fails_as(case: Case, user: User, person: Person) -> None:
    job_id = await user.submit(*case.steps, config=case.config)
    if case.disturb:
        await case.disturb(person, await until_logged(user, job_id, "here"))
    detail = await user.wait(job_id)

    assert (detail["status"], detail["failedCode"], detail["attempts"]) == ("failed", case.code, 1)
    assert case.words in detail["failedReason"]
    condition = await person.condition(job_id, "Finished")
    assert condition["status"] == "True"
    assert condition["reason"] == "".join(word.title() for word in case.code.split("_"))
    assert condition["message"] == detail["failedReason"]
    assert await person.events(job_id) == [f"{case.code}: {detail['failedReason']}"]


async def test_missing_secrets_are_named(start_engine: EngineFactory, person: Person) -> None:
    """The Secret with the credentials of a model, and one with a variable of a job."""
    env = {"NPM_TOKEN": {"secret": "there-is-none", "key": "token"}}
    async with start_engine(**SOON_WITHOUT_PARTS).admin() as admin:
        model = {"name": "poor", "provider": "mock", "model": "poor", "slots": 1, "credentialsRef": "there-is-none"}
        assert (await admin.post("/api/ai-models", model)).status_code == 201
        details = await asyncio.gather(admin.run(config={"model": "poor"}), admin.run(config={"env": env}))

    missing = "are missing: there is no Secret 'there-is-none'"
    for detail, what in zip(details, ("credentials of AiModel poor", "values of the variable NPM_TOKEN"), strict=True):
        assert (detail["failedCode"], detail["failedReason"]) == ("auth", f"the {what} {missing}")
        assert (await person.condition(detail["id"], "Finished"))["reason"] == "Auth"


async def test_a_foreign_job_with_the_name_of_an_attempt_is_not_touched(engine: LocalEngine, person: Person) -> None:
    """A foreign Job may have the name already. It is not treated as an attempt, and is not changed."""
    await person.create_foreign_job("by-hand-1")
    before = await person.get(f"{person.jobs}/by-hand-1")
    await person.create_request("by-hand")
    async with engine.admin() as admin:
        detail = await admin.wait("by-hand")
        assert (await admin.run())["status"] == "completed"

    assert (detail["status"], detail["failedCode"]) == ("failed", "internal")
    assert detail["failedReason"] == "the cluster has a Job 'by-hand-1' that Labrats did not create"
    assert (await person.get(f"{person.jobs}/by-hand-1"))["spec"] == before["spec"]


async def test_a_job_with_the_maximum_size_of_annotations_runs(engine: LocalEngine, person: Person) -> None:
    """The API server accepts at most 256 KiB of annotations."""
    with pytest.raises(Invalid, match="Too long: may not be more than 262144 bytes"):
        await person.create_request("too-many", annotations={f"note-{n}": "x" * 1000 for n in range(1000)})
    await person.create_request("many", annotations={f"note-{n}": "x" * 1000 for n in range(250)})
    async with engine.admin() as admin:
        detail = await admin.wait("many")

    assert detail["status"] == "completed"


async def until_logged(user: User, job_id: str, line: str) -> dict[str, Any]:
    """Wait until the job has logged `line`, and return its detail."""
    async with user.log_stream(job_id) as events:
        assert (await anext(events)).data == {"log": line}
    return await user.job(job_id)

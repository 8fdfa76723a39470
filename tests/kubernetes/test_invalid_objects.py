"""Invalid resources that a person wrote with kubectl: each is reported, and other jobs run."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.backends.kubernetes.client import JSON_PATCH, MERGE_PATCH, ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.controller.agent_status import AgentStatusReconciler
from labrats.controller.source_status import OwnReceiver, SourceStatusReconciler
from labrats.index.catalog import Catalog
from labrats.model.agent import AiAgent
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig
from labrats.model.ai_model import AiModel
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import BecameUnreadable, LabratsError, Unreadable
from labrats.model.instruction import AiInstruction
from labrats.model.job import Job
from labrats.model.nesting import cut_off_below
from labrats.model.phases import ENDED
from labrats.model.record import Resource, encode
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Store, SystemClock
from labrats.settings import EngineSettings
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.kubernetes.conftest import Kubectl
from tests.kubernetes.invalid_values import NO_YEAR, deep, invalid_values_of, with_value
from tests.support.background import run_in_background
from tests.support.builders import an_ai_model
from tests.support.controllers import a_controller
from tests.support.waiting import DEADLINE_SECONDS, eventually, poll_intervals

pytestmark = pytest.mark.kubernetes

SPEC: dict[str, Any] = {"source": "kubectl", "type": "code-review", "prompt": "Look.", "config": {"provider": "mock"}}


class Person:
    """A person with kubectl."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    async def create(self, kind: type[Resource], name: str, **fields: Any) -> None:
        """Create a resource. Raises LabratsError if the API server refuses it."""
        resources = resource_type(kind)
        metadata = {"name": name, **fields.pop("metadata", {})}
        body = {"apiVersion": resources.api_version, "kind": kind.kind(), "metadata": metadata, **fields}
        await self._client.request("POST", resources.path(self._namespace), encode(body))

    async def replace_status(self, name: str, status: Any, kind: type[Resource]) -> None:
        """Replace the whole status, as the API server takes seconds to merge a deeply nested one."""
        path = resource_type(kind).path(self._namespace, name, "status")
        patch = [{"op": "add", "path": "/status", "value": status}]
        await self._client.request("PATCH", path, encode(patch), content_type=JSON_PATCH)

    async def set_status(self, name: str, status: Any, kind: type[Resource] = Job) -> None:
        path = resource_type(kind).path(self._namespace, name, "status")
        await self._client.request("PATCH", path, encode({"status": status}), content_type=MERGE_PATCH)

    async def create_with_invalid_values(self, kind: type[Resource], spec: dict[str, Any]) -> dict[str, str]:
        """Create a resource for every invalid value of every field, and return the accepted ones by name."""
        accepted = {}
        for number, (place, value) in enumerate(invalid_values_of(kind)):
            name, (part, *field) = f"invalid-{number}", place
            with suppress(LabratsError):  # the API server may refuse the value
                await self.create(kind, name, spec=with_value(spec, tuple(field), value) if part == "spec" else spec)
                if part == "status":
                    await self.replace_status(name, with_value({}, tuple(field), value), kind)
                accepted[name] = f"{place}: {str(value)[:100]}"
        return accepted

    async def delete(self, name: str, kind: type[Resource] = Job) -> None:
        await self._client.request("DELETE", resource_type(kind).path(self._namespace, name))

    async def object_of(self, name: str, kind: type[Resource] = Job) -> dict[str, Any]:
        answer = await self._client.request("GET", resource_type(kind).path(self._namespace, name))
        found: dict[str, Any] = json.loads(cut_off_below(answer, 50))
        return found

    async def status_of(self, name: str, kind: type[Resource] = Job) -> dict[str, Any]:
        status: dict[str, Any] = (await self.object_of(name, kind)).get("status", {})
        return status

    async def undecodable(self, kind: type[Resource]) -> list[str]:
        """Return the names of the resources that an engine cannot decode."""
        resources, found = resource_type(kind), []
        async for page in self._client.pages(resources.path(self._namespace), {}):
            for item in page.items:
                try:
                    resources.read(item)
                except ValueError:
                    found.append(json.loads(cut_off_below(bytes(item), 50))["metadata"]["name"])
        return found

    async def is_reported_as_invalid(self, name: str) -> bool:
        conditions = (await self.status_of(name)).get("conditions", [])
        return any((each["type"], each["status"], each["reason"]) == NOT_ACCEPTED for each in conditions)


NOT_ACCEPTED = ("Accepted", "False", "Invalid")


@pytest.fixture
def person(api_client: ApiClient, namespace: str) -> Person:
    return Person(api_client, namespace)


@pytest.fixture
async def store(api_client: ApiClient, namespace: str) -> AsyncIterator[Store]:
    """The store of the leader."""
    async with KubernetesStore.open(api_client, namespace) as own, own.as_leader(api_client, since=0) as store:
        yield store


@pytest.fixture
async def machine(store: Store) -> AsyncIterator[MemoryMachine]:
    """The machine on which jobs run, with a controller."""
    async with MemoryMachine() as machine:
        settings = EngineSettings(default_model_slots=4)
        catalog = Catalog()
        controller = a_controller(store, MemoryRunner(store, machine), catalog, SystemClock(), settings)
        async with run_in_background(catalog.follow(store)), run_in_background(controller.run()):
            yield machine


async def until_reported(person: Person, name: str) -> None:
    """Wait until the job's condition says that it is invalid."""
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await person.is_reported_as_invalid(name):
            await asyncio.sleep(next(pause))


async def until_ended(person: Person, name: str) -> dict[str, Any]:
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (status := await person.status_of(name))["phase"] not in ENDED:
            await asyncio.sleep(next(pause))
    return status


@pytest.mark.usefixtures("machine")
async def test_an_invalid_job_is_reported_and_other_jobs_run(person: Person, store: Store, kubectl: Kubectl) -> None:
    await person.create(Job, "deep", spec=SPEC | {"metadata": deep(3000)})
    await until_reported(person, "deep")
    with pytest.raises(Unreadable):  # not NotFound alone, for which its attempts would be removed
        await store.get(Job, "deep")
    await person.create(Job, "neighbour", spec=SPEC)
    assert (await until_ended(person, "neighbour"))["phase"] == "Succeeded"
    assert "nested more than" in kubectl("events", "--for", "inferencerequest/deep")

    await person.delete("deep")
    await person.create(Job, "deep", spec=SPEC)
    assert (await until_ended(person, "deep"))["phase"] == "Succeeded"


async def test_a_job_runs_after_its_status_was_fixed(person: Person, machine: MemoryMachine, kubectl: Kubectl) -> None:
    await person.create(Job, "waiting", spec=SPEC | {"config": {"provider": "mock", "model": "paused"}})
    await person.set_status("waiting", {"notBefore": NO_YEAR})
    await until_reported(person, "waiting")
    assert "notBefore" in kubectl("describe", "ir", "waiting").split("Events:")[1]
    await person.set_status("waiting", {"notBefore": None})
    status = await until_ended(person, "waiting")
    assert status["phase"] == "Succeeded"
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Accepted": "True",
        "Started": "True",
        "Finished": "True",
        "Succeeded": "True",
    }


async def test_a_running_job_that_becomes_invalid_continues_and_ends_once_it_is_fixed(
    person: Person, store: Store, machine: MemoryMachine
) -> None:
    steps = [{"sleepMs": 500}, {"result": "done"}]
    await person.create(Job, "running", spec=SPEC | {"metadata": {"mock": {"steps": steps}}})
    await eventually(lambda: AttemptName("running", 1) in machine.executors)
    await person.set_status("running", {"cancelRequestedAt": NO_YEAR})
    await until_reported(person, "running")
    with pytest.raises(BecameUnreadable):
        await store.get(Job, "running")
    await eventually(lambda: machine.executors[AttemptName("running", 1)].gone is not None)
    await person.set_status("running", {"cancelRequestedAt": None})
    status = await until_ended(person, "running")
    assert (status["phase"], status["result"], status["attempts"]) == ("Succeeded", "done", 1)


async def test_no_accepted_value_in_a_job_stops_other_jobs(
    person: Person, store: Store, machine: MemoryMachine
) -> None:
    """Many fields have an invalid value in turn."""
    model = await store.create(an_ai_model(slots=0))
    accepted = await person.create_with_invalid_values(Job, SPEC)
    assert len(accepted) > 30

    with capture_logs() as logs:
        await store.update(replace(model, spec=replace(model.spec, slots=32)))
        for name, value in accepted.items():
            assert await is_settled(person, name), (name, value, await person.status_of(name))
        await person.create(Job, "neighbour", spec=SPEC)
        assert (await until_ended(person, "neighbour"))["phase"] == "Succeeded"
    assert [each for each in logs if each["event"] == "reconcile failed"] == []


VALID_SPECS: dict[type[Resource], dict[str, Any]] = {
    AiModel: {"provider": "mock", "model": "any", "slots": 1},
    AiAgent: {"triggerName": "any", "eventTriggers": [{"source": "github", "events": ["issues.*"]}]},
    AiInstruction: {"scope": "global", "content": "Be kind."},
    WebhookSource: {"type": "generic", "secretRef": {"name": "nowhere", "key": "secret"}},
}


@pytest.mark.parametrize(
    ("status", "ends_as"),
    [({"phase": "Succeeded"}, AttemptName("running", 1)), ({"phase": "Pending"}, AttemptName("running", 2))],
    ids=str,
)
async def test_an_attempt_ends_when_a_person_changes_the_phase_of_its_job(
    person: Person, machine: MemoryMachine, status: dict[str, Any], ends_as: AttemptName
) -> None:
    """The attempt ends before another job gets its slot, or the job its next attempt."""
    steps = [{"onAttempt": 1, "steps": [{"hang": True}]}, {"result": "done"}]
    await person.create(Job, "running", spec=SPEC | {"metadata": {"mock": {"steps": steps}}})
    await eventually(lambda: AttemptName("running", 1) in machine.executors)
    await person.set_status("running", status)
    await eventually(lambda: machine.executors[AttemptName("running", 1)].gone is not None)
    await eventually(lambda: ends_as in machine.executors and machine.executors[ends_as].gone is not None)
    assert (await until_ended(person, "running"))["phase"] == "Succeeded"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("kind", VALID_SPECS, ids=lambda kind: kind.__name__)
async def test_no_accepted_value_in_another_resource_stops_jobs(
    person: Person, store: Store, kind: type[Resource]
) -> None:
    """Many fields of the other kinds have an invalid value in turn. Undecodable resources are reported."""
    with capture_logs() as logs:
        accepted = await person.create_with_invalid_values(kind, VALID_SPECS[kind])
        assert len(accepted) > 1
        catalog, clock = Catalog(), SystemClock()
        agents = AgentStatusReconciler(store, catalog, clock)
        sources = SourceStatusReconciler(store, clock, OwnReceiver())
        async with run_in_background(catalog.follow(store), agents.run(), sources.run()):
            await catalog.synced.wait()
            await person.create(AiAgent, "valid", spec={"triggerName": "valid", "instructions": ["missing"]})
            await until_condition(person, AiAgent, "valid", "there is no instruction 'missing'")
            for name in await person.undecodable(kind):
                await until_condition(person, kind, name, "")
            await person.create(Job, "neighbour", spec=SPEC)
            assert (await until_ended(person, "neighbour"))["phase"] == "Succeeded"
    assert [each for each in logs if each["event"] == "reconcile failed"] == []


@pytest.mark.usefixtures("machine")
async def test_no_accepted_value_in_the_ai_config_stops_jobs(person: Person) -> None:
    """The one AiConfig is replaced again and again, and each version gets a job.

    Jobs with an invalid image name fail with that reason; all others succeed.
    """
    names = []
    for number, (place, value) in enumerate(invalid_values_of(AiConfig)):
        with suppress(LabratsError):
            await person.create(AiConfig, AI_CONFIG_NAME, spec=with_value({}, place[1:], value))
            names.append(f"job-{number}")
            await person.create(Job, names[-1], spec=SPEC)
            await person.delete(AI_CONFIG_NAME, AiConfig)
    assert len(names) > 5
    for name in names:
        status = await until_ended(person, name)
        names_no_image = "config.executorImage: must be the name of an image" in status.get("failedReason", "")
        assert status["phase"] == ("Failed" if names_no_image else "Succeeded"), status


async def until_condition(person: Person, kind: type[Resource], name: str, words: str) -> None:
    """Wait until the resource's condition says that it is invalid, with `words` in the message."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            conditions = (await person.status_of(name, kind)).get("conditions", [])
            refused = [each for each in conditions if (each["type"], each["status"], each["reason"]) == NOT_ACCEPTED]
            if any(words in each["message"] for each in refused):
                return
            await asyncio.sleep(0.05)


async def is_settled(person: Person, name: str) -> bool:
    """Wait until the job ends, waits for its `notBefore`, or is reported as invalid. Return False after a timeout."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                job = await person.object_of(name)
                if job["status"]["phase"] in ENDED or "notBefore" in job["status"] | job["spec"]:
                    return True
                if await person.is_reported_as_invalid(name):
                    return True
                await asyncio.sleep(0.1)
    return False

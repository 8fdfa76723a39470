"""Resources that a person has written and that make no sense: each is told so, and its neighbours run on."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient
from labrats.backends.kubernetes.codec import resource_type
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.controller.agent_status import AgentStatusReconciler
from labrats.controller.source_status import OwnReceiver, SourceStatusReconciler
from labrats.index.catalog import Catalog
from labrats.model.agent import AiAgent
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig
from labrats.model.ai_model import AiModel
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import LabratsError
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
from tests.kubernetes.invalid_values import NO_YEAR, deep, every_field_wrong_in_turn, with_value
from tests.support.background import run_in_background
from tests.support.builders import an_ai_model
from tests.support.controllers import a_controller
from tests.support.waiting import DEADLINE_SECONDS, eventually, poll_intervals

pytestmark = pytest.mark.kubernetes

SPEC: dict[str, Any] = {"source": "kubectl", "type": "code-review", "prompt": "Look.", "config": {"provider": "mock"}}


class Person:
    """Somebody with kubectl."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    async def create(self, kind: type[Resource], name: str, **fields: Any) -> None:
        """Raises LabratsError when the API server refuses it."""
        resources = resource_type(kind)
        metadata = {"name": name, **fields.pop("metadata", {})}
        body = {"apiVersion": resources.api_version, "kind": kind.kind(), "metadata": metadata, **fields}
        await self._client.request("POST", resources.path(self._namespace), encode(body))

    async def set_status(self, name: str, status: Any, kind: type[Resource] = Job) -> None:
        path = resource_type(kind).path(self._namespace, name, "status")
        await self._client.request("PATCH", path, encode({"status": status}), content_type=MERGE_PATCH)

    async def write_oddities(self, kind: type[Resource], spec: dict[str, Any]) -> dict[str, str]:
        """Create resources like `spec`, but for one field of each; those that the API server takes, by name."""
        accepted = {}
        for number, (place, value) in enumerate(every_field_wrong_in_turn(kind)):
            name, (part, *field) = f"odd-{number}", place
            with suppress(LabratsError):  # where the API server refuses it: so much the better
                await self.create(kind, name, spec=with_value(spec, tuple(field), value) if part == "spec" else spec)
                if part == "status":
                    await self.set_status(name, with_value({}, tuple(field), value), kind)
                accepted[name] = f"{place}: {str(value)[:100]}"
        return accepted

    async def delete(self, name: str, kind: type[Resource] = Job) -> None:
        await self._client.request("DELETE", resource_type(kind).path(self._namespace, name))

    async def status_of(self, name: str, kind: type[Resource] = Job) -> dict[str, Any]:
        answer = await self._client.request("GET", resource_type(kind).path(self._namespace, name))
        status: dict[str, Any] = json.loads(cut_off_below(answer, 50)).get("status", {})
        return status

    async def unreadable(self, kind: type[Resource]) -> list[str]:
        """The names of the resources that an engine can make nothing of."""
        resources, found = resource_type(kind), []
        async for page in self._client.pages(resources.path(self._namespace), {}):
            for item in page.items:
                try:
                    resources.read(item)
                except ValueError:
                    found.append(json.loads(cut_off_below(bytes(item), 50))["metadata"]["name"])
        return found

    async def is_told_that_it_makes_no_sense(self, name: str) -> bool:
        conditions = (await self.status_of(name)).get("conditions", [])
        return any((each["type"], each["status"], each["reason"]) == NOT_ACCEPTED for each in conditions)


NOT_ACCEPTED = ("Accepted", "False", "Invalid")


@pytest.fixture
def person(api_client: ApiClient, namespace: str) -> Person:
    return Person(api_client, namespace)


@pytest.fixture
async def store(api_client: ApiClient, namespace: str) -> AsyncIterator[Store]:
    """That of the engine that leads."""
    async with KubernetesStore.open(api_client, namespace) as own, own.led(api_client, since=0) as store:
        yield store


@pytest.fixture
async def machine(store: Store) -> AsyncIterator[MemoryMachine]:
    """Where jobs run, for as long as a controller drives them."""
    async with MemoryMachine() as machine:
        settings = EngineSettings(default_model_slots=4)
        catalog = Catalog()
        controller = a_controller(store, MemoryRunner(store, machine), catalog, SystemClock(), settings)
        async with run_in_background(catalog.follow(store)), run_in_background(controller.run()):
            yield machine


async def until_told(person: Person, name: str) -> None:
    """Return when the object says that it makes no sense."""
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await person.is_told_that_it_makes_no_sense(name):
            await asyncio.sleep(next(pause))


async def until_ended(person: Person, name: str) -> dict[str, Any]:
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (status := await person.status_of(name))["phase"] not in ENDED:
            await asyncio.sleep(next(pause))
    return status


@pytest.mark.usefixtures("machine")
async def test_a_job_that_makes_no_sense_says_so_and_its_neighbours_run(person: Person, kubectl: Kubectl) -> None:
    await person.create(Job, "deep", spec=SPEC | {"metadata": deep(3000)})
    await until_told(person, "deep")
    await person.create(Job, "neighbour", spec=SPEC)
    assert (await until_ended(person, "neighbour"))["phase"] == "Succeeded"
    described = kubectl("describe", "ir", "deep")
    assert "nested more than" in described.split("Events:")[1]

    await person.delete("deep")
    await person.create(Job, "deep", spec=SPEC)
    assert (await until_ended(person, "deep"))["phase"] == "Succeeded"


async def test_a_job_that_is_mended_runs(person: Person, machine: MemoryMachine) -> None:
    await person.create(Job, "waiting", spec=SPEC | {"config": {"provider": "mock", "model": "paused"}})
    await person.set_status("waiting", {"notBefore": NO_YEAR})
    await until_told(person, "waiting")
    await person.set_status("waiting", {"notBefore": None})
    status = await until_ended(person, "waiting")
    assert status["phase"] == "Succeeded"
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Accepted": "True",
        "Started": "True",
        "Finished": "True",
        "Succeeded": "True",
    }


async def test_a_running_job_that_is_made_senseless_runs_on_and_ends_once_it_is_mended(
    person: Person, machine: MemoryMachine
) -> None:
    steps = [{"sleepMs": 500}, {"result": "done"}]
    await person.create(Job, "running", spec=SPEC | {"metadata": {"mock": {"steps": steps}}})
    await eventually(lambda: AttemptName("running", 1) in machine.executors)
    await person.set_status("running", {"cancelRequestedAt": NO_YEAR})
    await until_told(person, "running")
    await eventually(lambda: machine.executors[AttemptName("running", 1)].gone is not None)
    await person.set_status("running", {"cancelRequestedAt": None})
    status = await until_ended(person, "running")
    assert (status["phase"], status["result"], status["attempts"]) == ("Succeeded", "done", 1)


async def test_whatever_a_person_writes_that_the_api_server_takes_stops_nobody(
    person: Person, store: Store, machine: MemoryMachine
) -> None:
    """Every field wrong in turn, in every way that its type allows."""
    model = await store.create(an_ai_model(slots=0))
    accepted = await person.write_oddities(Job, SPEC)
    assert len(accepted) > 100

    with capture_logs() as logs:
        await store.update(replace(model, spec=replace(model.spec, slots=32)))
        for name, what in accepted.items():
            assert await is_settled(person, name), (name, what, await person.status_of(name))
        await person.create(Job, "neighbour", spec=SPEC)
        assert (await until_ended(person, "neighbour"))["phase"] == "Succeeded"
    assert [each for each in logs if each["event"] == "reconciling failed"] == []


LIKE: dict[type[Resource], dict[str, Any]] = {
    AiModel: {"provider": "mock", "model": "odd", "slots": 1},
    AiAgent: {"triggerName": "odd", "eventTriggers": [{"source": "github", "events": ["issues.*"]}]},
    AiInstruction: {"scope": "global", "content": "Be kind."},
    WebhookSource: {"type": "generic", "secretRef": {"name": "nowhere", "key": "secret"}},
}


@pytest.mark.parametrize(
    ("status", "ends_as"),
    [({"phase": "Succeeded"}, AttemptName("running", 1)), ({"phase": "Pending"}, AttemptName("running", 2))],
    ids=str,
)
async def test_a_job_that_a_person_takes_from_its_attempt_does_not_run_on(
    person: Person, machine: MemoryMachine, status: dict[str, Any], ends_as: AttemptName
) -> None:
    """What runs is ended before anybody else has its slot, or the job another attempt."""
    steps = [{"onAttempt": 1, "steps": [{"hang": True}]}, {"result": "done"}]
    await person.create(Job, "running", spec=SPEC | {"metadata": {"mock": {"steps": steps}}})
    await eventually(lambda: AttemptName("running", 1) in machine.executors)
    await person.set_status("running", status)
    await eventually(lambda: machine.executors[AttemptName("running", 1)].gone is not None)
    await eventually(lambda: ends_as in machine.executors and machine.executors[ends_as].gone is not None)
    assert (await until_ended(person, "running"))["phase"] == "Succeeded"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("kind", LIKE, ids=lambda kind: kind.__name__)
async def test_whatever_a_person_writes_of_what_jobs_are_made_by_stops_nobody(
    person: Person, store: Store, kind: type[Resource]
) -> None:
    """The same of all other kinds; what cannot be read is told so."""
    with capture_logs() as logs:
        accepted = await person.write_oddities(kind, LIKE[kind])
        assert len(accepted) > 5
        catalog, clock = Catalog(), SystemClock()
        agents = AgentStatusReconciler(store, catalog, clock)
        sources = SourceStatusReconciler(store, clock, OwnReceiver())
        async with run_in_background(catalog.follow(store), agents.run(), sources.run()):
            await catalog.synced.wait()
            await person.create(AiAgent, "sane", spec={"triggerName": "sane", "instructions": ["missing"]})
            await eventually_told(person, AiAgent, "sane", "there is no instruction 'missing'")
            for name in await person.unreadable(kind):
                await eventually_told(person, kind, name, "")
            await person.create(Job, "neighbour", spec=SPEC)
            assert (await until_ended(person, "neighbour"))["phase"] == "Succeeded"
    assert [each for each in logs if each["event"] == "reconciling failed"] == []


@pytest.mark.usefixtures("machine")
async def test_whatever_a_person_writes_as_the_settings_of_all_jobs_stops_none(person: Person) -> None:
    """There is one AiConfig: each is replaced by the next one, with a job for each.

    A job that gets the name of no image says so; all others run.
    """
    names = []
    for number, (place, value) in enumerate(every_field_wrong_in_turn(AiConfig)):
        with suppress(LabratsError):
            await person.create(AiConfig, AI_CONFIG_NAME, spec=with_value({}, place[1:], value))
            names.append(f"job-{number}")
            await person.create(Job, names[-1], spec=SPEC)
            await person.delete(AI_CONFIG_NAME, AiConfig)
    assert len(names) > 20
    for name in names:
        status = await until_ended(person, name)
        names_no_image = "config.executorImage: must be the name of an image" in status.get("failedReason", "")
        assert status["phase"] == ("Failed" if names_no_image else "Succeeded"), status


async def eventually_told(person: Person, kind: type[Resource], name: str, words: str) -> None:
    """Return when the object says by its condition that it makes no sense, in these words among others."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            conditions = (await person.status_of(name, kind)).get("conditions", [])
            refused = [each for each in conditions if (each["type"], each["status"], each["reason"]) == NOT_ACCEPTED]
            if any(words in each["message"] for each in refused):
                return
            await asyncio.sleep(0.05)


async def is_settled(person: Person, name: str) -> bool:
    """Whether it ends, or waits because it was told to, or says that it makes no sense."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                status = await person.status_of(name)
                if status["phase"] in ENDED or "notBefore" in status:
                    return True
                if await person.is_told_that_it_makes_no_sense(name):
                    return True
                await asyncio.sleep(0.1)
    return False

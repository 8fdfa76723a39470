"""Resources that a person has written and that make no sense: each is told so, and its neighbours run on."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient
from labrats.backends.kubernetes.resources import resource_type
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.catalog import Catalog
from labrats.manifests.crds import custom_resource_definitions
from labrats.model.errors import LabratsError
from labrats.model.job import Job
from labrats.model.nesting import cut_off_below
from labrats.model.phases import ENDED
from labrats.model.record import Resource, encode
from labrats.ports import Store, SystemClock
from labrats.settings import EngineSettings
from tests.builders import an_ai_model
from tests.controllers import a_controller
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.kubernetes.conftest import Kubectl
from tests.running import running
from tests.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.kubernetes

SPEC: dict[str, Any] = {"source": "kubectl", "type": "code-review", "prompt": "Look.", "config": {"provider": "mock"}}
NO_YEAR = "0000-01-01T00:00:00Z"
"""A time to the API server, and none to anybody else."""


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

    async def set_status(self, name: str, status: dict[str, Any]) -> None:
        path = resource_type(Job).path(self._namespace, name, "status")
        await self._client.request("PATCH", path, encode({"status": status}), content_type=MERGE_PATCH)

    async def delete(self, name: str) -> None:
        await self._client.request("DELETE", resource_type(Job).path(self._namespace, name))

    async def status_of(self, name: str) -> dict[str, Any]:
        answer = await self._client.request("GET", resource_type(Job).path(self._namespace, name))
        status: dict[str, Any] = json.loads(cut_off_below(answer, 50))["status"]
        return status

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
    async with KubernetesStore.open(api_client, namespace, quarantines=True) as store:
        yield store


@pytest.fixture
async def machine(store: Store) -> AsyncIterator[MemoryMachine]:
    """Where jobs run, for as long as a controller drives them."""
    async with MemoryMachine() as machine:
        settings = EngineSettings(default_model_slots=4)
        catalog = Catalog()
        controller = a_controller(store, MemoryRunner(store, machine), catalog, SystemClock(), settings)
        async with running(catalog.follow(store)), running(controller.run()):
            yield machine


def deep(levels: int) -> msgspec.Raw:
    """An object in an object and so on, deeper than an encoder may go."""
    return msgspec.Raw(b'{"a":' * levels + b"{}" + b"}" * levels)


async def until_told(person: Person, name: str) -> None:
    """Return when the object says that it makes no sense."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await person.is_told_that_it_makes_no_sense(name):
            await asyncio.sleep(0.02)


async def until_ended(person: Person, name: str) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (status := await person.status_of(name))["phase"] not in ENDED:
            await asyncio.sleep(0.02)
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
    assert [each["status"] for each in status["conditions"]] == ["True", "True", "True"]


async def test_a_running_job_that_is_made_senseless_runs_on_and_ends_once_it_is_mended(
    person: Person, machine: MemoryMachine
) -> None:
    steps = [{"sleepMs": 500}, {"result": "done"}]
    await person.create(Job, "running", spec=SPEC | {"metadata": {"mock": {"steps": steps}}})
    await eventually(lambda: "running-1" in machine.executors)
    await person.set_status("running", {"cancelRequestedAt": NO_YEAR})
    await until_told(person, "running")
    await eventually(lambda: machine.executors["running-1"].gone is not None)
    await person.set_status("running", {"cancelRequestedAt": None})
    status = await until_ended(person, "running")
    assert (status["phase"], status["result"], status["attempts"]) == ("Succeeded", "done", 1)


async def test_whatever_a_person_writes_that_the_api_server_takes_stops_nobody(
    person: Person, store: Store, machine: MemoryMachine
) -> None:
    """Every field wrong in turn, in every way that its type allows."""
    model = await store.create(an_ai_model(slots=0))
    accepted = []
    for number, (field, value) in enumerate(every_field_wrong_in_turn()):
        name = f"odd-{number}"
        with suppress(LabratsError):  # where the API server refuses it: so much the better
            await person.create(Job, name, spec=with_value(SPEC, field[1:], value) if field[0] == "spec" else SPEC)
            if field[0] == "status":
                await person.set_status(name, with_value({}, field[1:], value))
            accepted.append((name, field, value))
    assert len(accepted) > 100

    with capture_logs() as logs:
        await store.update(replace(model, spec=replace(model.spec, slots=32)))
        for name, field, value in accepted:
            assert await is_settled(person, name), (name, field, str(value)[:100], await person.status_of(name))
        await person.create(Job, "neighbour", spec=SPEC)
        assert (await until_ended(person, "neighbour"))["phase"] == "Succeeded"
    assert [each for each in logs if each["event"] == "reconciling failed"] == []


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


Path = tuple[str, ...]


def every_field_wrong_in_turn() -> Iterator[tuple[Path, Any]]:
    (definition,) = [each for each in custom_resource_definitions() if each["spec"]["names"]["kind"] == Job.kind()]
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        yield from odd_values(schema["properties"][part], (part,))


def odd_values(schema: dict[str, Any], field: Path) -> Iterator[tuple[Path, Any]]:
    for name, each in schema.get("properties", {}).items():
        yield from odd_values(each, (*field, name))
    kind = schema.get("type")
    values: list[Any] = [None]
    if schema.get("format") == "date-time":
        values += [
            NO_YEAR,
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "2016-12-31T23:59:60Z",
            "2030-01-01t00:00:00z",
        ]
    elif "enum" in schema:
        values += schema["enum"]
    elif kind == "string":
        values += ["", "-", "../../etc/passwd", "\u202e\U0001f400", "x" * schema.get("maxLength", 200_000)]
    elif kind in ("integer", "number"):
        values += [schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1), -1, 0]
        values += [1e308, 5e-324, 0.1] if kind == "number" else []
    elif kind == "boolean":
        values += [True, False]
    elif kind == "array":
        values += [[], [{}], ["x"] * 100]
    else:
        values += [
            {},
            {"": None},
            {"name": "none", "key": "none"},
            {"gitRepo": "none"},
            deep(90),
            deep(150),
            deep(3000),
        ]
    for value in values:
        yield field, value


def with_value(values: dict[str, Any], field: Path, value: Any) -> dict[str, Any]:
    """`values` with `value` at `field`."""
    if not field:
        return value if isinstance(value, dict) else values
    first, *rest = field
    if not rest:
        return values | {first: value}
    return values | {first: with_value(values.get(first, {}), tuple(rest), value)}

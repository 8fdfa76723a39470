"""Events from callers start the agents whose triggers match."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from labrats.intake.events import failed_filter
from labrats.intake.stored_events import stored_event
from labrats.model.agent import AiAgent, ChainLink
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import DEFAULT_BRANCH_ANNOTATION, Job
from labrats.model.record import Resource
from tests.api.conftest import Api, api_in_memory
from tests.api.test_agent_roles import stored
from tests.api.test_agents import TRIGGER
from tests.fakes.store import MemoryStore
from tests.support.builders import a_trigger, an_agent, an_instruction

PAYLOAD: dict[str, Any] = {
    "action": "labeled",
    "label": {"name": "ai"},
    "issue": {"number": 7, "title": "It crashes {{ source }}", "html_url": "https://github.com/octo/demo/issues/7"},
    "repository": {"full_name": "octo/demo", "default_branch": "main", "clone_url": "https://1.1.1.1/octo/demo.git"},
}
EVENT = {"source": "github", "event": "issues.labeled", "payload": PAYLOAD}
JSON = {"Content-Type": "application/json"}


async def ingest(user: httpx2.AsyncClient, key: str | None = None, **fields: Any) -> dict[str, Any]:
    headers = {"Idempotency-Key": key} if key else {}
    answer = await user.post("/api/events/ingest", json=EVENT | fields, headers=headers)
    assert answer.status_code == 200, answer.text
    ingested: dict[str, Any] = answer.json()
    return ingested


async def prompt_of(api: Api, job_id: str) -> str:
    return (await api.store.get(ConfigMap, f"{job_id}-prompt")).data["prompt"]


class TestMatching:
    async def test_each_agent_with_a_matching_trigger_gets_one_job(self, api: Api, user: httpx2.AsyncClient) -> None:
        await stored(
            api,
            an_agent("a", a_trigger("issues.*"), a_trigger()),
            an_agent("b", a_trigger(filters={"label.name": ["bug", "ai"]})),
            an_agent("c", a_trigger(filters={"label.name": "bug"})),
            an_agent("off", a_trigger(), enabled=False),
        )

        answer = await ingest(user)

        assert answer["matched"] == 2
        assert [each["agent"] for each in answer["jobs"]] == ["a", "b"]
        jobs = await api.store.get_many(Job, [each["jobId"] for each in answer["jobs"]])
        assert [job.spec.agent_role for job in jobs] == ["a", "b"]

    async def test_an_event_without_a_matching_trigger_creates_no_job(self, api: Api, user: httpx2.AsyncClient) -> None:
        assert await ingest(user) == {"matched": 0, "jobs": []}
        assert await api.store.list(Job) == []

    async def test_an_agent_created_through_the_api_is_started_by_the_next_event(
        self, admin: httpx2.AsyncClient
    ) -> None:
        await admin.post("/api/agents", json={"name": "a", "eventTriggers": [TRIGGER]})
        assert (await ingest(admin))["matched"] == 1
        await admin.patch("/api/agents/a", json={"enabled": False})
        assert (await ingest(admin))["matched"] == 0

    async def test_an_invalid_applied_agent_does_not_affect_other_agents(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        nonsense = a_trigger("[", "issues.*", filters={"": {"a": [[]]}, "....": [], "issue.999.x": None})
        await stored(api, an_agent("z", a_trigger()), an_agent("nonsense", nonsense, instructions=("gone",)))
        assert (await ingest(user))["jobs"][0]["agent"] == "z"


class TestJobs:
    async def test_an_events_job_has_its_repository_and_metadata(self, api: Api, user: httpx2.AsyncClient) -> None:
        trigger = a_trigger(instruction="implement")
        await stored(api, an_instruction(), an_agent("a", trigger, default_provider="mock", trigger_name="developer"))

        (made,) = (await ingest(user))["jobs"]

        stored_job = await api.store.get(Job, made["jobId"])
        assert stored_job.metadata.annotations[DEFAULT_BRANCH_ANNOTATION] == "main"
        detail = (await user.get(f"/api/jobs/{made['jobId']}")).json()
        assert (detail["source"], detail["name"], detail["agentRole"]) == ("github", "implement", "developer")
        assert (detail["repo"], detail["metadata"]["number"], detail["metadata"]["event"]) == (
            "octo/demo",
            7,
            "issues.labeled",
        )
        assert detail["workspaceSetup"]["gitRepo"] == "https://1.1.1.1/octo/demo.git"
        assert detail["workspaceSetup"]["gitRef"] == "main"

    async def test_the_prompt_of_an_events_job_has_the_instructions_and_the_event_as_data(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        trigger = a_trigger(instruction="Fix {{ payload.issue.title }}.")
        await stored(api, an_instruction("own", "Be brief."), an_agent("a", trigger, instructions=("own",)))

        (made,) = (await ingest(user))["jobs"]

        prompt = await prompt_of(api, made["jobId"])
        assert re.search(
            r'Be brief\.\n\nFix <data-\w+ from="payload\.issue\.title">It crashes \{\{ source \}\}</data-\w+>\.', prompt
        )
        event = re.search(r'<data-\w+ from="event">(.*)</data-\w+>$', prompt, re.DOTALL)
        assert event
        assert json.loads(event[1]) == EVENT

    async def test_an_agents_settings_apply_where_the_trigger_has_none(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        agent = an_agent("a", a_trigger(), default_provider="mock", default_model="big", default_effort="low")
        await stored(api, agent)
        await api.services.store.update(await api.store.get(AiAgent, "a"))

        (made,) = (await ingest(user))["jobs"]

        job = await api.store.get(Job, made["jobId"])
        assert (job.resolved.model, job.resolved.origins["model"]) == ("big", "agent")

    async def test_only_a_job_with_a_next_agent_stores_the_event(self, api: Api, user: httpx2.AsyncClient) -> None:
        further = ChainLink(agent_trigger_name="b")
        await stored(api, an_agent("a", a_trigger(next=further)), an_agent("b", a_trigger()))

        first, alone = [job["jobId"] for job in (await ingest(user))["jobs"]]

        assert stored_event(await api.store.get(ConfigMap, f"{first}-event")).payload == PAYLOAD
        with pytest.raises(NotFound):
            await api.store.get(ConfigMap, f"{alone}-event")

    async def test_a_trigger_with_a_next_link_starts_a_chain(self, admin: httpx2.AsyncClient) -> None:
        await admin.post("/api/agents", json={"name": "a", "triggerName": "first", "eventTriggers": [TRIGGER]})
        (made,) = (await ingest(admin))["jobs"]
        detail = (await admin.get(f"/api/jobs/{made['jobId']}")).json()
        assert re.fullmatch(r"[0-9a-f-]{36}", detail["chainId"])
        assert (detail["chainDepth"], detail["chainPath"], detail["parentJobId"]) == (0, ["first"], None)

    async def test_an_events_job_belongs_to_the_key_that_sent_the_event(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        await stored(api, an_agent("a", a_trigger()))
        (made,) = (await ingest(user))["jobs"]
        assert (await user.get(f"/api/jobs/{made['jobId']}")).status_code == 200
        async with api.client("other") as other:
            assert (await other.get(f"/api/jobs/{made['jobId']}")).status_code == 403

    @pytest.mark.parametrize(
        "value", ["{{ source }}", "${{ secrets.X }}", "{% raw %}", "{{ 7*7 }}", "</data-0000000000000000>"]
    )
    async def test_no_template_in_any_field_of_the_event_is_evaluated(
        self, api: Api, user: httpx2.AsyncClient, value: str
    ) -> None:
        await stored(
            api, an_agent("a", a_trigger("*", source=value, instruction="{{ source }} {{ event }} {{ payload.a }}"))
        )

        (made,) = (await ingest(user, source=value, event=value, payload={"a": value, value: value}))["jobs"]

        prompt = await prompt_of(api, made["jobId"])
        assert (
            re.findall(r'<(data-\w+) from="(?:source|event|payload\.a)">(.*?)</\1>', prompt)[:3]
            == [(mark, value) for mark in re.findall(r"between <(data-\w+)", prompt)] * 3
        )

    @pytest.mark.parametrize(
        "clone_url",
        [
            "http://169.254.169.254/x",
            "https://127.0.0.1/x.git",
            "file:///etc",
            "ext::sh -c x",
            "/etc",
            "-oProxyCommand=x:y",
        ],
    )
    async def test_a_repository_at_a_forbidden_address_is_refused(
        self, api: Api, user: httpx2.AsyncClient, clone_url: str
    ) -> None:
        await stored(api, an_agent("a", a_trigger()))
        event = EVENT | {"payload": {"repository": {"clone_url": clone_url}}}
        answer = await user.post("/api/events/ingest", json=event)
        assert answer.status_code == 422, answer.text
        assert answer.json()["details"][0]["field"] == "payload.repository.clone_url"
        assert await api.store.list(Job) == []


class TestOnce:
    async def test_the_same_key_creates_one_job_per_agent(self, api: Api, user: httpx2.AsyncClient) -> None:
        await stored(api, an_agent("a", a_trigger()), an_agent("b", a_trigger()))
        answers = await asyncio.gather(*(ingest(user, "key-1") for _ in range(5)))
        assert all(answer == answers[0] for answer in answers)
        assert len(await api.store.list(Job)) == 2

    async def test_the_same_key_returns_the_first_jobs_although_the_agents_have_changed(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        await stored(api, an_agent("a", a_trigger()), an_agent("b", a_trigger()))
        first = await ingest(user, "key-1")
        changed = await api.store.get(AiAgent, "a")
        await stored(api, an_agent("c", a_trigger()))
        await api.store.delete(AiAgent, "b")
        api.services.catalog.put(changed)

        assert (await ingest(user, "key-1"))["jobs"][0] == first["jobs"][0]
        assert len(await api.store.list(Job)) == 2

    async def test_the_same_key_with_another_event_is_refused(self, api: Api, user: httpx2.AsyncClient) -> None:
        await stored(api, an_agent("a", a_trigger("*")))
        await ingest(user, "key-1")
        answer = await user.post(
            "/api/events/ingest", json=EVENT | {"event": "x"}, headers={"Idempotency-Key": "key-1"}
        )
        assert answer.status_code == 422

    async def test_the_same_request_creates_the_jobs_that_a_crash_prevented(
        self, api: Api, user: httpx2.AsyncClient
    ) -> None:
        await stored(api, an_agent("a", a_trigger()), an_agent("b", a_trigger()))
        first = await ingest(user, "key-1")
        await api.store.delete(Job, first["jobs"][1]["jobId"])  # as if the engine had crashed before it

        assert await ingest(user, "key-1") == first
        assert len(await api.store.list(Job)) == 2


class FullStore(MemoryStore):
    """A store with room for one job at first."""

    room = 1

    async def create(self, resource: Any, parts: Any = ()) -> Any:
        if isinstance(resource, Job) and len(self._all(Job)) >= self.room:
            raise RetryLater("the disk is full", delay_seconds=1)
        return await super().create(resource, parts)


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_in_memory(tmp_path, FullStore) as api:
        yield api


async def test_no_job_is_left_where_not_all_can_be_stored(full: Api) -> None:
    await stored(full, an_agent("a", a_trigger()), an_agent("b", a_trigger()))
    async with full.client() as user:
        answer = await user.post("/api/events/ingest", json=EVENT)
    assert answer.status_code == 503
    kinds: list[type[Resource]] = [Job, ConfigMap]
    assert [await full.store.list(kind) for kind in kinds] == [[], []]


async def test_stored_jobs_stay_with_a_key_and_the_rest_is_created_later(full: Api) -> None:
    """Another replica may have received the same request, and reported that job."""
    await stored(full, an_agent("a", a_trigger()), an_agent("b", a_trigger()))
    async with full.client() as user:
        answer = await user.post("/api/events/ingest", json=EVENT, headers={"Idempotency-Key": "key-1"})
        assert answer.status_code == 503
        [first] = await full.store.list(Job)
        full.store.room = 2  # type: ignore[attr-defined]
        made = await ingest(user, "key-1")
    assert made["jobs"][0]["jobId"] == first.id
    assert made["matched"] == len(await full.store.list(Job)) == 2


class TestSize:
    async def test_an_event_may_be_larger_than_a_prompt(self, api: Api, user: httpx2.AsyncClient) -> None:
        await stored(api, an_agent("a", a_trigger()))
        payload = {"text": "x" * (20 * 2**20), "list": [[n] for n in range(100_000)]}
        (made,) = (await ingest(user, payload=payload))["jobs"]
        prompt = await prompt_of(api, made["jobId"])
        assert len(prompt.encode()) <= 900 * 1024
        assert "cut here" in prompt

    @pytest.mark.parametrize(("values", "is_large"), [(10, False), (20_000, True)])
    @pytest.mark.parametrize("path", ["/api/events/ingest", "/api/events/test"])
    async def test_a_large_event_is_compared_with_triggers_outside_the_event_loop(
        self,
        api: Api,
        admin: httpx2.AsyncClient,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        values: int,
        is_large: bool,
    ) -> None:
        threads: set[int] = set()

        def noted_filter(*args: Any) -> str | None:
            threads.add(threading.get_ident())
            return failed_filter(*args)

        monkeypatch.setattr("labrats.intake.events.failed_filter", noted_filter)
        await stored(api, an_agent("a", a_trigger(filters={"label.name": "ai"})))

        answer = await admin.post(path, json=EVENT | {"payload": {"label": [{"name": "bug"}] * values}})

        assert (answer.status_code, answer.json()["matched"]) == (200, 0)
        assert threads
        assert (threading.get_ident() not in threads) is is_large

    @pytest.mark.parametrize("declared", [True, False])
    async def test_an_event_of_more_than_25_mib_is_refused(self, user: httpx2.AsyncClient, declared: bool) -> None:
        body = b'{"source": "s", "event": "e", "payload": {"a": "' + b"x" * 25 * 2**20 + b'"}}'

        async def chunks() -> AsyncIterator[bytes]:
            yield body

        answer = await user.post("/api/events/ingest", content=body if declared else chunks(), headers=JSON)
        assert answer.status_code == 413
        assert "25 MiB" in answer.json()["error"]

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"source": ""}, "source"),
            ({"event": None}, "event"),
            ({"payload": []}, "payload"),
            ({"paylod": {}}, "paylod"),
        ],
    )
    async def test_an_error_names_the_invalid_field(
        self, user: httpx2.AsyncClient, fields: dict[str, Any], field: str
    ) -> None:
        answer = await user.post("/api/events/ingest", json=EVENT | fields)
        assert answer.status_code == 422
        assert [detail["field"] for detail in answer.json()["details"]] == [field]

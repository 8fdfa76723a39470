"""Admission: one path for every request, also where several engines share a store."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.immediate_starts import ImmediateStarts
from labrats.intake.job_names import JobNames, random_names
from labrats.intake.request import JobRequest
from labrats.intake.validation import FILES_BYTES
from labrats.metrics import Metrics
from labrats.model.agent import AiAgent
from labrats.model.condition import Condition
from labrats.model.config import JobConfig
from labrats.model.errors import Invalid, Overloaded, RetryLater, TooLarge
from labrats.model.job import METADATA_BYTES, PROMPT_BYTES, Chain, Job, KeyReference, Pipeline, advance
from labrats.model.mcp_server import McpServer
from labrats.model.phases import JobEvent, Phase
from labrats.model.record import Metadata, Resource
from labrats.model.variables import SecretKey
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec, WebhookSourceStatus
from labrats.ports import Store
from labrats.settings import EngineSettings
from tests.fakes.clock import NOON
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec, an_agent, an_ai_model, an_applied_spec

R = TypeVar("R", bound=Resource)

OF_AGENT = {"type": "object"}
PDF_SECTIONS = Pipeline(type="pdf-sections")


class UnsyncedStore(MemoryStore):
    """A store whose watch has yet to report what another engine has just written."""

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        return []


def an_admission(
    store: Store,
    folder: Path,
    job_index: JobIndex | None = None,
    *,
    agents: Sequence[AiAgent] = (),
    sources: Sequence[WebhookSource] = (),
    immediate_starts: ImmediateStarts | None = None,
    **settings: Any,
) -> Admission:
    index, attachments, uploads, catalog = job_index or JobIndex(), Attachments(folder), Uploads(folder), Catalog()
    for resource in (*agents, *sources):
        catalog.put(resource)
    engine_settings = EngineSettings(**settings)
    return Admission(
        store, catalog, index, attachments, uploads, Metrics(), engine_settings, immediate_starts=immediate_starts
    )


def a_request(**fields: Any) -> JobRequest:
    usual: dict[str, Any] = {
        "source": "manual",
        "type": "t",
        "owner": "key-1",
        "prompt": "Hello.",
        "config": JobConfig(provider="mock"),
    }
    return JobRequest(**usual | fields)


async def test_a_repeated_request_returns_the_job_that_another_engine_has_just_stored(tmp_path: Path) -> None:
    store, annotations = UnsyncedStore(), {"made-by": "this request"}
    admission, request = an_admission(store, tmp_path), a_request()
    names = JobNames(["ir-00000001", "ir-00000002"], annotations, lambda job: job.metadata.annotations == annotations)

    first, again = await admission.admit(request, names), await admission.admit(request, names)

    assert again.job == first.job
    assert [job.id for job in await store.list(Job)] == ["ir-00000001"]


class Starter:
    """Starts every new job, and notes those that could not be stored."""

    def __init__(self) -> None:
        self.forgotten: list[Job] = []

    def start_new(self, job: Job) -> Job:
        metadata = msgspec.structs.replace(job.metadata, created_at=NOON)
        return advance(msgspec.structs.replace(job, metadata=metadata), JobEvent.START, attempts=1, started_at=NOON)

    def forget_new(self, job: Job) -> None:
        self.forgotten.append(job)


class FullStore(MemoryStore):
    """A store without room for another resource."""

    async def create(self, resource: R, parts: Sequence[Resource] = ()) -> R:
        raise RetryLater("the disk is full")


async def test_a_job_that_starts_immediately_is_stored_and_counted_as_started(tmp_path: Path) -> None:
    store, starts, starter = MemoryStore(), ImmediateStarts(), Starter()
    admission = an_admission(store, tmp_path, immediate_starts=starts)
    with starts.decided_by(starter):
        started = await admission.create(a_request(), random_names())
    waiting = await admission.create(a_request(), random_names())

    assert [job.phase for job in (started, waiting)] == [Phase.RUNNING, Phase.PENDING]
    assert await store.get(Job, started.id) == started
    assert (started.created_at, starter.forgotten) == (NOON, [])


async def test_a_job_that_could_not_be_stored_is_forgotten(tmp_path: Path) -> None:
    starts, starter = ImmediateStarts(), Starter()
    admission = an_admission(FullStore(), tmp_path, immediate_starts=starts)
    with starts.decided_by(starter), pytest.raises(RetryLater):
        await admission.create(a_request(), random_names())

    assert [job.phase for job in starter.forgotten] == [Phase.PENDING]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "ü" * (PROMPT_BYTES // 2 + 1)}, "prompt: must be at most 900 KiB"),
        ({"metadata": {"notes": "x" * METADATA_BYTES}}, "metadata: must be at most 64 KiB"),
        ({"errors": ["x" * PROMPT_BYTES]}, "errors: must be at most 900 KiB as JSON"),
        ({"files": [("a", b"x" * FILES_BYTES), ("b", b"x")]}, "workspaceFiles: must be at most 10 MiB"),
    ],
)
async def test_a_request_over_a_bound_stores_nothing(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    store = MemoryStore()
    with pytest.raises(TooLarge, match=words):
        await an_admission(store, tmp_path).admit(a_request(**fields), random_names())
    assert await store.list(Job) == []


async def test_job_has_its_own_result_schema_or_its_agents(tmp_path: Path) -> None:
    admission, agent = an_admission(MemoryStore(), tmp_path), an_agent(result_schema=OF_AGENT)

    own = await admission.create(a_request(agent=agent, result_schema={}), random_names())
    inherited = await admission.create(a_request(agent=agent), random_names())
    none = await admission.create(a_request(), random_names())

    assert (own.result_schema, inherited.result_schema, none.result_schema) == ({}, OF_AGENT, None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"result_schema": {"type": "strin"}}, "^resultSchema: type must be array"),
        ({"result_schema": {}, "pipeline": PDF_SECTIONS}, "resultSchema: must be absent for the pipeline pdf-sections"),
        ({"agent": an_agent("a", result_schema={"type": "strin"})}, "^resultSchema of the agent 'a': type must be"),
    ],
)
async def test_unusable_result_schema_is_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    request, pdf = a_request(**fields), tmp_path / "a.pdf"
    pdf.write_bytes(b"%PDF-1.7\n")

    with pytest.raises(Invalid, match=words):
        await an_admission(MemoryStore(), tmp_path).create(replace(request, files=[("a.pdf", pdf)]), random_names())


async def test_agents_result_schema_does_not_apply_to_a_pipeline(tmp_path: Path) -> None:
    pdf = tmp_path / "a.pdf"
    pdf.write_bytes(b"%PDF-1.7\n")
    request = a_request(agent=an_agent(result_schema=OF_AGENT), pipeline=PDF_SECTIONS, files=[("a.pdf", pdf)])

    assert (await an_admission(MemoryStore(), tmp_path).create(request, random_names())).result_schema is None


async def test_applied_job_gets_the_result_schema_of_its_agent_in_its_status(tmp_path: Path) -> None:
    store = MemoryStore()
    job = await store.create(a_job(spec=a_spec(agent_role="a", prompt="Hello."), resource_version=""))
    admission = an_admission(store, tmp_path, agents=[an_agent("a", result_schema=OF_AGENT)])

    applied = await admission.admit_applied(job)

    assert (applied.spec.result_schema, applied.result_schema) == (None, OF_AGENT)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"env": {"A": SecretKey(secret="anthropic", key="ANTHROPIC_API_KEY")}}, "config.env.A"),
        ({"env": {"A": SecretKey(secret="of-a-model-to-come", key="OPENAI_API_KEY")}}, "config.env.A.key"),
        ({"env": {"A": SecretKey(secret="app", key="private-key")}}, "config.env.A"),
        ({"env": {"A": SecretKey(secret="signing", key="secret")}}, "config.env.A"),
        ({"mcp_servers": {"a": McpServer(command="a", credentials_ref="anthropic")}}, "config.mcpServers.a.credential"),
        ({"mcp_servers": {"a": McpServer(command="a", credentials_ref="app")}}, "config.mcpServers.a.credentialsRef"),
    ],
)
async def test_applied_job_does_not_give_its_tools_the_secrets_of_models_and_sources(
    tmp_path: Path, config: dict[str, Any], field: str
) -> None:
    store = MemoryStore()
    await store.create(an_ai_model("sonnet", credentials_ref="anthropic"))
    signing = KeyReference(name="signing", key="secret")
    source = WebhookSourceSpec(type="github", credentials_ref="app", secret_ref=signing)
    await store.create(WebhookSource(metadata=Metadata(name="github"), spec=source))
    spec = an_applied_spec(prompt="Hello.", config=JobConfig(provider="mock", **config))
    job = await store.create(a_job(spec=spec, resource_version=""))

    with pytest.raises(Invalid, match=field):
        await an_admission(store, tmp_path).admit_applied(job)


async def test_applied_job_gives_its_tools_other_keys_of_such_a_secret(tmp_path: Path) -> None:
    store = MemoryStore()
    await store.create(an_ai_model("sonnet", credentials_ref="anthropic"))
    env: dict[str, str | SecretKey] = {name: SecretKey(secret=name, key="NPM_TOKEN") for name in ("anthropic", "npm")}
    spec = an_applied_spec(prompt="Hello.", config=JobConfig(provider="mock", env=env))

    assert await an_admission(store, tmp_path).admit_applied(await store.create(a_job(spec=spec, resource_version="")))


@pytest.mark.parametrize(
    ("role", "status", "is_refused"),
    [("webhook-receiver", "False", True), ("webhook-receiver", "True", False), ("api", "False", False)],
)
async def test_a_receiver_that_knows_no_jobs_refuses_those_for_which_the_controller_sees_no_room(
    tmp_path: Path, role: str, status: str, is_refused: bool
) -> None:
    full = Condition(type="Accepting", status=status, reason="x", last_transition_time=NOON, message="it is full")
    source = WebhookSource(
        metadata=Metadata(name="github"),
        spec=WebhookSourceSpec(type="github"),
        status=WebhookSourceStatus(conditions=(full,)),
    )
    of_receiver: dict[str, Any] = (
        {"webhook_source": "github", "webhook_secret_file": tmp_path} if role == "webhook-receiver" else {}
    )
    admission = an_admission(MemoryStore(), tmp_path, sources=[source], role=role, **of_receiver)
    request = a_request(owner="webhook-source/github")
    if is_refused:
        with pytest.raises(Overloaded, match="it is full"):
            await admission.create(request, random_names())
    else:
        await admission.create(request, random_names())


@pytest.mark.parametrize("limit", ["max_waiting_jobs", "max_waiting_jobs_per_owner"])
async def test_a_full_queue_refuses_requests_but_no_child_of_a_chain(tmp_path: Path, limit: str) -> None:
    store, job_index = MemoryStore(), JobIndex()
    waiting = await store.create(a_job(spec=a_spec(owner="key-1"), resource_version=""))
    following = asyncio.create_task(job_index.follow(store))
    await job_index.synced.wait()
    admission = an_admission(store, tmp_path, job_index, **dict[str, Any]({limit: 1}))

    with pytest.raises(Overloaded):
        await admission.admit(a_request(), random_names())
    child = a_request(chain=Chain(id="chain-1", depth=1, parent_job_id=waiting.id))
    created = await admission.create(child, random_names())

    assert {job.id for job in await store.list(Job)} == {waiting.id, created.id}
    following.cancel()

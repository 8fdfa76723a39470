"""The check of jobs that receivers of webhooks create: each is what its agent, trigger and source make of an event."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.intake.admission import Admission
from labrats.intake.deliveries import generic_event, github_event
from labrats.intake.event_requests import event_requests
from labrats.intake.events import METADATA, metadata_of
from labrats.intake.job_names import random_names
from labrats.model.agent import AiAgent, ChainCondition, ChainLink, CiLoop
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.config import JobConfig, ResolvedConfig
from labrats.model.errors import Invalid
from labrats.model.job import Job, JobSpec, KeyReference, Pipeline, WorkspaceFile, WorkspaceUpload
from labrats.model.record import Metadata
from labrats.model.report import CommentMode, Report, StateLabels
from labrats.model.variables import SecretKey
from labrats.model.webhook_source import RepoOverride, WebhookSource, WebhookSourceSpec
from labrats.model.workspace_setup import Setup
from tests.fakes.clock import NOON
from tests.fakes.store import MemoryStore
from tests.support.builders import a_trigger, an_agent
from tests.support.deliveries import a_pull_request_event, an_issue_event
from tests.unit.intake.test_admission import an_admission

ENV = {"TOKEN": SecretKey(secret="of-tools", key="token")}
NEXT = ChainLink(agent_trigger_name="reviewer")
TRIGGER = a_trigger(
    "issues.*",
    filters={"label.name": "ai"},
    config=JobConfig(model="small"),
    next=NEXT,
    report=Report(comment=CommentMode.STICKY),
    concurrency=Concurrency(key="{{ repo }}#{{ number }}"),
)
AGENT = an_agent(
    "developer",
    TRIGGER,
    default_provider="mock",
    env=ENV,
    workspace_setup=Setup(setup=(("npm", "ci"),), setup_timeout_ms=5000),
    result_schema={"type": "object"},
)
SOURCE = WebhookSource(
    metadata=Metadata(name="github", uid="uid-github"),
    spec=WebhookSourceSpec(type="github", credentials_ref="app", defaults=JobConfig(max_turns=9)),
)
ISSUE = an_issue_event("labeled", "OWNER", label={"name": "ai"})


class Engine:
    """The admission of a cluster, with these agents and this source."""

    def __init__(self, folder: Path, agents: Sequence[AiAgent], source: WebhookSource) -> None:
        self.store, self.source, self.catalog = MemoryStore(), source, Catalog()
        for agent in agents:
            self.catalog.put(agent)
        self.admission: Admission = an_admission(
            self.store, folder, agents=agents, sources=[source], backend="kubernetes"
        )

    async def receive(self, payload: Mapping[str, Any] = ISSUE, name: str = "issues") -> Job:
        """Create the job of an event, as a receiver does."""
        is_github = self.source.spec.type == "github"
        event = github_event(name, payload) if is_github else generic_event(self.source, payload)
        owner = f"webhook-source/{self.source.name}"
        requests = await event_requests(event, self.catalog, owner, self.source)
        (job,) = (await self.admission.admit_all(requests, lambda _: random_names())).values()
        return job

    async def forge(self, **fields: Any) -> Job:
        """Create the job of an event with other fields in its spec. fields: of JobSpec."""
        job = await self.receive()
        await self.store.delete(Job, job.id)
        return await self.store.create(replace(job, spec=replace(job.spec, **fields)))


def an_engine(folder: Path, *agents: AiAgent, source: WebhookSource = SOURCE) -> Engine:
    return Engine(folder, agents or [AGENT], source)


GENERIC = WebhookSource(metadata=Metadata(name="tickets", uid="u"), spec=WebhookSourceSpec(type="generic"))


@pytest.mark.parametrize(
    ("agents", "source", "name", "payload"),
    [
        ([AGENT], SOURCE, "issues", ISSUE),
        ([an_agent("developer", a_trigger("issues.labeled"))], SOURCE, "issues", ISSUE),
        ([an_agent("reviewer", a_trigger("pull_request.*"))], SOURCE, "pull_request", a_pull_request_event()),
        (
            [an_agent("helper", a_trigger("ticket", source="tickets"))],
            GENERIC,
            "",
            {"type": "ticket", "repository": {"clone_url": "https://me:hidden@8.8.8.8/octo/demo.git"}},
        ),
    ],
    ids=["everything", "nothing", "pull request", "address with a credential"],
)
async def test_the_job_of_an_event_passes_the_check_with_its_own_settings(
    tmp_path: Path, agents: Sequence[AiAgent], source: WebhookSource, name: str, payload: Mapping[str, Any]
) -> None:
    engine = Engine(tmp_path, agents, source)
    job = await engine.receive(payload, name)
    assert (job.is_unchecked, job.is_resolved) == (True, False)
    checked = await engine.admission.admit_delivered(job)
    assert (checked.is_unchecked, checked.is_resolved) == (False, True)
    assert (checked.status.resolved, checked.spec) == (job.spec.resolved, job.spec)


async def test_settings_of_a_receiver_are_ignored(tmp_path: Path) -> None:
    engine = an_engine(tmp_path)
    own = (await engine.receive()).spec.resolved
    other = ResolvedConfig(
        config=JobConfig(provider="claude", model="opus", env={"A": SecretKey(secret="of-others", key="key")})
    )
    checked = await engine.admission.admit_delivered(await engine.forge(resolved=other))
    assert (checked.resolved, checked.spec.resolved) == (own, other)
    assert (checked.resolved.model, checked.resolved.config.env, checked.resolved.max_turns) == ("small", ENV, 9)


@pytest.mark.parametrize(
    "fields",
    [
        {"agent_role": "unknown"},
        {"by_admin": True},
        {"api_key_ref": "key"},
        {"callback_url": "https://8.8.8.8/"},
        {"chain": None},
        {"concurrency": Concurrency(key="octo/demo#7", on_new=OnNew.SUPERSEDE)},
        {"config": JobConfig(model="opus")},
        {"conversation_ref": KeyReference(name="of-another", key="conversation")},
        {"event_ref": KeyReference(name="of-another", key="event")},
        {"instructions_ref": KeyReference(name="of-another", key="instructions")},
        {"metadata": {"event": "issues.labeled", "repo": "octo/demo", "mock": {"steps": []}}},
        {"owner": "webhook-source/unknown"},
        {"not_before": NOON},
        {"pipeline": Pipeline(type="pdf-sections")},
        {"priority": 0},
        {"prompt": "Inline."},
        {"prompt_ref": KeyReference(name="of-another", key="prompt")},
        {"report": None},
        {"report": Report(labels=StateLabels(failed="deploy"))},
        {"result_schema": None},
        {"source": "manual"},
        {"title": "A title"},
        {"type": "another"},
        {"workspace_files": (WorkspaceFile(name="a.txt", path="jobs/ir-00000001/a.txt", size=1),)},
        {"workspace_uploads": (WorkspaceUpload(id="up-0000000000000000", name="a.txt"),)},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_field_that_no_event_sets_so_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    engine = an_engine(tmp_path)
    job = await engine.forge(**fields)
    with pytest.raises(Invalid) as refused:
        await engine.admission.admit_delivered(job)
    (name,) = fields
    wire_names = {field.name: field.encode_name for field in msgspec.structs.fields(JobSpec)}
    assert [problem.field for problem in refused.value.problems] == [wire_names[name]]
    assert (await engine.store.get(Job, job.id)).is_unchecked


@pytest.mark.parametrize(
    "fields",
    [
        {"credentials_ref": "of-another"},
        {"token_from": "of-another"},
        {"setup": (("sh", "-c", "env"),)},
        {"setup_timeout_ms": None},
        {"git_depth": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_a_workspace_that_the_agent_does_not_set_up_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    engine = an_engine(tmp_path)
    setup = (await engine.receive()).spec.workspace_setup
    assert setup
    job = await engine.forge(workspace_setup=replace(setup, **fields))
    with pytest.raises(Invalid, match="workspaceSetup: is not as the agent 'developer' and its triggers define it"):
        await engine.admission.admit_delivered(job)


@pytest.mark.parametrize(
    "link",
    [
        {"next": ChainLink(agent_trigger_name="deployer")},
        {"next": replace(NEXT, condition=ChainCondition.ALWAYS)},
        {"path": ()},
        {"depth": -9},
    ],
    ids=["agent", "condition", "path", "depth"],
)
async def test_a_chain_that_the_trigger_does_not_start_is_refused(tmp_path: Path, link: dict[str, Any]) -> None:
    engine = an_engine(tmp_path)
    chain = (await engine.receive()).spec.chain
    assert chain
    job = await engine.forge(chain=replace(chain, **link))
    with pytest.raises(Invalid, match="chain: "):
        await engine.admission.admit_delivered(job)


@pytest.mark.parametrize("other", [{"repository": "octo/other"}, {"source": "another"}], ids=["repository", "source"])
async def test_a_report_to_another_repository_or_by_another_source_is_refused(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    engine = an_engine(tmp_path)
    report = (await engine.receive()).spec.report
    assert report
    assert report.target
    job = await engine.forge(report=replace(report, target=replace(report.target, **other)))
    with pytest.raises(Invalid, match="report: "):
        await engine.admission.admit_delivered(job)


async def test_an_address_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    engine = an_engine(tmp_path)
    setup = (await engine.receive()).spec.workspace_setup
    assert setup
    job = await engine.forge(workspace_setup=replace(setup, git_repo="https://169.254.169.254/a.git"))
    with pytest.raises(Invalid, match=r"payload\.repository\.clone_url"):
        await engine.admission.admit_delivered(job)


@pytest.mark.parametrize(
    ("agent", "source"),
    [
        (replace(AGENT, spec=replace(AGENT.spec, enabled=False)), SOURCE),
        (an_agent("developer", replace(TRIGGER, enabled=False)), SOURCE),
        (an_agent("developer", replace(TRIGGER, ci_loop=CiLoop())), SOURCE),
        (an_agent("developer", a_trigger("push")), SOURCE),
        (AGENT, replace(SOURCE, spec=replace(SOURCE.spec, enabled=False))),
        (AGENT, replace(SOURCE, spec=replace(SOURCE.spec, repo_overrides={"octo/demo": RepoOverride(enabled=False)}))),
        (
            AGENT,
            replace(
                SOURCE, spec=replace(SOURCE.spec, repo_overrides={"octo/demo": RepoOverride(agent_trigger_name="a")})
            ),
        ),
    ],
    ids=["agent", "trigger", "checks", "event", "source", "repository", "agent of the repository"],
)
async def test_an_agent_that_no_event_starts_is_refused(tmp_path: Path, agent: AiAgent, source: WebhookSource) -> None:
    job = await an_engine(tmp_path).receive()
    with pytest.raises(Invalid):
        await an_engine(tmp_path, agent, source=source).admission.admit_delivered(job)


async def test_the_settings_of_the_job_choose_between_triggers(tmp_path: Path) -> None:
    labels = ("small", "ai")
    triggers = [a_trigger(filters={"label.name": each}, config=JobConfig(model=each)) for each in labels]
    engine = an_engine(tmp_path, an_agent("developer", *triggers))
    for label in labels:
        job = await engine.receive(an_issue_event("labeled", "OWNER", label={"name": label}))
        assert (await engine.admission.admit_delivered(job)).resolved.model == label
    forged = await engine.forge(resolved=ResolvedConfig(config=JobConfig(model="opus")))
    assert (await engine.admission.admit_delivered(forged)).resolved.model in labels


async def test_the_agent_of_a_repository_is_started_by_the_trigger_of_another(tmp_path: Path) -> None:
    override = RepoOverride(agent_trigger_name="specialist", model="opus")
    source = replace(SOURCE, spec=replace(SOURCE.spec, repo_overrides={"octo/demo": override}))
    engine = an_engine(tmp_path, AGENT, an_agent("specialist", default_provider="mock"), source=source)
    job = await engine.receive()
    assert job.spec.agent_role == "specialist"
    assert (await engine.admission.admit_delivered(job)).resolved == job.spec.resolved


def test_all_metadata_of_an_event_is_expected() -> None:
    assert metadata_of(github_event("issues", ISSUE)).keys() <= METADATA
    assert metadata_of(github_event("pull_request", a_pull_request_event())).keys() <= METADATA

"""Chains: when an agent follows, what its job inherits, that it follows exactly once, and where a chain ends."""

import asyncio
import json
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from msgspec.structs import replace

from labrats.controller.chains import (
    PARENT_RESULT_BYTES,
    PULL_REQUEST_AWAITED,
    Chains,
    End,
    Follow,
    child_names,
    plan_chain,
)
from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.events import IncomingEvent
from labrats.intake.stored_events import event_part
from labrats.intake.stored_jobs import StoredJobs
from labrats.metrics import Metrics
from labrats.model.agent import AiAgent, ChainCondition, ChainLink, FailurePolicy
from labrats.model.attempt_name import AttemptName
from labrats.model.config import JobConfig
from labrats.model.core_resources import JOB_CREDENTIALS, ConfigMap, Secret
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import Chain, Job, KeyReference, Outputs, WorkspaceSetup, retried
from labrats.model.phases import Phase
from labrats.model.record import Metadata, OwnerReference, Resource
from labrats.model.report import Published, PullRequestReport, Report, ReportTarget
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from labrats.ports import Change
from labrats.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec, a_trigger, an_agent, an_instruction
from tests.unit.controller.lab import Lab

R = TypeVar("R", bound=Resource)
P, C, F = Phase, ChainCondition, FailurePolicy

EVENT = IncomingEvent("github", "issues.labeled", {"label": {"name": "ai"}, "issue": {"number": 7}})


def a_link(agent: str = "reviewer", **fields: Any) -> ChainLink:
    return ChainLink(agent_trigger_name=agent, **fields)


def a_chain(link: ChainLink | None = None, *path: str, **fields: Any) -> Chain:
    """Return a chain with the next `link`, at a job of the last agent of `path`."""
    path = path or ("developer",)
    usual: dict[str, Any] = {"id": "chain-1", "path": path, "depth": len(path) - 1, "next": link or a_link()}
    return Chain(**usual | fields)


def a_catalog(*agents: AiAgent) -> Catalog:
    catalog = Catalog()
    for agent in agents:
        catalog.put(agent)
    return catalog


def planned(phase: Phase, link: ChainLink | None = None, *path: str, max_depth: int = 10) -> Follow | End:
    catalog = a_catalog(an_agent("reviewer"), an_agent("off", enabled=False))
    return plan_chain(a_job(phase, spec=a_spec(chain=a_chain(link, *path))), catalog, max_depth)


class TestPlan:
    @pytest.mark.parametrize("condition", C)
    @pytest.mark.parametrize("policy", F)
    @pytest.mark.parametrize("phase", [P.SUCCEEDED, P.FAILED, P.CANCELLED])
    def test_a_link_is_followed_when_its_condition_holds(
        self, phase: Phase, condition: ChainCondition, policy: FailurePolicy
    ) -> None:
        after_success = phase is P.SUCCEEDED and condition in (C.ON_SUCCESS, C.ALWAYS)
        after_failure = phase is P.FAILED and (condition in (C.ON_FAILURE, C.ALWAYS) or policy is F.CONTINUE)
        plan = planned(phase, a_link(condition=condition, failure_policy=policy))
        assert isinstance(plan, Follow if after_success or after_failure else End)

    @pytest.mark.parametrize(
        ("link", "path", "reason"),
        [
            (a_link("nobody"), ["developer"], "there is no agent with the triggerName 'nobody'"),
            (a_link("off"), ["developer"], "the agent 'off' is disabled"),
            (a_link(), ["reviewer", "developer"], "'reviewer' was in this chain before"),
            (a_link(), ["a", "b", "c", "d"], "MAX_CHAIN_DEPTH is 3"),
        ],
    )
    def test_a_chain_that_ends_gives_its_reason(self, link: ChainLink, path: list[str], reason: str) -> None:
        plan = planned(P.SUCCEEDED, link, *path, max_depth=3)
        assert isinstance(plan, End)
        assert reason in plan.reason

    def test_a_chain_may_return_to_an_agent_with_allow_cycles(self) -> None:
        assert isinstance(planned(P.SUCCEEDED, a_link(allow_cycles=True), "reviewer", "developer"), Follow)

    def test_the_names_of_a_child_are_derived_from_its_parent_and_agent(self) -> None:
        parent, other = (replace(a_job(), metadata=Metadata(name="ir-1", uid=uid)) for uid in ("u1", "u2"))
        names = child_names(parent, "reviewer")
        assert names.candidates == child_names(parent, "reviewer").candidates
        assert not {*names.candidates} & {*child_names(other, "reviewer").candidates}
        assert not {*names.candidates} & {*child_names(parent, "tester").candidates}


OTHER_JOB: Final = OwnerReference(kind="InferenceRequest", name="ir-other", uid="other")
URL: Final = "https://github.com/octo/demo/pull/7"


class FailingStore(MemoryStore):
    """A store that fails before or after a write, as often as it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.lose_creates = self.lose_updates = 0
        self.agents_come_after_seconds = 0.0
        self.conflicting_updates = 0

    async def create(self, resource: R, parts: Any = ()) -> R:
        created = await super().create(resource, parts)
        if self.lose_creates:
            self.lose_creates -= 1
            raise RetryLater("the answer was lost")
        return created

    async def watch(self, kind: type[R], *, after: int = 0, unsettled_only: bool = False) -> AsyncIterator[Change[R]]:
        if kind is AiAgent:
            await asyncio.sleep(self.agents_come_after_seconds)
        async for change in super().watch(kind, after=after, unsettled_only=unsettled_only):
            yield change

    async def update(self, resource: R) -> R:
        follows = isinstance(resource, Job) and resource.status.child_job_id is not None
        if follows and self.lose_updates:
            self.lose_updates -= 1
            raise RetryLater("nothing was written")
        if follows and self.conflicting_updates:
            self.conflicting_updates -= 1
            await super().update(await self.get(type(resource), resource.name))
        return await super().update(resource)


class ChainLab(Lab):
    """A lab that continues chains but runs no jobs."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        super().__init__(lab.clock, lab.machine)
        self.store: FailingStore = FailingStore(lab.clock)
        self.folder = folder
        self.max_depth = 10
        self.settings = EngineSettings()

    @asynccontextmanager
    async def chains(self) -> AsyncIterator[None]:
        """Continue chains while the block runs, and then stop as in a crash."""
        catalog = Catalog()
        attachments, uploads = Attachments(self.folder), Uploads(self.folder)
        admission = Admission(self.store, catalog, JobIndex(), attachments, uploads, Metrics(), self.settings)
        labelled_only = self.settings.labelled_credentials
        stored_jobs = StoredJobs(self.store, self.folder, self.clock, labelled_only=labelled_only)
        async with asyncio.TaskGroup() as tasks:
            chains = Chains(self.store, self.runner, catalog, admission, stored_jobs, self.clock, self.max_depth)
            running = [
                tasks.create_task(catalog.follow(self.store)),
                tasks.create_task(chains.run()),
            ]
            yield
            for task in running:
                task.cancel()

    async def add(self, phase: Phase = P.SUCCEEDED, *, spec: dict[str, Any] | None = None, **status: Any) -> Job:
        """Create a job of the developer, whom the reviewer follows."""
        fields: dict[str, Any] = {"chain": a_chain(), "agent_role": "developer", "owner": "key-1"} | (spec or {})
        return await self.store.create(a_job(phase, spec=a_spec(**fields), resource_version="", **status))

    async def agents(self, *agents: AiAgent) -> None:
        for agent in agents:
            await self.store.create(agent)

    async def decided(self, job: Job) -> Job:
        """Return the job once its chain has continued or ended."""
        async with asyncio.timeout(3600):
            while not ((job := await self.job(job)).status.child_job_id or job.status.chain_ended):
                await self.clock.sleep(0.1)
        return job

    async def child_of(self, job: Job) -> Job:
        job = await self.decided(job)
        assert job.status.child_job_id, job.status.chain_ended
        return await self.store.get(Job, job.status.child_job_id)

    async def end(self, job: Job, phase: Phase, **status: Any) -> None:
        job = await self.job(job)
        await self.store.update(replace(job, status=replace(job.status, phase=phase, **status)))

    async def jobs(self) -> list[Job]:
        return await self.store.list(Job)

    async def prompt_of(self, job: Job) -> str:
        return (await self.store.get(ConfigMap, f"{job.id}-prompt")).data["prompt"]

    async def instructions_of(self, job: Job) -> str:
        return (await self.store.get(ConfigMap, f"{job.id}-prompt")).data["instructions"]


@pytest.fixture
def chains(lab: Lab, tmp_path: Path) -> ChainLab:
    return ChainLab(lab, tmp_path)


class TestChild:
    async def test_a_child_inherits_its_owner_and_continues_the_chain(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer", default_model="opus"))
        async with chains.chains():
            parent = await chains.add(spec={"metadata": {"repo": "a/b"}, "priority": 1, "api_key_ref": "key-secret"})
            child = await chains.child_of(parent)
        assert (child.spec.owner, child.spec.api_key_ref, child.spec.priority) == ("key-1", "key-secret", 1)
        assert (child.spec.agent_role, child.spec.metadata, child.spec.source) == (
            "reviewer",
            {"repo": "a/b"},
            "manual",
        )
        assert child.resolved.model == "opus"
        assert child.spec.chain == Chain(
            id="chain-1", depth=1, path=("developer", "reviewer"), parent_job_id=parent.id, next=None
        )

    async def test_a_child_gets_the_settings_of_its_parents_webhook_source(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        spec = WebhookSourceSpec(type="github", defaults=JobConfig(effort="high"))
        await chains.store.create(WebhookSource(metadata=Metadata(name="ours"), spec=spec))
        async with chains.chains():
            child = await chains.child_of(await chains.add(spec={"owner": "webhook-source/ours"}))
        assert (child.resolved.config.effort, child.spec.owner) == ("high", "webhook-source/ours")

    @pytest.mark.parametrize(
        ("outputs", "published", "seconds"),
        [
            (Outputs(bundle_bytes=9), None, PULL_REQUEST_AWAITED.total_seconds()),
            (Outputs(bundle_bytes=9), Published(pull_request_url=URL), 0),
            (Outputs(), None, 0),
        ],
        ids=["not published", "published", "no commits"],
    )
    async def test_a_child_waits_for_the_pull_request_of_its_parent_but_not_for_ever(
        self, chains: ChainLab, outputs: Outputs, published: Published | None, seconds: float
    ) -> None:
        await chains.agents(an_agent("reviewer"))
        report = Report(pull_request=PullRequestReport(), target=ReportTarget(repository="octo/demo", issue=1))
        started = chains.clock.now()
        async with chains.chains():
            spec = {"report": report, "workspace_setup": WorkspaceSetup(git_repo="https://github.com/octo/demo.git")}
            status: dict[str, Any] = {"finished_at": started, "outputs": outputs, "published": published}
            child = await chains.child_of(await chains.add(spec=spec, **status))
        assert (chains.clock.now() - started).total_seconds() == pytest.approx(seconds, abs=2)
        assert child.spec.workspace_setup
        assert child.spec.workspace_setup.git_ref == ("refs/pull/7/head" if published else None)

    async def test_the_child_of_an_untrusted_job_is_untrusted(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            assert (await chains.child_of(await chains.add(spec={"untrusted": True}))).spec.untrusted

    async def test_the_prompt_of_a_child_has_the_parents_result_as_data(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            child = await chains.child_of(await chains.add(result="{{ source }} is done"))
        prompt = await chains.prompt_of(child)
        assert "The agent before you in this chain answered:" in prompt
        assert 'from="parent.result">{{ source }} is done</data-' in prompt

    async def test_instructions_of_a_child_have_the_parents_checked_value_as_data(self, chains: ChainLab) -> None:
        await chains.store.create(an_instruction("how", "Risk {{ parent.data.risk }}, {{ parent.data.note }}."))
        await chains.agents(an_agent("reviewer", instructions=("how",)))
        async with chains.chains():
            parent = await chains.add(result="text", result_data={"risk": 2, "note": "{{ source }}"})
            instructions = await chains.instructions_of(await chains.child_of(parent))
        assert re.search(r'Risk <data-\w+ from="parent.data.risk">2</data-\w+>,', instructions)
        assert 'from="parent.data.note">{{ source }}</data-' in instructions

    async def test_a_child_has_the_result_schema_of_its_own_agent(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer", result_schema={"type": "object"}))
        async with chains.chains():
            child = await chains.child_of(await chains.add(spec={"result_schema": {"type": "array"}}))
        assert child.result_schema == {"type": "object"}

    async def test_a_child_gets_its_parents_prompt_where_no_event_started_the_chain(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            child = await chains.child_of(await chains.add(spec={"prompt": "Mend the fence."}))
        assert "Mend the fence." in await chains.prompt_of(child)

    async def test_the_prompt_of_a_child_has_the_parents_failure(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            link = a_link(condition=C.ON_FAILURE)
            parent = await chains.add(P.FAILED, spec={"chain": a_chain(link)}, failed_reason="it broke")
            assert "it broke" in await chains.prompt_of(await chains.child_of(parent))

    async def test_a_huge_result_of_the_parent_is_cut(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            child = await chains.child_of(await chains.add(result="x" * 2 * PARENT_RESULT_BYTES))
        assert "[cut here" in await chains.prompt_of(child)

    async def test_large_results_of_parents_are_read_one_at_a_time(
        self, chains: ChainLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Decoded, 8 MiB of lists take 400 MiB of the engine's memory."""
        reading, at_once = set[AttemptName](), []

        async def result(name: AttemptName) -> Any:
            reading.add(name)
            at_once.append(len(reading))
            await chains.clock.sleep(1)
            reading.remove(name)
            return [["x" * PARENT_RESULT_BYTES]]

        monkeypatch.setattr(chains.runner, "result", result)
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            parents = [await chains.add(result="x", result_cut=True) for _ in range(3)]
            for parent in parents:
                assert "[cut here" in await chains.prompt_of(await chains.child_of(parent))
        assert at_once == [1, 1, 1]

    async def test_a_nested_result_of_the_parent_takes_memory_of_its_bound(
        self, chains: ChainLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As text for an agent, each of its lines is indented."""
        monkeypatch.setattr("labrats.controller.chains.PARENT_RESULT_BYTES", 16 * 1024)
        nested = [json.loads("[" * 90 + "]" * 90) for _ in range(600)]
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            parent = await chains.add(result=nested)
            tracemalloc.start()
            try:
                await chains.child_of(parent)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < 12 * 2**20

    async def test_a_child_gets_the_parents_branch_and_credential(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        credential = {"username": "x", "password": "test-token"}
        await chains.store.create(Secret(metadata=Metadata(name="ir-git"), data=credential))
        setup = WorkspaceSetup(git_repo="https://1.1.1.1/a.git", git_ref="main", git_depth=3, credentials_ref="ir-git")
        async with chains.chains():
            parent = await chains.add(spec={"workspace_setup": setup}, outputs=Outputs(branch="fix-7"))
            child = await chains.child_of(parent)
            unchanged = await chains.child_of(await chains.add(spec={"workspace_setup": setup}))
            named = [
                await chains.child_of(await chains.add(spec={"workspace_setup": setup}, outputs=Outputs(branch=name)))
                for name in ("refs/pull/7/head", "0123456789abcdef0123456789abcdef01234567")
            ]
        copy = f"{child.id}-git"
        assert child.spec.workspace_setup == replace(setup, git_ref="fix-7", credentials_ref=copy)
        assert (await chains.store.get(Secret, copy)).data == credential
        assert unchanged.spec.workspace_setup
        assert unchanged.spec.workspace_setup.git_ref == "main"
        assert [each.spec.workspace_setup and each.spec.workspace_setup.git_ref for each in named] == [
            "refs/heads/refs/pull/7/head",
            "refs/heads/0123456789abcdef0123456789abcdef01234567",
        ]

    @pytest.mark.parametrize(
        ("branch", "is_untrusted"),
        [
            ("fix-7", False),
            ("labrats-external/ai/7", True),
            ("labrats-external/$x", True),
            ("refs/tags/labrats-external/x", True),
        ],
    )
    async def test_a_child_on_a_branch_of_an_external_contributor_is_untrusted(
        self, chains: ChainLab, branch: str, is_untrusted: bool
    ) -> None:
        """The agent of the parent chooses the name of its branch."""
        await chains.agents(an_agent("reviewer"))
        setup = WorkspaceSetup(git_repo="https://1.1.1.1/a.git")
        async with chains.chains():
            parent = await chains.add(spec={"workspace_setup": setup}, outputs=Outputs(branch=branch))
            child = await chains.child_of(parent)
        assert child.spec.untrusted is is_untrusted

    @pytest.mark.parametrize(
        ("secret", "reason"),
        [
            ({"labels": {}}, "not labelled for jobs"),
            ({"labels": {"labrats.work/type": "ai-api-key"}}, "the engine's own"),
            ({"labels": JOB_CREDENTIALS, "owner": OTHER_JOB}, "belongs to another object"),
        ],
        ids=["unlabelled", "of the engine", "of another job"],
    )
    @pytest.mark.parametrize("was_refused", [False, True])
    async def test_a_child_gets_no_secret_that_its_parent_may_not_use(
        self, chains: ChainLab, secret: dict[str, Any], reason: str, was_refused: bool
    ) -> None:
        """An applied job names any Secret. It is refused, or fails, but its chain may continue after a failure."""
        chains.settings = EngineSettings(labelled_credentials=True)
        await chains.agents(an_agent("reviewer"))
        data = {"username": "x", "password": "test-token"}
        await chains.store.create(Secret(metadata=Metadata(name="of-others", **secret), data=data))
        setup = WorkspaceSetup(git_repo="https://1.1.1.1/a.git", credentials_ref="of-others")
        spec = {"workspace_setup": setup, "chain": a_chain(a_link(condition=C.ALWAYS)), "prompt": "Hello."}
        if was_refused:
            spec |= {"resolved": None}
        async with chains.chains():
            parent = await chains.decided(await chains.add(P.FAILED, spec=spec))
        assert parent.status.child_job_id is None
        assert ("was refused" if was_refused else reason) in (parent.status.chain_ended or "")
        assert [each.name for each in await chains.store.list(Secret)] == ["of-others"]

    async def test_the_child_of_a_job_with_tokens_gets_tokens_of_its_own(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        setup = WorkspaceSetup(git_repo="https://1.1.1.1/a.git", credentials_ref="ir-git", token_from="app")
        async with chains.chains():
            child = await chains.child_of(await chains.add(spec={"workspace_setup": setup}))
        assert child.spec.workspace_setup == replace(setup, credentials_ref=f"{child.id}-git")
        with pytest.raises(NotFound):
            await chains.store.get(Secret, f"{child.id}-git")

    async def test_the_childs_own_trigger_gives_its_instruction_and_next_link(self, chains: ChainLab) -> None:
        further = a_link("tester")
        await chains.agents(
            an_agent("reviewer", a_trigger("push"), a_trigger(instruction="Look closely.", next=further)),
            an_agent("tester", a_trigger(instruction="Test it.", enabled=False)),
        )
        await chains.store.create(event_part("ir-event", EVENT))
        async with chains.chains():
            parent = await chains.add(spec={"event_ref": KeyReference(name="ir-event", key="event")})
            child = await chains.child_of(parent)
            prompt = await chains.prompt_of(child)
            await chains.end(child, P.SUCCEEDED)
            grandchild = await chains.child_of(child)
        assert "Look closely." in prompt
        assert '"number": 7' in prompt
        assert child.spec.chain
        assert child.spec.chain.next == further
        assert "Test it." in await chains.prompt_of(grandchild)
        assert grandchild.spec.chain
        assert grandchild.spec.chain.path == ("developer", "reviewer", "tester")
        assert grandchild.spec.event_ref is None


class TestExactlyOnce:
    async def test_each_edge_creates_one_child_also_after_restarts(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        parents = [await chains.add() for _ in range(20)]
        for _ in range(3):
            async with chains.chains():
                children = [await chains.child_of(parent) for parent in parents]
        assert len({child.id for child in children}) == 20
        assert len(await chains.jobs()) == 40

    @pytest.mark.parametrize("lost", ["lose_creates", "lose_updates"])
    async def test_a_lost_answer_of_the_store_creates_no_second_child(self, chains: ChainLab, lost: str) -> None:
        await chains.agents(an_agent("reviewer"))
        parent = await chains.add()
        setattr(chains.store, lost, 1)
        async with chains.chains():
            await chains.child_of(parent)
        assert getattr(chains.store, lost) == 0
        assert len(await chains.jobs()) == 2

    async def test_concurrent_updates_of_the_parent_create_no_second_child(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        parent = await chains.add()
        chains.store.conflicting_updates = 3
        async with chains.chains():
            await chains.child_of(parent)
        assert chains.store.conflicting_updates == 0
        assert len(await chains.jobs()) == 2

    async def test_a_crash_at_any_moment_leaves_exactly_one_child(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        for turns in range(60):
            parent = await chains.add()
            async with chains.chains():
                for _ in range(turns):
                    await asyncio.sleep(0)
            async with chains.chains():
                child = await chains.child_of(parent)
            assert await chains.prompt_of(child)
        assert len(await chains.jobs()) == 120

    async def test_a_deleted_child_is_not_created_again(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            parent = await chains.add()
            child = await chains.child_of(parent)
            await chains.store.delete(Job, child.id)
        async with chains.chains():
            await chains.child_of(await chains.add())
        with pytest.raises(NotFound):
            await chains.job(child)

    async def test_a_taken_name_is_skipped(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        parent = await chains.add()
        taken, free = child_names(parent, "reviewer").candidates[:2]
        await chains.store.create(a_job(job_id=taken, resource_version=""))
        async with chains.chains():
            assert (await chains.child_of(parent)).id == free


class TestEnd:
    async def test_a_chain_ends_where_other_jobs_have_all_names_of_its_child(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        parent = await chains.add()
        for name in child_names(parent, "reviewer").candidates:
            await chains.store.create(a_job(job_id=name, resource_version=""))
        async with chains.chains():
            ended = await chains.decided(parent)
        assert "no job of the agent 'reviewer' could be created: no free name" in (ended.status.chain_ended or "")

    async def test_a_cancelled_job_ends_its_chain(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            ended = await chains.decided(
                await chains.add(P.CANCELLED, spec={"chain": a_chain(a_link(condition=C.ALWAYS))})
            )
        assert ended.status.chain_ended == "the job was cancelled: 'reviewer' follows any job that was not cancelled"
        assert len(await chains.jobs()) == 1

    async def test_a_successful_retry_continues_an_ended_chain(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            failed = await chains.decided(await chains.add(P.FAILED))
            assert failed.status.chain_ended
            waiting = await chains.store.update(retried(failed))
            await chains.end(waiting, P.SUCCEEDED)
            assert (await chains.child_of(waiting)).spec.chain

    async def test_a_cycle_of_agents_ends_at_the_maximum_depth(self, chains: ChainLab) -> None:
        trigger_a = a_trigger(next=a_link("reviewer", allow_cycles=True))
        trigger_b = a_trigger(next=a_link("developer", allow_cycles=True))
        await chains.agents(an_agent("developer", trigger_a), an_agent("reviewer", trigger_b))
        await chains.store.create(event_part("ir-event", EVENT))
        chains.max_depth = 4
        async with chains.chains():
            job = await chains.add(spec={"event_ref": KeyReference(name="ir-event", key="event")})
            for _ in range(4):
                job = await chains.child_of(job)
                await chains.end(job, P.SUCCEEDED)
            last = await chains.decided(job)
        assert last.status.chain_ended == "'reviewer' would exceed the depth of a chain: MAX_CHAIN_DEPTH is 4"
        assert sorted(each.spec.chain.depth for each in await chains.jobs() if each.spec.chain) == [0, 1, 2, 3, 4]

    async def test_a_chain_waits_until_the_agents_are_known(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        parent = await chains.add()
        chains.store.agents_come_after_seconds = 10
        async with chains.chains():
            await chains.child_of(parent)

    async def test_a_deleted_event_ends_the_chain(self, chains: ChainLab) -> None:
        await chains.agents(an_agent("reviewer"))
        async with chains.chains():
            parent = await chains.add(spec={"event_ref": KeyReference(name="ir-gone", key="event")})
            assert "no job of the agent 'reviewer' could be created" in (
                (await chains.decided(parent)).status.chain_ended or ""
            )

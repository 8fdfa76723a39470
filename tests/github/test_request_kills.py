"""An engine that is killed between any two steps carries out each command, click, reply and repair once."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from labrats.compose import create_services, drive_jobs, publish_reports
from labrats.github.requests import commands, loop, repairs, replies
from labrats.intake.thread_requests import add_request
from labrats.metrics import Metrics
from labrats.model.agent import CiLoop
from labrats.model.job import OWNER_PREFIX, Job, JobStatus, new_job_ids
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.report import CommentMode, Published, PullRequestReport, Report, ReportTarget
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.settings import EngineSettings
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.github.kills import (
    KillsAfterEffects,
    RandomKills,
    SteppedStore,
    add_source,
    run_with_kills,
    run_with_lost_answers,
)
from tests.support.builders import a_spec, a_trigger, an_agent, an_instruction
from tests.support.github import APP_LOGIN, GitHubStandIn, Issue
from tests.support.github.calls import Json
from tests.support.random_seed import SEED

LOST: Final = 8
EFFECTS: Final = 18
"""Effects after which an engine is killed at least; whether a job is Running when it is cancelled depends on time."""
KILLS: Final = int(os.environ.get("LABRATS_PUBLISHER_KILLS", "50"))
"""Kills of the long test; `make torture` sets more."""
STEPS: Final = 400
STEPS_OF_A_REPAIR: Final = 60
"""About as many steps as an engine makes for all requests at once, and for one repair."""

ATTEMPTS: Final = 2
HELP: Final = ThreadAnswer(reaction="+1", text="These are the commands.")
"""The answer to a request for help comes with it."""

HANG: Final = {"hang": True}
FAIL: Final = {"fail": "it does not work"}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (commands, repairs, replies):
        monkeypatch.setattr(module, "WAIT_FOR_JOB_SECONDS", 0.1)
    monkeypatch.setattr(repairs, "WAIT_FOR_CHECKS_SECONDS", 0.1)


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary event loop, since the tests use sockets."""
    return "asyncio"


@dataclass
class World:
    """The parts that outlive an engine that is killed: GitHub, a store, a machine with attempts, and a folder.

    requests: that GitHub delivers to each engine again, since it cannot know whether an earlier one has stored them.
    """

    github: GitHubStandIn
    folder: Path
    machine: MemoryMachine
    store: SteppedStore = field(default_factory=SteppedStore)
    requests: list[ThreadRequest] = field(default_factory=list)
    comments: dict[str, Json] = field(default_factory=dict)

    async def set_up(self) -> None:
        await add_source(self.store)
        await self.store.create(an_instruction())
        developer = an_agent(
            "ai-developer", a_trigger(instruction="implement"), default_provider="mock", report=_report()
        )
        loop = CiLoop(attempts_per_pull_request=ATTEMPTS, label="needs-human")
        repairs = a_trigger("check_run.completed", instruction="implement", ci_loop=loop)
        await self.store.create(developer)
        await self.store.create(an_agent("ci-fixer", repairs, default_provider="mock", report=_report()))

    async def run(self) -> None:
        """Run an engine until all requests are carried out and answered, and all jobs have ended and are reported."""
        settings = EngineSettings(
            role="controller",
            data_dir=self.folder,
            github_api_url=self.github.url,
            outbound_allowed_cidrs=("127.0.0.0/8",),
            report_interval_seconds=0.001,
            stop_grace_seconds=0.1,
            retry_backoff_seconds=0.01,
        )
        runner = MemoryRunner(self.store, self.machine)
        services = await create_services(settings, self.store, runner, Metrics())
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(each)
                    for each in (
                        services.catalog.follow(self.store),
                        services.job_index.follow(self.store),
                        drive_jobs(services, self.store, runner),
                        publish_reports(services, self.store, runner, timedelta(0)),
                    )
                ]
                source = await self.store.get(WebhookSource, "github")
                for request in self.requests:
                    await add_request(self.store, source, request)
                while not await self._is_done():
                    await asyncio.sleep(0.005)
                for task in running:
                    task.cancel()
        finally:
            services.job_index.close()

    async def _is_done(self) -> bool:
        status = (await self.store.get(WebhookSource, "github")).status
        are_answered = {request.id for request in self.requests} <= set(status.answered_requests)
        return are_answered and all(job.ended and job.is_published for job in await self.store.list(Job))

    async def add_job(self, target: ReportTarget, phase: Phase, *steps: Any, **published: Any) -> Job:
        """Store a job of the source about a thread. Unless it is Pending, it has had one attempt."""
        report = replace(_report(), target=target)
        spec = a_spec(steps or None, agent_role="ai-developer", report=report, owner=f"{OWNER_PREFIX}github")
        job = await self.store.create(Job(metadata=Metadata(name=new_job_ids(1)[0]), spec=spec))
        if phase is not Phase.PENDING:
            now = datetime.now(UTC)
            status = JobStatus(
                phase=phase, attempts=1, started_at=now, finished_at=now, published=Published(**published)
            )
            job = await self.store.update(replace(job, status=status))
        return job

    def ask(self, issue: Issue, action: ThreadAction, **fields: Any) -> ThreadRequest:
        """Write a comment with a request, whose event GitHub delivers from now on."""
        comment = self.github.demo.comment(issue, "Make it blue.")
        request_id, target = f"comment-{comment['id']}", replace(_target_of(issue), comment=comment["id"])
        self.comments[request_id] = comment
        return self._add(issue, action, request_id, "issue_comment.created", target, **fields)

    def click(self, issue: Issue, action: ThreadAction, job: Job) -> None:
        """Click a button of the job's check run, whose event GitHub delivers from now on."""
        event = "check_run.rerequested" if action is ThreadAction.RETRY else "check_run.requested_action"
        self._add(issue, action, f"click-{self.github.world.new_id()}", event, _target_of(issue), job=job.id)

    def ask_in_review(self, pull: Issue) -> None:
        """Review the pull request, whose event GitHub delivers from now on."""
        assert pull.pull
        review: Json = {"id": self.github.world.new_id(), "user": pull.user, "body": "Make it blue."}
        review |= {"state": "COMMENTED", "commit_id": pull.pull.head_sha, "submitted_at": pull.created_at}
        pull.pull.reviews.append(review)
        request_id, event = f"review-{review['id']}", "pull_request_review.submitted"
        self._add(pull, ThreadAction.REPLY, request_id, event, _target_of(pull), review=review["id"])

    def ask_for_repair(self, pull: Issue) -> None:
        """Let a check of the pull request's head fail, whose event GitHub delivers from now on."""
        found = self.github.demo.refresh(pull)
        assert found
        self.github.demo.end_check(found.head_sha, log="expected blue, found red\n")
        target = replace(_target_of(pull), head_sha=found.head_sha)
        request_id = f"checks-{found.head_sha}-ci-fixer"
        self._add(pull, ThreadAction.REPAIR, request_id, "check_run.completed", target, agent="ci-fixer")

    def _add(
        self, issue: Issue, action: ThreadAction, request_id: str, event: str, target: ReportTarget, **fields: Any
    ) -> ThreadRequest:
        now = datetime.now(UTC)
        request = ThreadRequest(
            id=request_id, action=action, event=event, target=target, received_at=now, url=issue.url, **fields
        )
        self.requests.append(request)
        return request

    async def jobs_of(self, issue: Issue) -> Sequence[Job]:
        """Return the jobs about a thread, the oldest first."""
        found = [job for job in await self.store.list(Job) if job.spec.report and job.spec.report.target]
        about = [job for job in found if job.spec.report and job.spec.report.target.number == issue.number]  # type: ignore[union-attr]
        return sorted(about, key=lambda job: job.created_at)

    def reactions_to(self, request: ThreadRequest) -> list[str]:
        return [each["content"] for each in self.github.demo.reactions_to(self.comments[request.id])]

    def comments_of(self, issue: Issue) -> Counter[str]:
        """Count the engine's comments on a thread, by their kind."""
        bodies = [each["body"] for each in issue.comments if each["user"]["login"] == APP_LOGIN]
        kinds = ("labrats:answer", '"agent ai-developer"', '"agent ci-fixer"', '"end of attempt')
        return Counter(next(kind for kind in kinds if kind in body) for body in bodies)


def _report() -> Report:
    return Report(comment=CommentMode.STICKY, pull_request=PullRequestReport())


def _target_of(issue: Issue) -> ReportTarget:
    number = {"pull_request": issue.number} if issue.pull else {"issue": issue.number}
    return ReportTarget(repository="octo/demo", source="github", **number)  # type: ignore[arg-type]


Run = Callable[[], Awaitable[int]]
"""Runs engines until they are done. Returns the number of faults."""


async def a_round(world: World, run: Run, run_repairs: Run) -> int:
    """Ask for everything that people and checks can ask for, run engines with faults, and check the results.

    Return the number of faults.
    """
    github = world.github
    to_cancel, to_retry, to_rerun, to_run, idle, to_help, clicked = (github.demo.open_issue() for _ in range(7))
    number = to_cancel.number
    to_reply, to_review, to_repair = (a_pull_request(github, f"{name}-{number}") for name in ("a", "b", "c"))
    await world.add_job(_target_of(to_cancel), Phase.PENDING, HANG)
    for issue in (to_retry, to_rerun):
        await world.add_job(_target_of(issue), Phase.FAILED, FAIL)
    for pull in (to_reply, to_review, to_repair):
        await world.add_job(_target_of(pull), Phase.SUCCEEDED, pull_request_url=pull.url)
    to_stop = await world.add_job(_target_of(clicked), Phase.PENDING, HANG)
    to_try = await world.add_job(_target_of(clicked), Phase.FAILED, FAIL)
    to_repeat = await world.add_job(_target_of(clicked), Phase.SUCCEEDED)
    world.click(clicked, ThreadAction.CANCEL, to_stop)
    world.click(clicked, ThreadAction.RETRY, to_try)
    world.click(clicked, ThreadAction.RETRY, to_repeat)
    reactions = {
        world.ask(to_cancel, ThreadAction.CANCEL): "+1",
        world.ask(to_retry, ThreadAction.RETRY): "+1",
        world.ask(to_rerun, ThreadAction.RETRY, model="another-model"): "eyes",
        world.ask(to_run, ThreadAction.RUN, agent="ai-developer"): "eyes",
        world.ask(idle, ThreadAction.CANCEL): "confused",
        world.ask(to_help, ThreadAction.HELP, answer=HELP): "+1",
        world.ask(to_reply, ThreadAction.REPLY): "eyes",
    }
    world.ask_in_review(to_review)
    faults = await run()
    for _ in range(ATTEMPTS + 2):
        world.ask_for_repair(to_repair)
        faults += await run_repairs()
        push(github, to_repair)
    to_change = world.ask(to_repair, ThreadAction.REPLY)
    faults += await run_repairs()

    assert {request.id: world.reactions_to(request) for request in reactions} == {
        request.id: [reaction] for request, reaction in reactions.items()
    }
    (cancelled,) = await world.jobs_of(to_cancel)
    assert cancelled.phase is Phase.CANCELLED
    (retried,) = await world.jobs_of(to_retry)
    assert (retried.phase, retried.status.attempts) == (Phase.FAILED, 2)
    first, again = await world.jobs_of(to_rerun)
    assert (first.status.attempts, again.status.attempts, again.resolved.model) == (1, 1, "another-model")
    (started,) = await world.jobs_of(to_run)
    assert (started.phase, started.status.attempts) == (Phase.SUCCEEDED, 1)
    stopped, tried, repeated, repetition = await world.jobs_of(clicked)
    assert [each.id for each in (stopped, tried, repeated)] == [to_stop.id, to_try.id, to_repeat.id]
    assert (stopped.phase, tried.phase, tried.status.attempts) == (Phase.CANCELLED, Phase.FAILED, 2)
    assert (repeated.status.attempts, repetition.phase, repetition.status.attempts) == (1, Phase.SUCCEEDED, 1)
    for pull in (to_reply, to_review):
        maker, follow_up = await world.jobs_of(pull)
        assert (follow_up.spec.follow_up_of, follow_up.status.attempts) == (maker.id, 1)
    opener, *repairs, change = await world.jobs_of(to_repair)
    assert (change.spec.follow_up_of, world.reactions_to(to_change)) == (opener.id, ["eyes"])
    assert [(job.spec.agent_role, job.status.attempts) for job in repairs] == [("ci-fixer", 1)] * ATTEMPTS
    assert to_repair.labels == ["needs-human"]
    answers = {"labrats:answer": 1}
    ending = {'"end of attempt': 1}
    assert world.comments_of(to_repair) == answers | ending | {'"agent ai-developer"': 1, '"agent ci-fixer"': 1}
    assert world.comments_of(idle) == world.comments_of(to_help) == answers
    reports = {'"agent ai-developer"': 1}
    assert (
        world.comments_of(clicked)
        == world.comments_of(to_cancel)
        == world.comments_of(to_retry)
        == world.comments_of(to_review)
        == reports
    )
    for thread in (to_run, to_rerun, to_reply):
        assert world.comments_of(thread) == reports | ending
    return faults


def a_pull_request(github: GitHubStandIn, branch: str) -> Issue:
    github.demo.git.commit({"colour.txt": f"red, for {branch}\n"}, branch)  # equal commits would have equal ids
    return github.demo.open_pull(branch)


def push(github: GitHubStandIn, pull: Issue) -> None:
    """Add a commit to the pull request, after which its checks run again."""
    assert pull.pull
    github.demo.git.commit({"colour.txt": f"{pull.pull.head_sha}\n"}, pull.pull.head)


async def a_world(github: GitHubStandIn, folder: Path, machine: MemoryMachine) -> World:
    world = World(github, folder, machine)
    await world.set_up()
    return world


@pytest.mark.timeout(240)
async def test_kills_after_each_effect_of_a_request_repeat_none(
    github: GitHubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "WORKERS", 1)  # else a kill after one effect can hide another one
    async with MemoryMachine() as machine:
        world = await a_world(github, tmp_path, machine)
        run = partial(run_with_kills, github, world.store, KillsAfterEffects(), world.run)
        assert await a_round(world, run, run) >= EFFECTS


async def test_lost_answers_of_the_store_repeat_no_request(github: GitHubStandIn, tmp_path: Path) -> None:
    async with MemoryMachine() as machine:
        world = await a_world(github, tmp_path, machine)
        run = partial(run_with_lost_answers, world.store, KillsAfterEffects(), world.run)
        assert await a_round(world, run, run) >= LOST


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_many_kills_carry_out_no_request_twice(github: GitHubStandIn, tmp_path: Path) -> None:
    chance, killed = random.Random(SEED), 0
    async with MemoryMachine() as machine:
        world = await a_world(github, tmp_path, machine)
        kill = partial(run_with_kills, github, world.store)
        run, run_repairs = (
            partial(kill, RandomKills(chance, steps), world.run) for steps in (STEPS, STEPS_OF_A_REPAIR)
        )
        while killed < KILLS:
            killed += await a_round(world, run, run_repairs)
            world.requests.clear()  # GitHub delivers old events no more, and a source remembers only so many

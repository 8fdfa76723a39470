"""Requests to continue an ended job."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.intake.follow_ups import follow_up_request
from labrats.intake.request import JobRequest
from labrats.intake.reruns import Changes
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.attempt_name import AttemptName
from labrats.model.caller import Caller
from labrats.model.conversation import Turn, encode_conversation
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import IllegalMove, NotEnded
from labrats.model.git_repo import GitRepo
from labrats.model.job import Job, KeyReference, Pipeline, WorkspaceSetup
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.report import CommentMode, Report
from tests.fakes.clock import FakeClock
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec

CALLER = Caller("caller", frozenset({"submit"}))


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore(FakeClock())
    await store.create(ConfigMap(metadata=Metadata(name="texts"), data={"prompt": "Say hello."}))
    return store


def an_ended_job(phase: Phase = Phase.SUCCEEDED, **fields: Any) -> Job:
    spec = a_spec(prompt_ref=KeyReference(name="texts", key="prompt"), **fields)
    return a_job(phase, spec=spec, result="Hello!")


GO_ON = Changes("Go on.")


async def requested(store: MemoryStore, job: Job, message: Changes = GO_ON) -> JobRequest:
    runner = MemoryRunner(store, MemoryMachine())
    stored_jobs = StoredJobs(store, Path("/uploads"), FakeClock(), labelled_only=True)
    return await follow_up_request(stored_jobs, runner, job, message, CALLER)


async def test_follow_up_keeps_the_report_and_never_raises_the_trust(store: MemoryStore) -> None:
    report = Report(comment=CommentMode.STICKY)

    request = await requested(store, an_ended_job(untrusted=True, report=report, owner="somebody"))

    assert (request.untrusted, request.report, request.owner) == (True, report, "caller")
    assert (request.chain, request.submitted.callback_url, request.prompt) == (None, None, "Go on.")


async def test_follow_up_has_no_result_schema(store: MemoryStore) -> None:
    assert (await requested(store, an_ended_job(result_schema={"type": "object"}))).result_schema is None


async def test_follow_up_may_have_a_schema_a_callback_and_no_report(store: MemoryStore) -> None:
    message = Changes("Go on.", report=False, result_schema={"type": "object"}, callback_url="https://ci.example.com")

    request = await requested(store, an_ended_job(report=Report(comment=CommentMode.STICKY)), message)

    assert (request.report, request.result_schema) == (None, {"type": "object"})
    assert request.submitted.callback_url == "https://ci.example.com"


async def test_conversation_grows_by_the_turn_that_is_answered(store: MemoryStore) -> None:
    before = Turn(prompt="Hi?", answer="Hi!")
    stored = ConfigMap(metadata=Metadata(name="earlier"), data={"conversation": encode_conversation((before,))})
    await store.create(stored)
    reference = KeyReference(name="earlier", key="conversation")

    grown = await requested(store, an_ended_job(follow_up_of="ir-0", conversation_ref=reference))
    lost = await requested(store, an_ended_job(conversation_ref=KeyReference(name="gone", key="conversation")))

    turn = Turn(prompt="Say hello.", answer="Hello!")
    assert grown.follow_up
    assert lost.follow_up
    assert (grown.follow_up.conversation, lost.follow_up.conversation) == ((before, turn), (turn,))


async def test_expired_git_credential_is_left_out_as_the_workspace_may_still_exist(store: MemoryStore) -> None:
    setup = WorkspaceSetup(git_repo="https://github.com/octocat/hello-world.git", credentials_ref="gone")
    job = an_ended_job(workspace_setup=setup)

    request = await requested(store, job)

    assert request.repo == GitRepo(setup.git_repo)


async def test_job_that_runs_or_has_lost_its_prompt_cannot_be_continued(store: MemoryStore) -> None:
    with pytest.raises(NotEnded, match="the job has not ended: wait for its end or cancel it"):
        await requested(store, an_ended_job(Phase.RUNNING))
    with pytest.raises(IllegalMove, match="a pipeline has no conversation"):
        await requested(store, an_ended_job(pipeline=Pipeline(type="pdf-sections")))
    await store.delete(ConfigMap, "texts")
    with pytest.raises(IllegalMove, match="prompt was deleted"):
        await requested(store, an_ended_job())


async def test_large_answer_takes_little_memory(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several callers may continue jobs with large results at once, and the engine does nothing else meanwhile."""
    answer = "x" * 4_000_000

    async def result(_: MemoryRunner, name: AttemptName) -> str:
        return answer

    monkeypatch.setattr(MemoryRunner, "result", result)
    job = an_ended_job()
    job = replace(job, status=replace(job.status, result_cut=True))
    tracemalloc.start()
    try:
        request = await requested(store, job)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert request.follow_up is not None
    assert "[cut here" in request.follow_up.conversation[-1].answer
    assert peak < 2_000_000

"""One job on fakes, from Pending to its end."""

from datetime import timedelta
from typing import TypeVar

from structlog.testing import capture_logs

from labrats.model.job import FailedCode, KeyReference, Usage
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.ports import Gone
from tests.fakes.clock import NOON
from tests.unit.controller.lab import Lab

R = TypeVar("R", bound=Resource)
P = Phase


async def test_a_job_runs_to_its_result(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 1500}, {"log": "done"}, {"usage": {"turns": 2}}, {"result": 42}])
        running, ended = await lab.started(job), await lab.ended(job)
    assert (running.status.attempts, running.status.slot) == (1, "mock/mock")
    assert (running.status.started_at, running.status.deadline_at) == (NOON, NOON + timedelta(milliseconds=3_300_000))
    assert (ended.phase, ended.status.result) == (P.SUCCEEDED, 42)
    assert (ended.status.logs, ended.status.usage) == (("done",), Usage(turns=2, cost_usd=0.0, seconds=1.5))
    assert ended.status.finished_at == NOON + timedelta(seconds=1.5)


async def test_a_job_submitted_before_the_controller_started_runs(lab: Lab) -> None:
    job = await lab.submit()
    async with lab.controller():
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_a_large_job_that_has_waited_runs_with_all_its_fields(lab: Lab) -> None:
    await lab.set_slots(1)
    text = {"text": "x" * 20_000}
    async with lab.controller():
        first = await lab.submit([{"sleepMs": 1500}])
        large = await lab.submit([{"result": 42}], result_schema=text)
        assert (await lab.ended(first)).phase is P.SUCCEEDED
        ended = await lab.ended(large)
    assert (ended.phase, ended.status.result) == (P.SUCCEEDED, 42)
    assert ended.spec == large.spec
    assert ended.spec.result_schema == text


async def test_a_failure_names_its_code_and_reason(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([{"fail": "the tests are red"}]))
    assert ended.phase is P.FAILED
    assert (ended.status.failed_code, ended.status.failed_reason) == (FailedCode.AGENT_ERROR, "the tests are red")


async def test_a_failure_is_logged(lab: Lab) -> None:
    with capture_logs() as logged:
        async with lab.controller():
            failed = await lab.ended(await lab.submit([{"fail": "the tests are red"}]))
            await lab.ended(await lab.submit())
    (entry,) = [entry for entry in logged if entry["event"] == "job failed"]
    assert (entry["job"], entry["attempts"]) == (failed.id, 1)
    assert (entry["code"], entry["reason"]) == (FailedCode.AGENT_ERROR, "the tests are red")


async def test_a_job_that_can_never_start_fails_and_releases_its_slot(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        hopeless = await lab.submit(prompt=None, prompt_ref=KeyReference(name="missing", key="prompt"))
        next_one = await lab.submit()
        ended = await lab.ended(hopeless)
        assert (await lab.ended(next_one)).phase is P.SUCCEEDED
    assert (ended.phase, ended.status.failed_code) == (P.FAILED, FailedCode.INTERNAL)
    assert ended.status.finished_at
    assert isinstance(await lab.runner.find(ended.attempt_name), Gone)

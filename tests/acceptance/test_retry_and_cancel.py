"""The end of a job by cancel or deadline, and its further attempts by retry or `maxAttempts`."""

import asyncio

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, Engine, LocalEngine, User


async def wait_for_log_line(user: User, job_id: str, line: str) -> None:
    """Wait until the job has logged `line`."""
    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
        async for event in events:
            if event.data == {"log": line}:
                return
    raise AssertionError(f"the job did not log {line!r}")


class TestCancel:
    async def test_waiting_job_is_cancelled_at_once(self, user: User, admin: User, name: str, model: str) -> None:
        await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})
        job_id = await user.submit(config={"model": model})

        detail = await user.cancel(job_id)

        assert (detail["status"], detail["phase"]) == ("cancelled", "Cancelled")
        assert detail["attempts"] == 0
        assert detail["finishedAt"] is not None

    async def test_cancelled_job_stays_active_until_its_processes_have_ended(self, user: User) -> None:
        job_id = await user.submit({"log": "on"}, {"hang": True})
        await wait_for_log_line(user, job_id, "on")

        requested = await user.cancel(job_id)
        assert requested["status"] == "active"
        assert requested["cancelRequestedAt"] is not None

        ended = await user.wait(job_id)
        assert ended["status"] == "cancelled"
        assert ended["cancelRequestedAt"] == requested["cancelRequestedAt"]
        assert ended["failedCode"] is None
        assert ended["logs"] == ["on"]

    async def test_cancel_kills_processes_that_ignore_signals_or_are_detached(self, engine: Engine, user: User) -> None:
        """The job stays `active` until none of its processes is alive."""
        job_id = await user.submit(
            {"ignoreSignals": True},
            {"fork": {"seconds": 300, "detached": True}},
            {"fork": {"seconds": 300}},
            {"log": "stubborn"},
            {"hang": True},
        )
        await wait_for_log_line(user, job_id, "stubborn")
        assert len(engine.processes_of(job_id)) == (3 if isinstance(engine, LocalEngine) else 1)

        await user.cancel(job_id)

        assert (await user.wait(job_id))["status"] == "cancelled"
        assert engine.processes_of(job_id) == []

    async def test_repeated_cancel_answers_200_and_changes_nothing(self, user: User) -> None:
        job_id = await user.submit({"ignoreSignals": True}, {"log": "stubborn"}, {"hang": True})
        await wait_for_log_line(user, job_id, "stubborn")

        first, *others = [await user.cancel(job_id) for _ in range(3)]

        assert [other["cancelRequestedAt"] for other in others] == [first["cancelRequestedAt"]] * 2
        assert (await user.wait(job_id))["status"] == "cancelled"

    @pytest.mark.parametrize("last_step", [{"result": 1}, {"fail": "no"}, None])
    async def test_cancel_of_an_ended_job_is_refused(self, user: User, last_step: object) -> None:
        job_id = await user.submit(last_step or {"hang": True})
        if last_step is None:
            await user.wait(job_id, "active")
            await user.cancel(job_id)
        before = await user.wait(job_id)

        answer = await user.post(f"/api/jobs/{job_id}/cancel")

        assert answer.status_code == 400
        assert before["status"] in answer.json()["error"]
        assert await user.job(job_id) == before

    async def test_job_whose_cancel_was_accepted_ends_as_cancelled(self, user: User) -> None:
        """Even a success that follows the cancel does not change that."""
        job_ids = [await user.submit({"sleepMs": 3 * n}, {"result": n}) for n in range(10)]

        answers = await asyncio.gather(*(user.post(f"/api/jobs/{job_id}/cancel") for job_id in job_ids))

        for job_id, answer in zip(job_ids, answers, strict=True):
            expected = {200: "cancelled", 400: "completed"}[answer.status_code]
            assert (await user.wait(job_id))["status"] == expected


class TestRetry:
    async def test_retried_job_is_requeued_and_its_attempts_are_counted_on(self, user: User) -> None:
        job_id = await user.submit({"onAttempt": 1, "steps": [{"fail": "not yet"}]}, {"result": "now"})
        failed = await user.wait(job_id)
        assert (failed["status"], failed["attempts"]) == ("failed", 1)

        answer = await user.post(f"/api/jobs/{job_id}/retry")

        assert answer.status_code == 200
        again = answer.json()
        assert (again["id"], again["status"], again["phase"]) == (job_id, "waiting", "Pending")
        cleared = ("failedReason", "failedCode", "finishedAt", "accountName", "deadlineAt")
        assert [again[field] for field in cleared] == [None] * len(cleared)
        done = await user.wait(job_id)
        assert (done["status"], done["attempts"], done["result"]) == ("completed", 2, "now")

    async def test_usage_is_the_sum_of_all_attempts(self, user: User) -> None:
        job_id = await user.submit({"usage": {"inputTokens": 7}}, {"onAttempt": 1, "steps": [{"fail": "no"}]})
        await user.wait(job_id)

        await user.post(f"/api/jobs/{job_id}/retry")

        assert (await user.wait(job_id))["usage"]["inputTokens"] == 14

    @pytest.mark.parametrize("end", ["completed", "cancelled", "active"])
    async def test_only_a_failed_job_can_be_retried(self, user: User, end: str) -> None:
        job_id = await user.submit(*([{"hang": True}] if end != "completed" else []))
        await user.wait(job_id, *(["active"] if end != "completed" else []))
        if end == "cancelled":
            await user.cancel(job_id)
            await user.wait(job_id)

        answer = await user.post(f"/api/jobs/{job_id}/retry")

        assert answer.status_code == 400
        assert end in answer.json()["error"]
        assert (await user.job(job_id))["status"] == end

    async def test_concurrent_retries_start_one_attempt(self, user: User) -> None:
        job_id = await user.submit(
            {"onAttempt": 1, "steps": [{"fail": "no"}]}, {"onAttempt": 2, "steps": [{"hang": True}]}
        )
        await user.wait(job_id)

        answers = await asyncio.gather(*(user.post(f"/api/jobs/{job_id}/retry") for _ in range(10)))

        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 9
        assert (await user.wait(job_id, "active"))["attempts"] == 2


class TestDeadline:
    @pytest.mark.parametrize("steps", [[{"hang": True}], [{"ignoreSignals": True}, {"hang": True}]])
    async def test_job_that_exceeds_its_timeout_fails_with_timeout(
        self, engine: Engine, user: User, steps: list[object]
    ) -> None:
        timeout_ms = int(engine.start_seconds * 1000) + 500
        detail = await user.run({"log": "slow"}, *steps, config={"timeoutMs": timeout_ms})

        assert (detail["status"], detail["failedCode"]) == ("failed", "timeout")
        assert f"{timeout_ms / 1000} s" in detail["failedReason"]
        assert detail["logs"] == ["slow"]
        assert engine.processes_of(detail["id"]) == []

    async def test_timeout_excludes_the_time_in_the_queue(
        self, engine: Engine, user: User, admin: User, name: str, model: str
    ) -> None:
        timeout_ms = int(engine.start_seconds * 1000)
        await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 1})
        first = await user.submit({"sleepMs": timeout_ms + 500}, config={"model": model})
        second = await user.submit({"result": "in time"}, config={"model": model, "timeoutMs": timeout_ms})

        assert (await user.wait(second))["status"] == "completed"
        assert (await user.wait(first))["status"] == "completed"


class TestFurtherAttempts:
    async def test_failing_job_is_attempted_up_to_max_attempts_until_it_succeeds(self, user: User) -> None:
        detail = await user.run(
            {"onAttempt": 1, "steps": [{"fail": "no"}]},
            {"onAttempt": 2, "steps": [{"signal": 9}]},
            {"result": "third time"},
            config={"maxAttempts": 3},
        )

        assert (detail["status"], detail["attempts"], detail["result"]) == ("completed", 3, "third time")
        assert detail["failedReason"] is None

    async def test_failed_job_has_the_reason_of_its_last_attempt(self, user: User) -> None:
        detail = await user.run(
            {"onAttempt": 1, "steps": [{"fail": "first"}]}, {"fail": "second"}, config={"maxAttempts": 2}
        )

        assert (detail["status"], detail["attempts"], detail["failedReason"]) == ("failed", 2, "second")

    async def test_job_without_max_attempts_is_attempted_once(self, user: User) -> None:
        detail = await user.run({"fail": "once"})

        assert (detail["status"], detail["attempts"]) == ("failed", 1)

    async def test_timed_out_job_is_not_attempted_again(self, user: User) -> None:
        detail = await user.run({"hang": True}, config={"maxAttempts": 3, "timeoutMs": 100})

        assert (detail["failedCode"], detail["attempts"]) == ("timeout", 1)

"""Callbacks: the engine reports the start and the end of a job to its `callbackUrl`."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User, a_submission
from tests.support.webhook_receiver import Receiver, a_receiver, answer

SECRET = "whsec_dGVzdC1zaWduaW5nLXNlY3JldA=="
KEY = b"test-signing-secret"


@pytest.fixture
def calling_engine(start_engine: EngineFactory) -> LocalEngine:
    """An engine that may send callbacks to this machine, and signs them."""
    return start_engine(OUTBOUND_ALLOWED_CIDRS="127.0.0.0/8", CALLBACK_SIGNING_SECRET=SECRET)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with a_receiver() as receiver:
        yield receiver


async def test_start_and_end_of_a_job_are_reported_in_signed_callbacks(
    calling_engine: LocalEngine, receiver: Receiver
) -> None:
    async with calling_engine.user() as user:
        job_id = await user.submit(callbackUrl=receiver.url, metadata={"repo": "a/b", "mine": [1]})
        await receiver.got("in_progress", "completed")
        about = {"jobId": job_id, "metadata": {"repo": "a/b", "mine": [1]}}
        assert [delivery.message for delivery in receiver.received] == [
            about | {"phase": "in_progress"},
            about | {"phase": "completed"},
        ]
        assert all(delivery.is_signed_by(KEY) for delivery in receiver.received)
        assert not any(delivery.is_signed_by(b"another key") for delivery in receiver.received)
        while (await user.job(job_id))["callback"]["phase"] != "completed":
            await asyncio.sleep(0.02)
        assert (await user.job(job_id))["callback"]["problem"] is None


async def test_callback_of_a_failed_or_cancelled_job_gives_the_reason(
    calling_engine: LocalEngine, receiver: Receiver
) -> None:
    async with calling_engine.user() as user:
        await user.submit({"fail": "the tests do not pass"}, callbackUrl=receiver.url)
        failed = (await receiver.got("in_progress", "failed"))[-1]
        assert failed.message["details"] == "the tests do not pass"
        receiver.received.clear()
        hanging = await user.submit({"hang": True}, callbackUrl=receiver.url)
        await receiver.got("in_progress")
        await user.cancel(hanging)
        cancelled = (await receiver.got("in_progress", "failed"))[-1]
        assert cancelled.message["details"] == "cancelled"


async def test_failing_receiver_does_not_change_the_jobs_outcome(
    calling_engine: LocalEngine, receiver: Receiver
) -> None:
    receiver.replies = [answer(404), answer(410)]
    async with calling_engine.user() as user:
        job = await user.run({"result": "done"}, callbackUrl=receiver.url)
        assert (job["status"], job["result"]) == ("completed", "done")
        await receiver.got("in_progress", "completed")
        while (job := await user.job(job["id"]))["callback"]["phase"] != "completed":
            await asyncio.sleep(0.02)
        assert (job["status"], job["result"]) == ("completed", "done")
        assert job["callback"]["problem"] == "the receiver answered 410"


async def test_callbacks_pending_when_the_engine_is_killed_are_sent_after_its_restart(
    calling_engine: LocalEngine,
) -> None:
    async with a_receiver(None) as receiver, calling_engine.user() as user:
        job_id = await user.submit({"result": "done"}, callbackUrl=receiver.url)
        await user.wait(job_id)
        await receiver.got("in_progress")
        calling_engine.kill()
        calling_engine.start()
        again, last = (await receiver.got("in_progress", "in_progress", "completed"))[1:]
        assert again.id == receiver.received[0].id != last.id


@pytest.mark.parametrize("url", ["http://127.0.0.1/hook", "http://169.254.169.254/", "http://user:pass@1.1.1.1/"])
async def test_callback_url_that_is_not_allowed_is_refused(user: User, url: str) -> None:
    refused = await user.post("/api/jobs/submit", a_submission(callbackUrl=url))
    assert refused.status_code == 422
    assert refused.json()["details"][0]["field"] == "callbackUrl"

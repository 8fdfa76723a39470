"""Whoever submits a job with a `callbackUrl` is told what becomes of it, as API.md says."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User, a_submission
from tests.support.webhook_receiver import Receiver, a_receiver, answer

SECRET = "whsec_dGVzdC1zaWduaW5nLXNlY3JldA=="
KEY = b"test-signing-secret"


@pytest.fixture
def telling_engine(start_engine: EngineFactory) -> LocalEngine:
    """An engine that may call back to this machine, and signs what it says."""
    return start_engine(OUTBOUND_ALLOWED_CIDRS="127.0.0.0/8", CALLBACK_SIGNING_SECRET=SECRET)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with a_receiver() as receiver:
        yield receiver


async def test_a_caller_is_told_of_the_start_and_the_end_signed(
    telling_engine: LocalEngine, receiver: Receiver
) -> None:
    async with telling_engine.user() as user:
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


async def test_a_failure_says_why_and_a_cancelled_job_says_so(telling_engine: LocalEngine, receiver: Receiver) -> None:
    async with telling_engine.user() as user:
        await user.submit({"fail": "the tests do not pass"}, callbackUrl=receiver.url)
        failed = (await receiver.got("in_progress", "failed"))[-1]
        assert failed.message["details"] == "the tests do not pass"
        receiver.received.clear()
        hanging = await user.submit({"hang": True}, callbackUrl=receiver.url)
        await receiver.got("in_progress")
        await user.cancel(hanging)
        cancelled = (await receiver.got("in_progress", "failed"))[-1]
        assert cancelled.message["details"] == "cancelled"


async def test_a_receiver_that_fails_changes_nothing_about_the_job(
    telling_engine: LocalEngine, receiver: Receiver
) -> None:
    receiver.replies = [answer(404), answer(410)]
    async with telling_engine.user() as user:
        job = await user.run({"result": "done"}, callbackUrl=receiver.url)
        assert (job["status"], job["result"]) == ("completed", "done")
        await receiver.got("in_progress", "completed")
        while (job := await user.job(job["id"]))["callback"]["phase"] != "completed":
            await asyncio.sleep(0.02)
        assert (job["status"], job["result"]) == ("completed", "done")
        assert job["callback"]["problem"] == "the receiver answered 410"


async def test_what_a_killed_engine_owed_the_next_one_tells(telling_engine: LocalEngine) -> None:
    async with a_receiver(None) as receiver, telling_engine.user() as user:
        job_id = await user.submit({"result": "done"}, callbackUrl=receiver.url)
        await user.wait(job_id)
        await receiver.got("in_progress")
        telling_engine.kill()
        telling_engine.start()
        again, last = (await receiver.got("in_progress", "in_progress", "completed"))[1:]
        assert again.id == receiver.received[0].id != last.id


@pytest.mark.parametrize("url", ["http://127.0.0.1/hook", "http://169.254.169.254/", "http://user:pass@1.1.1.1/"])
async def test_an_address_that_is_not_for_callbacks_is_refused(user: User, url: str) -> None:
    refused = await user.post("/api/jobs/submit", a_submission(callbackUrl=url))
    assert refused.status_code == 422
    assert refused.json()["details"][0]["field"] == "callbackUrl"

"""`Idempotency-Key`: the same key and body gives the first answer again, and nothing is done twice."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import Engine, User, a_submission


async def submit(user: User, key: str, **fields: Any) -> httpx2.Response:
    return await user.post("/api/jobs/submit", a_submission(**fields), Idempotency_Key=key)


async def total(user: User) -> int:
    """How many jobs the user has."""
    return int((await user.get("/api/jobs")).json()["total"])


async def test_the_same_request_again_gives_the_first_answer(user: User) -> None:
    first = await submit(user, "key-1")
    await user.wait(first.json()["jobId"])
    again = await submit(user, "key-1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await total(user) == 1


async def test_fifty_at_once_make_one_job(user: User) -> None:
    files = [{"name": "a.txt", "data": "aGVsbG8K"}]

    answers = await asyncio.gather(*(submit(user, "key-1", workspaceFiles=files) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {201}
    (job_id,) = {answer.json()["jobId"] for answer in answers}
    assert await total(user) == 1
    assert (await user.wait(job_id))["status"] == "completed"


async def test_another_body_under_the_same_key_is_refused(user: User) -> None:
    first = await submit(user, "key-1")
    other = await submit(user, "key-1", prompt="Something else.")

    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"
    assert [detail["field"] for detail in other.json()["details"]] == ["Idempotency-Key"]
    assert await total(user) == 1
    assert (await submit(user, "key-1")).json() == first.json()


async def test_white_space_and_the_order_of_fields_make_no_other_body(user: User) -> None:
    first = await submit(user, "key-1")
    rearranged = dict(reversed(a_submission().items()))

    assert (await user.post("/api/jobs/submit", rearranged, Idempotency_Key="key-1")).json() == first.json()


async def test_other_keys_and_other_callers_make_other_jobs(engine: Engine, user: User) -> None:
    async with engine.user() as other:
        answers = [await submit(user, "key-1"), await submit(user, "key-2"), await submit(other, "key-1")]

    assert len({answer.json()["jobId"] for answer in answers}) == 3


async def test_without_a_key_each_request_is_a_job(user: User) -> None:
    assert await user.submit() != await user.submit()


async def test_a_key_is_remembered_across_a_crash(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.user() as user:
        first = await submit(user, "key-1")
        engine.kill()
        engine.start()
        again, other = await submit(user, "key-1"), await submit(user, "key-1", prompt="Something else.")

        assert again.json() == first.json()
        assert other.status_code == 422
        assert await total(user) == 1


async def test_a_request_that_was_refused_uses_its_key_up_for_nothing(user: User) -> None:
    assert (await submit(user, "key-1", prompt="")).status_code == 422

    assert (await submit(user, "key-1")).status_code == 201


async def test_keys_that_make_no_sense_are_refused(user: User) -> None:
    for key in ("", "k" * 256, "two words"):
        answer = await submit(user, key)
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "Idempotency-Key")
    assert (await submit(user, "k" * 255)).status_code == 201


async def test_it_works_for_ai_models(admin: User, model: str) -> None:
    body, key = {"name": "idempotent", "provider": "mock", "model": model, "slots": 2}, str(uuid4())

    first, again, plain = (
        await admin.post("/api/ai-models", body, Idempotency_Key=key),
        await admin.post("/api/ai-models", body, Idempotency_Key=key),
        await admin.post("/api/ai-models", body),
    )

    assert (first.status_code, again.status_code, plain.status_code) == (201, 201, 409)
    assert again.json() == first.json()
    other = await admin.post("/api/ai-models", body | {"slots": 3}, Idempotency_Key=key)
    assert other.status_code == 422


async def test_it_works_for_api_keys_although_they_are_shown_once(engine: Engine, admin: User) -> None:
    body, key = {"name": f"idempotent {uuid4()}"}, str(uuid4())

    answers = await asyncio.gather(*(admin.post("/api/api-keys", body, Idempotency_Key=key) for _ in range(10)))

    assert {answer.status_code for answer in answers} == {201}
    assert [answer.json() for answer in answers] == [answers[0].json()] * 10
    async with engine.client(answers[0].json()["key"]) as made:
        assert (await made.get("/api/jobs")).status_code == 200
    other = await admin.post("/api/api-keys", body | {"scopes": ["admin"]}, Idempotency_Key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (await admin.post("/api/api-keys", body)).status_code == 409

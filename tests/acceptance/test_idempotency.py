"""`Idempotency-Key`: a request with the same key and body gets the first answer again and has no further effect."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx2

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import Engine, User, a_submission


async def submit(user: User, key: str, **fields: Any) -> httpx2.Response:
    return await user.post("/api/jobs/submit", a_submission(**fields), Idempotency_Key=key)


async def total(user: User) -> int:
    """Return the number of the user's jobs."""
    return int((await user.get("/api/jobs")).json()["total"])


async def test_repeated_request_gets_the_first_answer(user: User) -> None:
    first = await submit(user, "key-1")
    await user.wait(first.json()["jobId"])
    again = await submit(user, "key-1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await total(user) == 1


async def test_fifty_concurrent_requests_with_one_key_create_one_job(user: User) -> None:
    files = [{"name": "a.txt", "data": "aGVsbG8K"}]

    answers = await asyncio.gather(*(submit(user, "key-1", workspaceFiles=files) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {201}
    (job_id,) = {answer.json()["jobId"] for answer in answers}
    assert await total(user) == 1
    assert (await user.wait(job_id))["status"] == "completed"


async def test_another_body_with_the_same_key_is_refused(user: User) -> None:
    first = await submit(user, "key-1")
    other = await submit(user, "key-1", prompt="Something else.")

    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"
    assert [detail["field"] for detail in other.json()["details"]] == ["Idempotency-Key"]
    assert await total(user) == 1
    assert (await submit(user, "key-1")).json() == first.json()


async def test_body_that_differs_only_in_white_space_and_field_order_is_the_same_request(user: User) -> None:
    first = await submit(user, "key-1")
    rearranged = dict(reversed(a_submission().items()))

    assert (await user.post("/api/jobs/submit", rearranged, Idempotency_Key="key-1")).json() == first.json()


async def test_other_keys_and_other_callers_create_other_jobs(engine: Engine, user: User) -> None:
    async with engine.user() as other:
        answers = [await submit(user, "key-1"), await submit(user, "key-2"), await submit(other, "key-1")]

    assert len({answer.json()["jobId"] for answer in answers}) == 3


async def test_each_request_without_a_key_creates_a_job(user: User) -> None:
    assert await user.submit() != await user.submit()


async def test_key_survives_a_crash(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.user() as user:
        first = await submit(user, "key-1")
        engine.kill()
        engine.start()
        again, other = await submit(user, "key-1"), await submit(user, "key-1", prompt="Something else.")

        assert again.json() == first.json()
        assert other.status_code == 422
        assert await total(user) == 1


async def test_refused_request_does_not_use_up_its_key(user: User) -> None:
    assert (await submit(user, "key-1", prompt="")).status_code == 422

    assert (await submit(user, "key-1")).status_code == 201


async def test_invalid_keys_are_refused(user: User) -> None:
    for key in ("", "k" * 256, "two words"):
        answer = await submit(user, key)
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "Idempotency-Key")
    assert (await submit(user, "k" * 255)).status_code == 201


async def test_ai_model_can_be_created_with_an_idempotency_key(admin: User, name: str, model: str) -> None:
    body, key = {"name": name, "provider": "mock", "model": model, "slots": 2}, str(uuid4())

    first, again, plain = (
        await admin.post("/api/ai-models", body, Idempotency_Key=key),
        await admin.post("/api/ai-models", body, Idempotency_Key=key),
        await admin.post("/api/ai-models", body),
    )

    assert (first.status_code, again.status_code, plain.status_code) == (201, 201, 409)
    assert again.json() == first.json()
    other = await admin.post("/api/ai-models", body | {"slots": 3}, Idempotency_Key=key)
    assert other.status_code == 422


async def test_repeated_creation_of_an_api_key_shows_the_same_key_again(engine: Engine, admin: User) -> None:
    body, key = {"name": f"idempotent {uuid4()}"}, str(uuid4())

    answers = await asyncio.gather(*(admin.post("/api/api-keys", body, Idempotency_Key=key) for _ in range(10)))

    assert {answer.status_code for answer in answers} == {201}
    assert [answer.json() for answer in answers] == [answers[0].json()] * 10
    async with engine.client(answers[0].json()["key"]) as client:
        assert (await client.get("/api/jobs")).status_code == 200
    other = await admin.post("/api/api-keys", body | {"scopes": ["admin"]}, Idempotency_Key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (await admin.post("/api/api-keys", body)).status_code == 409

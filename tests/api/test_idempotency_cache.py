"""The same Idempotency-Key gives the first answer again, although the resource may have changed."""

from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from labrats.api.http.idempotency import Intent
from labrats.api.http.idempotency_cache import MAX_BYTES, IdempotencyCache
from labrats.model.webhook_source import WebhookSource
from tests.api.conftest import Api

CREATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/api/agents": ({"name": "a", "triggerName": "a"}, {"enabled": False}),
    "/api/instructions": ({"name": "a", "content": "x"}, {"content": "y"}),
    "/api/ai-models": ({"name": "a", "provider": "mock", "model": "m"}, {"slots": 7}),
    "/api/webhook-sources": ({"name": "a", "type": "github", "secret": "test-signing-secret"}, {"enabled": False}),
}
"""The created resource and a change to it, by path."""

KEY = {"Idempotency-Key": "key-1"}


@pytest.mark.parametrize("path", CREATIONS)
async def test_a_repeated_request_gets_the_first_answer_although_the_resource_has_changed(
    admin: httpx2.AsyncClient, path: str
) -> None:
    made, change = CREATIONS[path]
    first = await admin.post(path, json=made, headers=KEY)
    changed = await admin.patch(f"{path}/a", json=change)

    again = await admin.post(path, json=made, headers=KEY)

    assert (first.status_code, changed.status_code, again.status_code) == (201, 200, 201)
    assert again.json() == first.json() != changed.json()
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    assert changed.json().items() >= (await admin.get(f"{path}/a")).json().items()  # which may have warnings, too


async def test_one_key_has_one_answer_for_each_path(admin: httpx2.AsyncClient) -> None:
    first = {path: (await admin.post(path, json=made, headers=KEY)).json() for path, (made, _) in CREATIONS.items()}
    again = {path: (await admin.post(path, json=made, headers=KEY)).json() for path, (made, _) in CREATIONS.items()}
    assert again == first


async def test_an_uncached_answer_shows_the_current_state_and_creates_nothing(
    api: Api, admin: httpx2.AsyncClient
) -> None:
    path = "/api/webhook-sources"
    made, change = CREATIONS[path]
    await admin.post(path, json=made, headers=KEY)
    changed = await admin.patch(f"{path}/a", json=change)
    vars(api.services.idempotency_cache).update(vars(IdempotencyCache()))  # as after a restart

    assert (await admin.post(path, json=made, headers=KEY)).json() == changed.json()
    assert len(await api.store.list(WebhookSource)) == 1


def test_the_oldest_answers_are_dropped_first() -> None:
    answers, request = IdempotencyCache(), Request({"type": "http", "path": "/", "headers": []})
    intents = [Intent(key=f"{number}", request="") for number in range(4)]
    for intent in intents:
        answers.created(request, intent, {"content": "x" * (MAX_BYTES // 3)})

    told = [answers.again(request, intent, {"content": "now"}).body for intent in intents]

    assert [b"now" in body for body in told] == [True, True, False, False]

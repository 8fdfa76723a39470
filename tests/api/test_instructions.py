"""The API of instructions."""

from typing import Any

import httpx2
import pytest

from labrats.model.instruction import AiInstruction
from tests.api.conftest import Api
from tests.api.test_agents import create, create_instruction
from tests.support.builders import an_agent


async def names(admin: httpx2.AsyncClient, **query: str) -> list[str]:
    answer = await admin.get("/api/instructions", params=query)
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["instructions"]]


async def test_a_created_instruction_has_all_fields_of_the_request(admin: httpx2.AsyncClient) -> None:
    body = {
        "name": "implement",
        "scope": "global",
        "displayName": "Implement",
        "description": "What developers do.",
        "priority": 7,
        "content": "Fix {{ payload.issue.title }}.",
    }
    created = await create(admin, body, "/api/instructions")
    assert created == body | {"id": "implement", "resourceVersion": created["resourceVersion"]}
    assert (await admin.get("/api/instructions/implement")).json() == created


async def test_missing_fields_have_defaults(admin: httpx2.AsyncClient) -> None:
    created = await create_instruction(admin, "a")
    assert [created[field] for field in ("scope", "displayName", "description", "priority")] == ["local", "", "", 0]


async def test_instructions_are_listed_by_scope(admin: httpx2.AsyncClient) -> None:
    await create_instruction(admin, "b", scope="global")
    await create_instruction(admin, "a")
    assert await names(admin) == ["a", "b"]
    assert await names(admin, scope="global") == ["b"]
    assert await names(admin, scope="local") == ["a"]
    assert (await admin.get("/api/instructions?scope=other")).status_code == 422


async def test_a_second_instruction_of_the_same_name_is_refused(admin: httpx2.AsyncClient) -> None:
    await create_instruction(admin, "a")
    assert (await admin.post("/api/instructions", json={"name": "a", "content": "x"})).status_code == 409


async def test_a_repeated_idempotency_key_gets_the_first_response(admin: httpx2.AsyncClient) -> None:
    body, headers = {"name": "a", "content": "x"}, {"Idempotency-Key": "key-1"}
    first, second = [await admin.post("/api/instructions", json=body, headers=headers) for _ in range(2)]
    assert (second.status_code, second.json()) == (201, first.json())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"scope": "everywhere"}, "scope"),
        ({"priority": 1.5}, "priority"),
        ({"content": ""}, "content"),
        ({"content": "x" * 100_001}, "content"),
        ({"contents": "typo"}, "contents"),
    ],
)
async def test_an_invalid_field_is_named_in_the_error(
    api: Api, admin: httpx2.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    answer = await admin.post("/api/instructions", json={"name": "a", "content": "x"} | fields)
    assert answer.status_code == 422, answer.text
    assert [detail["field"] for detail in answer.json()["details"]] == [field]
    assert await api.store.list(AiInstruction) == []


async def test_a_patch_changes_only_the_sent_fields(admin: httpx2.AsyncClient) -> None:
    created = await create_instruction(admin, "a", priority=3)

    answer = await admin.patch("/api/instructions/a", json={"scope": "global", "content": "New."})

    changed = answer.json()
    assert answer.status_code == 200
    assert changed == created | {
        "scope": "global",
        "content": "New.",
        "resourceVersion": changed["resourceVersion"],
    }
    stale = {"content": "Old.", "resourceVersion": created["resourceVersion"]}
    assert (await admin.patch("/api/instructions/a", json=stale)).status_code == 409
    assert await names(admin, scope="global") == ["a"]


@pytest.mark.parametrize(
    "use", [{"instructions": ["a"]}, {"eventTriggers": [{"source": "s", "events": ["e"], "instruction": "a"}]}]
)
async def test_an_instruction_in_use_is_removed_only_by_force(admin: httpx2.AsyncClient, use: dict[str, Any]) -> None:
    await create_instruction(admin, "a")
    await create(admin, {"name": "user-of-it"} | use)

    refused = await admin.delete("/api/instructions/a")

    assert refused.status_code == 409
    assert "user-of-it" in refused.json()["error"]
    odd = await admin.delete("/api/instructions/a?force=maybe")
    assert (odd.status_code, odd.json()["error"]) == (422, "force: must be true or false")
    assert (await admin.delete("/api/instructions/a?force=true")).status_code == 204
    assert (await admin.get("/api/agents/user-of-it/instructions")).json() == {"instructions": []}


async def test_force_disables_triggers_that_name_the_instruction(admin: httpx2.AsyncClient) -> None:
    await create_instruction(admin, "a")
    triggers = [{"source": "s", "events": [event], "instruction": text} for event, text in (("e", "a"), ("f", "other"))]
    await create(admin, {"name": "listener", "eventTriggers": triggers})

    refused = await admin.delete("/api/instructions/a")
    removed = await admin.delete("/api/instructions/a?force=true")

    assert "the trigger e of listener (eventTriggers[0])" in refused.json()["error"]
    assert removed.status_code == 204
    after = (await admin.get("/api/agents/listener")).json()["eventTriggers"]
    assert [(each["instruction"], each["enabled"]) for each in after] == [("a", False), ("other", True)]
    started = await admin.post("/api/events/ingest", json={"source": "s", "event": "e", "payload": {}})
    assert started.json()["matched"] == 0


async def test_force_removes_the_instruction_from_agents_so_that_they_can_be_patched(admin: httpx2.AsyncClient) -> None:
    await create_instruction(admin, "a")
    await create_instruction(admin, "b")
    trigger = {"source": "s", "events": ["e"], "instruction": "a"}
    await create(admin, {"name": "user-of-it", "instructions": ["b", "a"], "eventTriggers": [trigger]})
    await admin.delete("/api/instructions/a?force=true")

    agent = (await admin.get("/api/agents/user-of-it")).json()
    patched = await admin.patch("/api/agents/user-of-it", json={"instructions": agent["instructions"]})
    refused = await admin.patch("/api/agents/user-of-it", json={"instructions": ["a"]})

    assert agent["instructions"] == ["b"]
    assert [each["enabled"] for each in agent["eventTriggers"]] == [False]
    assert patched.status_code == 200, patched.text
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, "instructions[0]")


async def test_instruction_that_is_missing_already_may_stay(api: Api, admin: httpx2.AsyncClient) -> None:
    applied = an_agent("applied", instructions=("missing",))
    api.services.catalog.put(await api.store.create(applied))

    kept = await admin.patch("/api/agents/applied", json={"instructions": ["missing"], "enabled": False})
    refused = await admin.patch("/api/agents/applied", json={"instructions": ["missing", "unknown"]})

    assert (kept.status_code, kept.json()["enabled"]) == (200, False)
    assert [each["field"] for each in refused.json()["details"]] == ["instructions[1]"]


async def test_an_unused_instruction_is_removed(admin: httpx2.AsyncClient) -> None:
    await create_instruction(admin, "a")
    assert (await admin.delete("/api/instructions/a")).status_code == 204
    assert await names(admin) == []
    assert (await admin.delete("/api/instructions/a")).status_code == 404

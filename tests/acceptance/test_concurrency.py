"""A hundred concurrent clients that change the same agents, instructions, models and webhook sources."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import pytest

from tests.acceptance.engine import Engine, LocalEngine, User

CLIENTS: Final = 100
CALLS: Final = 5
"""Number of creations, changes and deletions per client."""


@dataclass(frozen=True)
class Kind:
    """A kind of resource. path: its collection. fields: required to create one.

    marked: returns the patch that adds the mark of client `number` to a resource.
    marks:  counts the marks of a resource.
    """

    path: str
    fields: dict[str, Any]
    marked: Callable[[dict[str, Any], int], dict[str, Any]]
    marks: Callable[[dict[str, Any]], int]


KINDS: Final = (
    Kind(
        "/api/agents", {},
        lambda found, number: {"eventTriggers": [*found["eventTriggers"], {"source": f"s-{number}", "events": ["*"]}]},
        lambda found: len({trigger["source"] for trigger in found["eventTriggers"]}),
    ),
    Kind(
        "/api/instructions", {"content": "Do it well."},
        lambda found, number: {"description": f"{found['description']} {number}"},
        lambda found: len(set(found["description"].split())),
    ),
    Kind(
        "/api/ai-models", {"provider": "mock"},
        lambda found, number: {"slots": found["slots"] + 1},
        lambda found: int(found["slots"]) - 4,
    ),
    Kind(
        "/api/webhook-sources", {"type": "generic", "secret": "a-secret-of-a-test"},
        lambda found, number: {"repoOverrides": found["repoOverrides"] | {f"octocat/r-{number}": {"enabled": False}}},
        lambda found: len(found["repoOverrides"]),
    ),
)  # fmt: skip


def a_resource(kind: Kind, name: str) -> dict[str, Any]:
    """Return the body that creates a resource. AiModels get a unique `model`, as the API requires."""
    return {"name": name} | kind.fields | ({"model": name} if kind.path == "/api/ai-models" else {})


@pytest.fixture
async def clients(engine: Engine) -> AsyncIterator[list[User]]:
    """A hundred admins, each with a separate connection."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(engine.admin()) for _ in range(CLIENTS)]


async def add_mark(client: User, kind: Kind, name: str, number: int) -> None:
    """Add a mark to a resource. Read and write it again until no other client has written in between."""
    while True:
        found = (await client.get(f"{kind.path}/{name}")).json()
        change = kind.marked(found, number) | {"resourceVersion": found["resourceVersion"]}
        answer = await client.http.patch(f"{kind.path}/{name}", json=change)
        assert answer.status_code in (200, 409), answer.text
        if answer.status_code == 200:
            return


async def test_concurrent_read_modify_write_cycles_lose_no_change(clients: list[User], admin: User) -> None:
    for kind in KINDS:
        assert (await admin.post(kind.path, a_resource(kind, "contended"))).status_code == 201

    await asyncio.gather(
        *(
            add_mark(client, KINDS[number % len(KINDS)], "contended", number // len(KINDS))
            for number, client in enumerate(clients)
        )
    )

    for kind in KINDS:
        found = (await admin.get(f"{kind.path}/contended")).json()
        assert kind.marks(found) == CLIENTS // len(KINDS), kind.path
        assert (await admin.http.delete(f"{kind.path}/contended")).status_code == 204


async def test_concurrent_patches_of_different_fields_do_not_undo_each_other(clients: list[User], admin: User) -> None:
    await admin.post("/api/instructions", {"name": "shared", "content": "Do it well."})
    fields: dict[str, Any] = {
        "priority": 7, "description": "What it is for.", "displayName": "Shared", "scope": "global",
    }  # fmt: skip
    changes = [{name: value} for name, value in fields.items()]

    answers = await asyncio.gather(
        *(
            client.http.patch("/api/instructions/shared", json=changes[number % 4])
            for number, client in enumerate(clients)
        )
    )

    assert {answer.status_code for answer in answers} == {200}
    found = (await admin.get("/api/instructions/shared")).json()
    assert fields.items() <= found.items()
    await admin.http.delete("/api/instructions/shared")


async def create_change_and_delete(client: User, seed: int) -> list[tuple[str, str, httpx2.Response]]:
    """Create, change and delete resources at random, under a few names that all clients use.

    Return the path, method and answer of each call.
    """
    chance = random.Random(seed)
    done = []
    for _ in range(CALLS):
        kind, name = chance.choice(KINDS), f"fought-over-{chance.randrange(2)}"
        path, method = f"{kind.path}/{name}", chance.choice(["POST", "PATCH", "DELETE"])
        match method:
            case "POST":
                answer = await client.post(kind.path, a_resource(kind, name))
            case "PATCH":
                answer = await client.http.patch(path, json={"enabled": True} if "slots" not in path else {})
            case _:
                answer = await client.http.delete(path)
        done.append((path, method, answer))
    return done


async def test_concurrent_creations_and_deletions_leave_a_consistent_state(clients: list[User], admin: User) -> None:
    done = [
        call
        for calls in await asyncio.gather(
            *(create_change_and_delete(client, seed) for seed, client in enumerate(clients))
        )
        for call in calls
    ]

    expected = {"POST": {201, 409}, "PATCH": {200, 404, 409, 422}, "DELETE": {204, 404}}
    wrong = [(path, method, answer.text) for path, method, answer in done if answer.status_code not in expected[method]]
    assert not wrong
    there: Counter[str] = Counter()
    for path, _, answer in done:
        there[path] += {201: 1, 204: -1}.get(answer.status_code, 0)
    for path, count in there.items():
        assert count == ((await admin.get(path)).status_code == 200), path
        if count:
            assert (await admin.http.delete(path)).status_code == 204


async def test_concurrent_creations_of_the_same_model_create_one(
    engine: Engine, clients: list[User], admin: User, model: str
) -> None:
    if not isinstance(engine, LocalEngine):
        pytest.skip("several replicas of the API each check for duplicates by themselves")
    answers = await asyncio.gather(
        *(
            client.post("/api/ai-models", {"name": f"claim-{number}", "provider": "mock", "model": model})
            for number, client in enumerate(clients)
        )
    )

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: CLIENTS - 1}
    created = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
    await admin.http.delete(f"/api/ai-models/{created}")

"""Unique claims of resources, with two replicas of the engine on one real API server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine import LocalEngine, User
from tests.kubernetes.engine import an_engine
from tests.support.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.kubernetes

ROUNDS = 12


@pytest.fixture
def replicas(kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[list[LocalEngine]]:
    """Two engines. Their jobs never run, since the cluster has no nodes."""
    with ExitStack() as engines:
        found = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            engine = an_engine(kubeconfig, namespace, "executor:1", folder, volume=tmp_path / "volume")
            found.append(engines.enter_context(engine))
        yield found


@pytest.fixture
async def admins(replicas: list[LocalEngine]) -> AsyncIterator[list[User]]:
    """An administrator at each replica."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(engine.admin()) for engine in replicas]


def a_model(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "provider": "mock", "model": f"model-{number}"}


def an_agent(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "triggerName": f"agent-{number}"}


@pytest.mark.parametrize(
    ("path", "plural", "body", "field"),
    [
        ("/api/ai-models", "aiModels", a_model, "model"),
        ("/api/agents", "agents", an_agent, "triggerName"),
    ],
)
async def test_one_of_two_concurrent_creates_at_two_replicas_succeeds(
    admins: list[User], path: str, plural: str, body: Callable[[str, int], dict[str, Any]], field: str
) -> None:
    for number in range(ROUNDS):
        answers = await asyncio.gather(
            *(admin.post(path, body(f"{name}-{number}", number)) for admin, name in zip(admins, "ab", strict=True))
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409], [each.text for each in answers]
        (created,) = (answer.json()["name"] for answer in answers if answer.status_code == 201)
        for admin in admins:
            await until_visible(admin, f"{path}/{created}")
    for admin in admins:
        listed = (await admin.get(path)).json()[plural]
        assert sorted(each[field] for each in listed) == sorted(body("", number)[field] for number in range(ROUNDS))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/ai-models", a_model("same", 1)),
        ("/api/agents", {}),
        ("/api/instructions", {"content": "Be kind."}),
        ("/api/webhook-sources", {"type": "github", "secret": "test-signing-secret"}),
    ],
)
async def test_a_request_with_an_idempotency_key_gets_one_answer_from_two_replicas(
    admins: list[User], path: str, body: dict[str, Any]
) -> None:
    for number in range(ROUNDS):
        request = body | {"name": f"same-{number}"} | ({"model": f"model-{number}"} if "model" in body else {})
        answers = await asyncio.gather(
            *(admin.post(path, request, **{"Idempotency-Key": f"key-{number}"}) for admin in admins)
        )
        assert [answer.status_code for answer in answers] == [201, 201], [each.text for each in answers]
        assert [answer.json()["id"] for answer in answers] == [request["name"], request["name"]]


async def test_concurrent_seeding_at_two_replicas_adds_the_default_agents_once(admins: list[User]) -> None:
    answers = await asyncio.gather(*(admin.post("/api/agents/seed") for admin in admins))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sum(answer.json()["seeded"] for answer in answers) == 5


async def until_visible(admin: User, path: str) -> None:
    """Wait until the resource exists at this replica."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await admin.get(path)).status_code != 200:
            await asyncio.sleep(0.02)

"""What no two may have in common, with two replicas of the engine on one real API server."""

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
    """Two engines. Nothing that they start ever runs: the cluster has no nodes."""
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
    """One at each."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(engine.admin()) for engine in replicas]


def a_model(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "provider": "mock", "model": f"model-{number}"}


def an_agent(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "triggerName": f"agent-{number}"}


@pytest.mark.parametrize(
    ("path", "plural", "body", "what"),
    [
        ("/api/ai-models", "aiModels", a_model, "model"),
        ("/api/agents", "agents", an_agent, "triggerName"),
    ],
)
async def test_of_two_that_come_to_two_replicas_at_once_exactly_one_is_made(
    admins: list[User], path: str, plural: str, body: Callable[[str, int], dict[str, Any]], what: str
) -> None:
    for number in range(ROUNDS):
        answers = await asyncio.gather(
            *(admin.post(path, body(f"{name}-{number}", number)) for admin, name in zip(admins, "ab", strict=True))
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409], [each.text for each in answers]
        (made,) = (answer.json()["name"] for answer in answers if answer.status_code == 201)
        for admin in admins:
            await sees(admin, f"{path}/{made}")
    for admin in admins:
        listed = (await admin.get(path)).json()[plural]
        assert sorted(each[what] for each in listed) == sorted(body("", number)[what] for number in range(ROUNDS))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/ai-models", a_model("same", 1)),
        ("/api/agents", {}),
        ("/api/instructions", {"content": "Be kind."}),
        ("/api/webhook-sources", {"type": "github", "secret": "test-signing-secret"}),
    ],
)
async def test_one_request_that_comes_to_two_replicas_at_once_gets_one_answer(
    admins: list[User], path: str, body: dict[str, Any]
) -> None:
    for number in range(ROUNDS):
        asked = body | {"name": f"same-{number}"} | ({"model": f"model-{number}"} if "model" in body else {})
        answers = await asyncio.gather(
            *(admin.post(path, asked, **{"Idempotency-Key": f"key-{number}"}) for admin in admins)
        )
        assert [answer.status_code for answer in answers] == [201, 201], [each.text for each in answers]
        assert [answer.json()["id"] for answer in answers] == [asked["name"], asked["name"]]


async def test_the_default_agents_are_added_once_by_two_who_ask_for_them_at_once(admins: list[User]) -> None:
    answers = await asyncio.gather(*(admin.post("/api/agents/seed") for admin in admins))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sum(answer.json()["seeded"] for answer in answers) == 5


async def sees(admin: User, path: str) -> None:
    """Return once that is there for whoever asks at this replica."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await admin.get(path)).status_code != 200:
            await asyncio.sleep(0.02)

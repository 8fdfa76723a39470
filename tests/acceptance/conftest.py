"""Engines to test against, and somebody who uses them."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.engine import LocalEngine, User

EngineFactory = Callable[..., LocalEngine]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """One engine for all tests that do not stop it. They keep apart by using keys and models of their own."""
    with LocalEngine(tmp_path_factory.mktemp("engine"), LOCAL_REPO_ROOTS="/nowhere") as engine:
        yield engine
    assert "Traceback" not in engine.log


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[EngineFactory]:
    """Starts an engine of the test's own, with the environment variables that it is given."""
    with ExitStack() as engines:

        def start(**environment: str) -> LocalEngine:
            return engines.enter_context(LocalEngine(tmp_path, **environment))

        yield start


@pytest.fixture
async def user(engine: LocalEngine) -> AsyncIterator[User]:
    """Somebody new to the engine: with no jobs yet, and with none that goes on after the test."""
    async with engine.user() as user:
        yield user
        await user.end_jobs()


@pytest.fixture
async def admin(engine: LocalEngine) -> AsyncIterator[User]:
    async with engine.admin() as admin:
        yield admin


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """The name of a model that no other test uses, and so of slots that no other test takes."""
    return str(request.node.name)

"""Engines to test, and users of them."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from secrets import token_hex

import pytest

from tests.acceptance.engine import Engine, ForkedEngine, LocalEngine, User
from tests.chart.engine import InstalledEngine
from tests.chart.installation import Installation

EngineFactory = Callable[..., LocalEngine]

ON_A_CLUSTER = (
    pytest.mark.kubernetes(node=True, helm=True, engine_image=True),
    pytest.mark.timeout(400),  # the first test waits for the installation
)


@pytest.fixture(scope="session", params=["local", pytest.param("installed", marks=ON_A_CLUSTER)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine shared by all tests that do not stop it: a local process, or an installation by Helm on a cluster.

    Each test uses its own API keys and models.
    """
    if request.param == "installed":
        installation: Installation = request.getfixturevalue("installation")
        with installation.service() as url:
            yield InstalledEngine(installation, url)
    else:
        settings = {"LOCAL_REPO_ROOTS": "/nowhere", "LABRATS_AGENT_PROCESSES": "40"}
        with LocalEngine(tmp_path_factory.mktemp("engine"), **settings) as engine:
            yield engine
        assert "Traceback" not in engine.log


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[EngineFactory]:
    """A function that starts an engine for this test, with the given environment variables."""
    with ExitStack() as engines:
        yield partial(_start, engines, ForkedEngine, tmp_path)


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[EngineFactory]:
    """A function like `start_engine`, for tests of the process itself: its signals, environment and memory."""
    with ExitStack() as engines:
        yield partial(_start, engines, LocalEngine, tmp_path)


def _start(engines: ExitStack, kind: type[LocalEngine], folder: Path, **environment: str) -> LocalEngine:
    return engines.enter_context(kind(folder, **environment))


@pytest.fixture
async def user(engine: Engine) -> AsyncIterator[User]:
    """A new user without jobs. The user's jobs are cancelled after the test."""
    async with engine.user() as user:
        yield user
        await user.end_jobs(wait=not isinstance(engine, InstalledEngine))  # a pod takes seconds to end


@pytest.fixture
async def admin(engine: Engine) -> AsyncIterator[User]:
    async with engine.admin() as admin:
        yield admin


@pytest.fixture
def name() -> str:
    """A name for this test's resources, such as an agent, that no other test has, nor another run of this one."""
    return f"test-{token_hex(4)}"


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """The name of a model, and thus of slots, that no other test uses, nor another run of this one."""
    return f"{request.node.name}-{token_hex(4)}"

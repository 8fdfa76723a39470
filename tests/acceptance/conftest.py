"""Engines to test, and users of them."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from secrets import token_hex

import pytest

from tests.acceptance.engine import Engine, ForkedEngine, LocalEngine, User
from tests.chart.engine import InstalledEngine
from tests.chart.installation import Installation
from tests.support.random_seed import SEED

EngineFactory = Callable[..., LocalEngine]


INSTALLED_VARIABLE = "LABRATS_TEST_INSTALLED"

ON_A_CLUSTER = (
    pytest.mark.kubernetes(node=True, helm=True, engine_image=True),
    pytest.mark.timeout(400),  # the first test waits for the installation
)

OF_THE_BACKEND = {
    "test_agents",
    "test_endpoint_groups",
    "test_idempotency",
    "test_isolation",
    "test_job_lifecycle",
    "test_log_stream",
    "test_metrics",
    "test_network",
    "test_repositories",
    "test_resource_limits",
    "test_result_schema",
    "test_retry_and_cancel",
    "test_slots_and_priority",
    "test_uploads",
    "test_variables",
}
"""Modules whose results depend on the backend. The other tests run the same code with any."""

SHARE_OF_THE_BACKEND = 1 / 2
SHARE_OF_OTHERS = 1 / 16


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the tests that run on an installation by the run's seed; all of them with LABRATS_TEST_INSTALLED=all.

    Each of them costs one or more pods, and runs on a local engine as well.
    """
    if os.environ.get(INSTALLED_VARIABLE) == "all":
        return
    deselected = {item for item in items if _is_on_an_installation(item) and not _is_chosen(item)}
    config.hook.pytest_deselected(items=list(deselected))
    items[:] = [item for item in items if item not in deselected]


def _is_chosen(item: pytest.Item) -> bool:
    share = SHARE_OF_THE_BACKEND if item.path.stem in OF_THE_BACKEND else SHARE_OF_OTHERS
    return Random(f"{SEED} {item.nodeid}").random() < share


def _is_on_an_installation(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("engine") == "installed"


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

"""Engines to test against, and somebody who uses them."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.engine import Engine, LocalEngine, User
from tests.chart.engine import InstalledEngine
from tests.chart.installation import Installation

EngineFactory = Callable[..., LocalEngine]


INSTALLED = "LABRATS_TEST_INSTALLED"

ON_A_CLUSTER = (
    pytest.mark.kubernetes(node=True, helm=True, engine_image=True),
    pytest.mark.timeout(400),  # the first test waits for the installation
)

ABOUT_JOBS = {
    "test_agents",
    "test_endpoint_groups",
    "test_idempotency",
    "test_job_lifecycle",
    "test_log_stream",
    "test_metrics",
    "test_retry_and_cancel",
    "test_slots_and_priority",
    "test_uploads",
}
"""The modules whose tests all run on an installation too, since a backend decides what they find."""

SAMPLED = 16
"""Of every so many of the other tests, which reach the same code in any backend, one does."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is tested on an installation only where somebody asks for it: LABRATS_TEST_INSTALLED=all."""
    if os.environ.get(INSTALLED) == "all":
        return
    others = [item for item in items if _is_on_an_installation(item) and item.path.stem not in ABOUT_JOBS]
    left_out = {item for number, item in enumerate(others) if number % SAMPLED}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_on_an_installation(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("engine") == "installed"


@pytest.fixture(scope="session", params=["local", pytest.param("installed", marks=ON_A_CLUSTER)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine for all tests that do not stop it: a process on this machine, and what Helm installs on a cluster.

    They keep apart by using keys and models of their own.
    """
    if request.param == "installed":
        installation: Installation = request.getfixturevalue("installation")
        with installation.service() as url:
            yield InstalledEngine(installation, url)
    else:
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
async def user(engine: Engine) -> AsyncIterator[User]:
    """Somebody new to the engine: with no jobs yet, and with none that goes on after the test."""
    async with engine.user() as user:
        yield user
        await user.end_jobs()


@pytest.fixture
async def admin(engine: Engine) -> AsyncIterator[User]:
    async with engine.admin() as admin:
        yield admin


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """The name of a model that no other test uses, and so of slots that no other test takes."""
    return str(request.node.name)

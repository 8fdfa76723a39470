"""The deletion of a running job, without a cluster. For a cluster, see tests/kubernetes/test_engine.py."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from labrats.index.catalog import Catalog
from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job
from labrats.ports import NotStarted, SystemClock
from labrats.settings import EngineSettings
from tests.conformance.runner_backends import EmbeddedBackend, MemoryBackend, RunnerBackend
from tests.support.background import run_in_background
from tests.support.builders import a_job, a_spec
from tests.support.controllers import a_controller
from tests.support.waiting import DEADLINE_SECONDS, eventually


@pytest.fixture(params=["memory", "embedded"])
def open_machine(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[], AbstractAsyncContextManager[RunnerBackend]]:
    return MemoryBackend.open if request.param == "memory" else partial(EmbeddedBackend.open, tmp_path)


async def test_the_processes_and_files_of_a_deleted_job_are_removed(
    open_machine: Callable[[], AbstractAsyncContextManager[RunnerBackend]],
) -> None:
    stubborn = a_spec([{"ignoreSignals": True}, {"fork": {"seconds": 300, "detached": True}}, {"hang": True}])
    async with open_machine() as machine, machine.open_runner() as runner:
        controller = a_controller(machine.store, runner, Catalog(), SystemClock(), EngineSettings())
        async with run_in_background(controller.run()):
            job = await machine.store.create(a_job(spec=stubborn, resource_version=""))
            attempt = AttemptName(job.id, 1)
            await eventually(lambda: machine.living_processes(attempt) > 1)
            await machine.store.delete(Job, job.id)
            await eventually(lambda: machine.living_processes(attempt) == 0)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await runner.find(attempt) != NotStarted():
                    await asyncio.sleep(0.01)
        assert await runner.workspaces() == []

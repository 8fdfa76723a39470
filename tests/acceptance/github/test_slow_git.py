"""A GitHub that keeps git waiting: the engine answers, works and stops as usual, and leaves nothing behind."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Final

import pytest

from tests.acceptance.engine import LocalEngine
from tests.acceptance.github.reporting import COMMITTING, an_issue_of, deliver, published, set_up, until
from tests.support.github import Fault, GitHubStandIn

PUSH: Final = "POST git-receive-pack"
JOBS: Final = 8
"""As many as the publisher reports at a time."""

SECONDS: Final = 20.0
"""Less than the time after which git ends a transfer that has stalled."""

NO_PROCESS: Final = 2**22 + 1
"""More than the largest id that Linux gives to a process."""


@pytest.fixture
def stalled(github: GitHubStandIn) -> Iterator[None]:
    """Let no push be answered before the end of the test."""
    released = threading.Event()
    github.faults.plan_always(Fault(release=released), PUSH)
    try:
        yield
    finally:
        released.set()


def repositories_of(engine: LocalEngine) -> list[Path]:
    """Return the temporary repositories of the engine's publisher."""
    return list(Path(tempfile.gettempdir()).glob(f"labrats-publish-{engine.pid}-*"))


@pytest.mark.usefixtures("stalled")
async def test_pushes_that_stall_hold_up_nothing_else(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": COMMITTING})
    async with engine.admin() as admin:
        await set_up(admin, {"pullRequest": {}})
        for _ in range(JOBS):
            await deliver(engine, "issues", an_issue_of(github, github.demo.open_issue()))
        await until(lambda: len(github.calls_of(PUSH)) == JOBS)
        began = monotonic()
        await admin.run({"log": "hello"})
        assert monotonic() - began < SECONDS
    repositories = repositories_of(engine)
    began = monotonic()
    engine.stop()
    assert monotonic() - began < SECONDS
    assert len(repositories) == JOBS
    assert not any(folder.exists() for folder in repositories)


async def test_a_push_that_stalls_holds_up_only_the_reports_of_its_thread(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    github.demo.git.commit({"agent.py": COMMITTING})
    pushed, issue = threading.Event(), github.demo.open_issue()
    github.faults.plan(Fault(release=pushed), PUSH)
    try:
        async with engine.admin() as admin:
            await set_up(admin, {"pullRequest": {}})
            # Each payload differs: the same one would be a repeated delivery of one event.
            events = [an_issue_of(github, issue, note=number) for number in range(JOBS + 1)]
            waiting = [await deliver(engine, "issues", event) for event in events]
            assert len(set(waiting)) == JOBS + 1
            await until(lambda: len(github.calls_of(PUSH)) == 1)
            for job_id in waiting:
                await admin.wait(job_id)
            other = await deliver(engine, "issues", an_issue_of(github, github.demo.open_issue()))
            assert (await published(admin, other))["published"]["pullRequestUrl"]
    finally:
        pushed.set()


async def test_the_repositories_of_a_killed_publisher_are_removed(engine: LocalEngine) -> None:
    left, used = (Path(tempfile.mkdtemp(prefix=f"labrats-publish-{pid}-")) for pid in (NO_PROCESS, os.getpid()))
    (left / "repository.git").mkdir()
    foreign = Path(tempfile.mkdtemp(prefix="labrats-publish-"))
    try:
        engine.restart()
        await until(lambda: not left.exists())
        assert used.exists()
        assert foreign.exists()
    finally:
        for folder in (left, used, foreign):
            shutil.rmtree(folder, ignore_errors=True)

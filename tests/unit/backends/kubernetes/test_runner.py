"""The runner and its supervisor, with an API server that refuses or does not answer."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.failures import NEVER_STARTED
from labrats.backends.kubernetes.files import AttemptFiles
from labrats.backends.kubernetes.runner import KubernetesRunner, KubernetesRunnerSettings
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import GiveUp, Invalid, LabratsError, NotFound, Problem, RetryLater
from labrats.ports import Attempt, NotStarted
from tests.fakes.store import MemoryStore
from tests.unit.backends.kubernetes.test_pod import SETTINGS, an_owned_attempt

pytestmark = pytest.mark.anyio


def a_new_attempt() -> Attempt:
    """Return an attempt of a job whose prompt and Secrets may still be created."""
    owned = an_owned_attempt()
    metadata = structs.replace(owned.job.metadata, created_at=datetime.now(UTC))
    return replace(owned, job=structs.replace(owned.job, metadata=metadata))


class FailingClient:
    """A stand-in for a client whose requests all fail."""

    def __init__(self, error: LabratsError) -> None:
        self._error = error

    async def request(self, *_: Any) -> bytes:
        raise self._error


@pytest.mark.parametrize(
    ("answer", "raised", "may_live"),
    [(RetryLater("no answer"), RetryLater, True), (Invalid(Problem("spec", "no such field")), GiveUp, False)],
)
async def test_attempt_whose_job_may_have_been_created_lives(
    tmp_path: Path, answer: LabratsError, raised: type[LabratsError], may_live: bool
) -> None:
    client, attempt = cast("ApiClient", FailingClient(answer)), a_new_attempt()
    settings = KubernetesRunnerSettings("default", tmp_path / "attempts", SETTINGS)
    runner = KubernetesRunner(client, MemoryStore(), settings)
    with pytest.raises(raised, match=str(answer)):
        await runner.start(attempt)
    assert runner._supervisor.living() == ({attempt.name} if may_live else set())


async def test_a_volume_that_cannot_be_read_does_not_end_the_watch_of_jobs(
    tmp_path: Path,
) -> None:
    client, attempt = cast("ApiClient", FailingClient(NotFound("no such job"))), an_owned_attempt()
    runner = KubernetesRunner(
        client, MemoryStore(), KubernetesRunnerSettings("default", tmp_path / "attempts", SETTINGS)
    )
    stale = AttemptFiles.of(tmp_path / "attempts", attempt.name)
    stale.create("uid-1")
    (stale.folder / "owner").unlink()
    (stale.folder / "owner").symlink_to("owner")  # reading it raises OSError
    other = AttemptFiles.of(tmp_path / "attempts", AttemptName("ir-0000000b", 1))
    other.create("uid-2")
    other.record_ending(NEVER_STARTED)

    await runner._clear_up(attempt.name)
    await runner._clear_up(AttemptName("ir-0000000b", 1))

    assert (stale.exists, other.exists) == (True, False)


async def test_runner_that_supervises_nothing_does_not_wait_for_an_attempt_without_an_ending(tmp_path: Path) -> None:
    """The volume may have lost the record, and an API pod that shows the attempts of a job knows no others."""
    client, name = cast("ApiClient", FailingClient(NotFound("no such job"))), AttemptName("ir-0000000b", 1)
    settings = KubernetesRunnerSettings("default", tmp_path / "attempts", SETTINGS)
    runner = KubernetesRunner(client, MemoryStore(), settings, supervises=False)
    AttemptFiles.of(tmp_path / "attempts", name).create("uid-1")
    async with asyncio.timeout(10):
        assert await runner.find(name) == NotStarted()

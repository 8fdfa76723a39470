"""Two replicas: whatever becomes of the one that leads, every job runs once."""

from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.engine import LocalEngine, User
from tests.cluster.cluster import Cluster
from tests.kubernetes.audit import epoch_of, writes_in
from tests.kubernetes.conftest import EngineFactory
from tests.waiting import eventually

pytestmark = pytest.mark.kubernetes(node=True)

SLOTS = 2
STEPS = [{"log": "tick {n}", "times": 5, "everyMs": 200}, {"result": "done"}]


def leads(engine: LocalEngine) -> bool:
    return '"this engine leads"' in engine.log


@pytest.fixture
async def replicas(start_engine: EngineFactory) -> tuple[LocalEngine, LocalEngine]:
    """The one that leads, and the one that waits."""
    slots = {"DEFAULT_MODEL_SLOTS": str(SLOTS)}
    leader = start_engine(**slots)
    await eventually(lambda: leads(leader))
    return leader, start_engine(**slots)


async def test_any_replica_answers_any_request(replicas: tuple[LocalEngine, LocalEngine]) -> None:
    leader, waiting = replicas
    async with leader.user() as user, waiting.client(user.key) as http:
        elsewhere = User(http, user.key)
        job_id = await elsewhere.submit(*STEPS)
        assert await elsewhere.log_lines(job_id) == [f"tick {number}" for number in range(1, 6)]
        assert (await user.job(job_id))["returnvalue"] == "done"


async def test_a_leader_that_dies_is_succeeded(replicas: tuple[LocalEngine, LocalEngine]) -> None:
    leader, successor = replicas
    async with successor.user() as user:
        job_ids = [await user.submit(*STEPS) for _ in range(6)]
        await user.wait(job_ids[0], "active")
        leader.kill()
        assert_each_ran_once([await user.wait(job_id) for job_id in job_ids])


async def test_a_leader_that_was_paused_does_nothing_that_counts(
    cluster: Cluster | None, jobs_namespace: str, replicas: tuple[LocalEngine, LocalEngine]
) -> None:
    leader, successor = replicas
    async with successor.user() as user:
        job_ids = [await user.submit(*STEPS) for _ in range(8)]
        await user.wait(job_ids[0], "active")
        leader.pause()
        await eventually(lambda: leads(successor))
        leader.resume()
        assert_each_ran_once([await user.wait(job_id) for job_id in job_ids])
    if cluster:
        assert_no_former_leader_wrote(cluster, jobs_namespace)


def assert_each_ran_once(details: list[dict[str, Any]]) -> None:
    """All ended well at the first attempt, and never more at once than there are slots."""
    assert {(detail["status"], detail["attempts"]) for detail in details} == {("completed", 1)}
    spans = [
        (datetime.fromisoformat(each["processedAt"]), datetime.fromisoformat(each["finishedAt"])) for each in details
    ]
    for began, _ in spans:
        assert sum(start <= began < end for start, end in spans) <= SLOTS


def assert_no_former_leader_wrote(cluster: Cluster, namespace: str) -> None:
    """Once a leader's write was accepted, none of an earlier epoch was."""
    accepted = [write for write in writes_in(cluster, namespace) if write.was_accepted and epoch_of(write)]
    epochs = [epoch_of(write) for write in accepted]
    assert len(set(epochs)) == 2
    assert epochs == sorted(epochs)

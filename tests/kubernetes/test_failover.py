"""Two replicas: no guarantee is violated when the leader is killed or paused.

LABRATS_SEED sets the random actions of clients.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final

import pytest

from labrats.backends.kubernetes.client import ApiClient
from labrats.model.phases import Phase
from tests.acceptance.engine import LocalEngine, User, a_submission
from tests.cluster.cluster import Cluster
from tests.kubernetes.audit_log import epoch_of, writes_in
from tests.kubernetes.conftest import EngineFactory
from tests.kubernetes.recorded_history import NOT_UNDER_FAULTS, errors_in, history_of, recorded_versions
from tests.support.random_seed import SEED
from tests.support.waiting import eventually
from tests.torture.history import JobVersion, violations
from tests.torture.load import Clients

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.timeout(900)]

FENCED: Final = ("inferencerequests/status", "jobs")
UNFENCED: Final = "former leaders are not fenced"
JOBS_PER_SECOND: Final = 1.5
PEACE_SECONDS: Final = 300


def leaderships(engine: LocalEngine) -> int:
    """Return how often the engine has acquired leadership."""
    return engine.log.count('"acquired leadership"')


@pytest.fixture
async def replicas(start_engine: EngineFactory) -> tuple[LocalEngine, LocalEngine]:
    """The leader, and the replica that waits."""
    leader = start_engine()
    await eventually(lambda: leaderships(leader) == 1)
    return leader, start_engine()


async def test_any_replica_answers_any_request(replicas: tuple[LocalEngine, LocalEngine]) -> None:
    leader, waiting = replicas
    async with leader.user() as user, waiting.client(user.key) as http:
        elsewhere = User(http, user.key)
        job_id = await elsewhere.submit({"log": "tick {n}", "times": 5, "everyMs": 200}, {"result": "done"})
        assert await elsewhere.log_lines(job_id) == [f"tick {number}" for number in range(1, 6)]
        assert (await user.job(job_id))["returnvalue"] == "done"


async def test_a_repeated_request_at_another_replica_creates_no_second_job(
    replicas: tuple[LocalEngine, LocalEngine],
) -> None:
    """The requests are concurrent: neither replica knows the job yet, as after a proxy lost the answer."""
    leader, waiting = replicas
    async with leader.user() as user, waiting.client(user.key) as http:
        everywhere = [user, User(http, user.key)] * 5
        for number in range(5):
            key = {"Idempotency_Key": f"key-{number}"}
            answers = await asyncio.gather(
                *(each.post("/api/jobs/submit", a_submission(), **key) for each in everywhere)
            )
            assert [answer.status_code for answer in answers] == [201] * 10
            assert len({answer.json()["jobId"] for answer in answers}) == 1


async def test_killed_and_paused_leaders_under_load_violate_no_guarantee(
    cluster: Cluster | None,
    api_client: ApiClient,
    jobs_namespace: str,
    replicas: tuple[LocalEngine, LocalEngine],
    counters: Counter[str],
) -> None:
    counters["seed"] = SEED
    leader, successor = replicas
    async with leader.admin() as admin, recorded_versions(api_client, jobs_namespace) as written:
        clients, enough = Clients(admin.http, random.Random(f"{SEED} clients")), asyncio.Event()
        await clients.configure_models()
        with suppress(TimeoutError):  # the checks below find jobs that have not ended
            async with asyncio.timeout(PEACE_SECONDS), asyncio.TaskGroup() as tasks:
                tasks.create_task(clients.load(JOBS_PER_SECOND, enough))
                await harm_leaders(leader, successor, written)
                enough.set()
            async with asyncio.timeout(PEACE_SECONDS):
                await clients.all_ended()
        history = await history_of(api_client, jobs_namespace, leader, clients.answers, written)

    assert UNFENCED not in leader.log + successor.log  # or the next finding is no surprise
    counters.update({"jobs": len(history.accepted), "runs": len(history.runs)})
    found = [each for each in violations(history) if each.promise not in NOT_UNDER_FAULTS]
    assert found == [], f"seed {SEED}: {found[:20]}"
    assert errors_in(leader) + errors_in(successor) == []
    if cluster:
        assert_no_former_leader_wrote(cluster, jobs_namespace, leaders=4)


async def harm_leaders(leader: LocalEngine, successor: LocalEngine, written: Sequence[JobVersion]) -> None:
    """Kill the leader, pause its successor, and pause the first one again, each during its work.

    Clients call the first engine: while it is down, no requests arrive.
    """
    await work_of_a_new_leader(written)
    leader.kill()
    await eventually(lambda: leaderships(successor) == 1)
    leader.start()
    await work_of_a_new_leader(written)
    successor.pause()
    await eventually(lambda: leaderships(leader) == 2)
    await work_of_a_new_leader(written)
    successor.resume()
    leader.pause()
    await eventually(lambda: leaderships(successor) == 2)
    leader.resume()
    await work_of_a_new_leader(written)


async def work_of_a_new_leader(written: Sequence[JobVersion]) -> None:
    """Wait until a few more attempts have started."""

    def started() -> set[tuple[str, int]]:
        return {(each.job_id, each.attempts) for each in written if each.phase is Phase.RUNNING}

    before = started()
    await eventually(lambda: len(started() - before) >= 3)


def assert_no_former_leader_wrote(cluster: Cluster, namespace: str, leaders: int) -> None:
    """Assert that no fenced write of an earlier epoch was accepted after one of a later epoch.

    Others, such as the Secret of an attempt that then cannot start, may still arrive.
    """
    writes = (write for write in writes_in(cluster, namespace) if write.target in FENCED and write.verb != "delete")
    accepted = [write for write in writes if write.was_accepted and epoch_of(write)]
    epochs = [epoch_of(write) for write in accepted]
    assert len(set(epochs)) == leaders
    late = [write for write, newest in zip(accepted, accumulate(epochs, max), strict=True) if epoch_of(write) < newest]
    assert late == []

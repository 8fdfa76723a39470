"""Chains on a cluster, with a leader that dies."""

import asyncio

import pytest

from tests.acceptance.test_chains import LINKS, count, send_event, set_up_agents, wait_for_chain
from tests.kubernetes.conftest import EngineFactory
from tests.kubernetes.test_failover import leaderships
from tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes(node=True), pytest.mark.timeout(900)]

EVENTS = 3


async def test_each_job_of_a_chain_is_created_once_although_the_leader_dies(start_engine: EngineFactory) -> None:
    leader = start_engine()
    await eventually(lambda: leaderships(leader) == 1)
    successor = start_engine()
    async with successor.admin() as admin:
        await set_up_agents(admin)
        first_jobs = await asyncio.gather(*(send_event(admin) for _ in range(EVENTS)))
        await admin.wait(first_jobs[0])
        leader.kill()
        chains = await asyncio.gather(*(wait_for_chain(admin, job_id) for job_id in first_jobs))
        assert {len(chain) for chain in chains} == {len(LINKS)}
        assert await count(admin) == len(LINKS) * EVENTS
        assert all(job["status"] == "completed" for chain in chains for job in chain)

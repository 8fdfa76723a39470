"""Chains: an event starts an agent and each job starts the next one exactly once, even if the engine is killed."""

import asyncio
from typing import Any

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import User

EVENT = {"source": "tests", "event": "thing.happened", "payload": {"thing": {"number": 7}}}
LINKS = ("first", "second", "third")
EVENTS_A_ROUND, KILLS = 6, 5


def an_agent(name: str, *, following: str | None, starts: bool) -> dict[str, Any]:
    """Return an agent of the mock provider. following: the next agent of the chain. starts: EVENT starts the agent."""
    trigger: dict[str, Any] = {"source": "tests", "events": ["thing.*"], "enabled": starts}
    if following:
        trigger["next"] = {"agentTriggerName": following}
    return {"name": name, "triggerName": name, "defaultProvider": "mock", "eventTriggers": [trigger]}


async def set_up_agents(admin: User) -> None:
    for place, name in enumerate(LINKS):
        following = LINKS[place + 1] if place + 1 < len(LINKS) else None
        created = await admin.post("/api/agents", an_agent(name, following=following, starts=place == 0))
        assert created.status_code == 201, created.text


async def send_event(user: User) -> str:
    answer = await user.post("/api/events/ingest", EVENT)
    assert answer.status_code == 200, answer.text
    ((job, *others),) = (answer.json()["jobs"],)
    assert not others
    return str(job["jobId"])


async def wait_for_chain(user: User, job_id: str) -> list[dict[str, Any]]:
    """Wait for the end of a chain. Return its jobs from `job_id` to the last one."""
    chain = [await user.wait(job_id)]
    async with asyncio.timeout(60):
        while chain[-1]["agentRole"] != LINKS[-1]:
            latest = await user.wait(chain[-1]["id"])
            assert latest["chainEnded"] is None
            if latest["childJobId"]:
                chain.append(await user.wait(latest["childJobId"]))
            else:
                await asyncio.sleep(0.02)
    return chain


async def test_event_starts_a_chain_of_agents(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin, engine.user() as user:
        await set_up_agents(admin)
        first, second, third = await wait_for_chain(user, await send_event(user))
        assert [job["status"] for job in (first, second, third)] == ["completed"] * 3
        assert first["chainId"] == second["chainId"] == third["chainId"]
        assert third["chainPath"] == list(LINKS)
        assert (third["parentJobId"], third["chainDepth"], third["childJobId"]) == (second["id"], 2, None)
        listed = (await user.get("/api/jobs", chainId=first["chainId"])).json()
        assert {job["id"] for job in listed["jobs"]} == {first["id"], second["id"], third["id"]}
        drawn = await asyncio.to_thread(engine.run_labrats, "chain", first["id"], "--url", engine.url)
        assert [line.split()[-3] for line in drawn.splitlines()[1:]] == list(LINKS)


async def test_chain_without_a_next_agent_ends_with_the_reason(start_engine: EngineFactory) -> None:
    async with start_engine().admin() as admin:
        await admin.post("/api/agents", an_agent("first", following="nobody", starts=True))
        job = await admin.wait(await send_event(admin))
        async with asyncio.timeout(60):
            while (job := await admin.job(job["id"]))["chainEnded"] is None:
                await asyncio.sleep(0.02)
        assert job["chainEnded"] == "there is no agent with the triggerName 'nobody'"
        assert job["status"] == "completed"


async def test_repeatedly_killed_engine_creates_each_link_of_a_chain_once(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin:
        await set_up_agents(admin)
    started: list[str] = []
    for _ in range(KILLS):
        async with engine.admin() as admin:
            jobs_before = await count(admin)
            started += await asyncio.gather(*(send_event(admin) for _ in range(EVENTS_A_ROUND)))
            async with asyncio.timeout(60):
                while await count(admin) <= jobs_before + EVENTS_A_ROUND:
                    await asyncio.sleep(0.005)
        engine.kill()
        engine.start()
    async with engine.admin() as admin:
        chains = await asyncio.gather(*(wait_for_chain(admin, job_id) for job_id in started))
        assert {len(chain) for chain in chains} == {len(LINKS)}
        assert await count(admin) == len(LINKS) * EVENTS_A_ROUND * KILLS


async def count(admin: User) -> int:
    return int((await admin.get("/api/jobs", limit=1)).json()["total"])

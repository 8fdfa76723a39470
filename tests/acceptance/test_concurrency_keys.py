"""Concurrency keys: one run at a time for each key, and newer jobs that supersede older ones."""

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import Engine, User
from tests.acceptance.test_webhooks import SOURCE, an_issue, deliver
from tests.support.waiting import DEADLINE_SECONDS, poll_intervals

HANG = {"hang": True}


def keyed(key: str, on_new: str = "queue", **fields: Any) -> dict[str, Any]:
    return {"concurrency": {"key": key, "onNew": on_new} | fields}


async def waits_for(user: User, job_id: str, other: str) -> None:
    """Wait until the job shows that it waits for another one of its key."""
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while ((waiting := (await user.job(job_id))["waiting"]) or {}).get("waitsFor") != other:
            await asyncio.sleep(next(pause))
    assert waiting["reason"] == "concurrency"
    assert waiting["estimateSeconds"] is None


def ran_one_after_the_other(details: Sequence[dict[str, Any]]) -> bool:
    spans = sorted((each["processedAt"], each["finishedAt"]) for each in details if each["processedAt"])
    return all(ended <= began for (_, ended), (began, _) in pairwise(spans))


async def test_jobs_of_one_key_run_one_after_the_other_in_order(user: User, model: str) -> None:
    first = await user.submit(HANG, config={"model": model}, **keyed("one"))
    await user.wait(first, "active")
    second = await user.submit(config={"model": model}, **keyed("one"), priority=9)
    third = await user.submit(config={"model": model}, **keyed("one"), priority=-9)
    other = await user.run(config={"model": model}, **keyed("two"))
    assert other["status"] == "completed"
    await waits_for(user, second, first)
    await waits_for(user, third, first)

    await user.cancel(first)
    details = [await user.wait(job_id) for job_id in (first, second, third)]

    assert [each["status"] for each in details] == ["cancelled", "completed", "completed"]
    assert ran_one_after_the_other(details)
    assert details[1]["processedAt"] < details[2]["processedAt"]
    assert details[1]["concurrency"] == {"key": "one", "onNew": "queue", "debounceSeconds": 0}
    assert [each["supersededBy"] for each in details] == [None] * 3


async def test_new_job_supersedes_the_running_and_the_waiting_one(user: User, model: str) -> None:
    config = {"model": model}
    running = await user.submit(HANG, config=config, **keyed("pr"))
    await user.wait(running, "active")
    waiting = await user.submit(HANG, config=config, **keyed("pr"))
    await waits_for(user, waiting, running)

    newest = await user.submit(config=config, **keyed("pr", "supersede"))
    details = [await user.wait(job_id) for job_id in (running, waiting, newest)]

    assert [each["status"] for each in details] == ["cancelled", "cancelled", "completed"]
    assert [each["supersededBy"] for each in details] == [newest, newest, None]
    assert ran_one_after_the_other(details)


@pytest.mark.parametrize(("action", "body"), [("rerun", {}), ("messages", {"prompt": "And the tests?"})])
async def test_job_that_continues_an_old_one_waits_for_the_newer_run_of_its_key(
    user: User, model: str, action: str, body: dict[str, Any]
) -> None:
    config, supersede = {"model": model}, keyed("pull-request", "supersede", debounceSeconds=1)
    old = await user.run(config=config, **supersede)
    newer = await user.submit(HANG, config=config, **supersede)
    await user.wait(newer, "active")

    answer = await user.post(f"/api/jobs/{old['id']}/{action}", body)
    assert answer.status_code == 201, answer.text
    again = answer.json()["jobId"]
    await waits_for(user, again, newer)
    newest = await user.submit(config=config, **supersede)
    details = [await user.wait(job_id) for job_id in (newer, again, newest)]

    assert [each["status"] for each in details] == ["cancelled", "cancelled", "completed"]
    assert [each["supersededBy"] for each in details] == [newest, newest, None]


async def test_replace_waiting_lets_the_running_job_end(user: User, model: str) -> None:
    config = {"model": model}
    running = await user.submit({"sleepMs": 2500}, config=config, **keyed("deploy"))
    await user.wait(running, "active")
    waiting = await user.submit(config=config, **keyed("deploy"))

    newest = await user.submit(config=config, **keyed("deploy", "replaceWaiting"))
    details = {job_id: await user.wait(job_id) for job_id in (running, waiting, newest)}

    assert details[running]["status"] == details[newest]["status"] == "completed"
    assert details[newest]["processedAt"] >= details[running]["finishedAt"]
    if details[waiting]["status"] == "cancelled":  # otherwise the running one ended before the newest was submitted
        assert details[waiting]["supersededBy"] == newest


async def test_nobody_supersedes_the_jobs_of_another_owner(engine: Engine, user: User, model: str) -> None:
    mine = await user.submit(HANG, config={"model": model}, **keyed("shared"))
    await user.wait(mine, "active")
    async with engine.user() as other:
        theirs = await other.run(config={"model": model}, **keyed("shared", "supersede"))
    assert theirs["status"] == "completed"
    assert (await user.job(mine))["status"] == "active"


async def test_debounced_burst_leaves_one_run_of_the_newest(user: User, model: str) -> None:
    options = keyed("burst", "supersede", debounceSeconds=3)
    jobs = await asyncio.gather(*(user.submit(config={"model": model}, **options) for _ in range(10)))
    details = [await user.wait(job_id) for job_id in jobs]
    newest = max(details, key=lambda each: (each["createdAt"], each["id"]))
    assert newest["status"] == "completed"
    others = [each for each in details if each is not newest]
    assert {each["status"] for each in others} == {"cancelled"}
    assert {each["attempts"] for each in others} == {0}
    assert {each["supersededBy"] for each in others} <= set(jobs)
    created, started = (datetime.fromisoformat(newest[name]) for name in ("createdAt", "processedAt"))
    assert (started - created).total_seconds() >= 3


async def test_debounced_job_says_until_when_it_waits(user: User, model: str) -> None:
    job_id = await user.submit(config={"model": model}, **keyed("slow", debounceSeconds=3600))
    waiting = (await user.job(job_id))["waiting"]
    assert waiting["reason"] == "debounce"
    created = datetime.fromisoformat((await user.job(job_id))["createdAt"])
    assert (datetime.fromisoformat(waiting["debouncedUntil"]) - created).total_seconds() == 3600


async def test_placeholders_of_a_key_are_replaced_once(user: User, model: str) -> None:
    metadata = {"repo": "octo/demo", "number": 7, "branch": "{{ source }}"}
    key = "{{ repo }}#{{ number }} {{ metadata.branch }} {{ other }}"
    job = await user.run(config={"model": model}, metadata=metadata, **keyed(key))
    assert job["concurrency"]["key"] == "octo/demo#7 {{ source }} {{ other }}"
    again = (await user.post(f"/api/jobs/{job['id']}/rerun")).json()["jobId"]
    assert (await user.wait(again))["concurrency"] == job["concurrency"]


@pytest.mark.parametrize(
    ("concurrency", "field", "message"),
    [
        ({"key": "{{ repo }}#1"}, "concurrency.key", "{{ repo }}, which has no value: set metadata.repo"),
        ({"key": "{{ payload.number }}"}, "concurrency.key", "only jobs of events have one"),
        ({"key": "{{ agent }}"}, "concurrency.key", "name an agent in agentRole"),
        ({"key": "x" * 201}, "concurrency.key", "200"),
        ({"key": "a", "onNew": "cancel"}, "concurrency.onNew", "supersede"),
        ({"key": "a", "debounceSeconds": 3601}, "concurrency.debounceSeconds", "3600"),
        ({"onNew": "queue"}, "concurrency.key", "required"),
        ({"key": "a", "keys": "b"}, "concurrency.keys", "no such field"),
    ],
)
async def test_invalid_concurrency_is_refused_with_its_field(
    user: User, concurrency: dict[str, Any], field: str, message: str
) -> None:
    answer = await user.post(
        "/api/jobs/submit", {"source": "manual", "type": "a", "prompt": "b", "concurrency": concurrency}
    )
    assert answer.status_code == 422, answer.text
    problem = answer.json()["details"][0]
    assert problem["field"] == field
    assert message in problem["message"], problem


async def test_retry_is_refused_while_a_newer_job_supersedes_the_failed_one(user: User, model: str) -> None:
    config = {"model": model}
    failed = (await user.run({"fail": "no"}, config=config, **keyed("again")))["id"]
    newer = await user.submit(HANG, config=config, **keyed("again", "supersede"))
    await user.wait(newer, "active")
    assert newer in (await user.job(failed))["retryRefused"]

    refused = await user.post(f"/api/jobs/{failed}/retry")
    assert refused.status_code == 400
    assert f"the job {newer} with the same concurrency key supersedes this one" in refused.text

    await user.cancel(newer)
    await user.wait(newer)
    pause = poll_intervals()
    async with asyncio.timeout(DEADLINE_SECONDS):  # another replica may answer, which does not know of the end yet
        while (await user.post(f"/api/jobs/{failed}/retry")).status_code != 200:
            await asyncio.sleep(next(pause))
    assert (await user.wait(failed))["attempts"] == 2


async def test_events_start_jobs_with_the_key_of_their_trigger(admin: User, model: str) -> None:
    name = f"keyed-{secrets.token_hex(4)}"
    concurrency = {"key": "{{ agent }} {{ repo }}#{{ number }}", "onNew": "supersede", "debounceSeconds": 2}
    trigger = {"source": name, "events": ["issues.*"], "config": {"model": model}, "concurrency": concurrency}
    agent = {"name": name, "defaultProvider": "mock", "eventTriggers": [trigger]}
    created = await admin.post("/api/agents", agent)
    assert created.status_code == 201, created.text
    assert (await admin.get(f"/api/agents/{name}")).json()["eventTriggers"][0]["concurrency"] == concurrency
    payload = {"repository": {"full_name": "octo/demo"}, "issue": {"number": 7, "title": "It crashes"}}

    sent = [
        (await admin.post("/api/events/ingest", {"source": name, "event": "issues.opened", "payload": payload})).json()
        for _ in range(3)
    ]
    details = [await admin.wait(answer["jobs"][0]["jobId"]) for answer in sent]

    assert {each["concurrency"]["key"] for each in details} == {f"{name} octo/demo#7"}
    newest = max(details, key=lambda each: (each["createdAt"], each["id"]))
    assert [each["status"] for each in details if each is not newest] == ["cancelled"] * 2
    assert newest["status"] == "completed"


async def test_burst_of_fifty_deliveries_leaves_one_run(start_engine: EngineFactory) -> None:
    engine = start_engine(LABRATS_EVENT_JOBS_PER_THREAD="50")
    trigger = {
        "source": "github",
        "events": ["issues.labeled"],
        "concurrency": {"key": "{{ repo }}#{{ number }}", "onNew": "supersede", "debounceSeconds": 5},
    }
    agent = {"name": "developer", "eventTriggers": [trigger], "defaultProvider": "mock"}
    async with engine.admin() as admin:
        for path, body in (("/api/agents", agent), ("/api/webhook-sources", SOURCE)):
            assert (await admin.post(path, body)).status_code == 201
        answers = await asyncio.gather(*(deliver(engine, an_issue(burst=n), delivery=f"burst-{n}") for n in range(50)))
        details = [await admin.wait(answer["jobs"][0]["jobId"]) for answer in answers]
    newest = max(details, key=lambda each: (each["createdAt"], each["id"]))
    assert newest["status"] == "completed"
    assert [each["status"] for each in details].count("cancelled") == 49
    assert all(each["attempts"] == 0 and each["supersededBy"] for each in details if each is not newest)


async def test_keys_stay_exact_when_the_engine_is_killed(start_engine: EngineFactory) -> None:
    engine = start_engine()
    async with engine.admin() as admin:
        jobs: list[str] = []
        for round_number in range(4):
            for number in range(6):
                steps = [{"sleepMs": 300 * number}, {"result": number}]
                on_new = ("queue", "supersede", "replaceWaiting")[number % 3]
                jobs.append(await admin.submit(*steps, **keyed(f"key-{number % 2}", on_new)))
            if round_number < 3:
                engine.kill()
                engine.start()
        details = {job_id: await admin.wait(job_id) for job_id in jobs}
    for key in ("key-0", "key-1"):
        of_key = [each for each in details.values() if each["concurrency"]["key"] == key]
        of_key.sort(key=lambda each: (each["createdAt"], each["id"]))
        assert ran_one_after_the_other(of_key)
        assert of_key[-1]["status"] == "completed"
        for each in of_key:
            assert each["status"] in ("completed", "cancelled", "failed"), each
            if each["status"] == "cancelled":
                successor = details[each["supersededBy"]]
                assert (successor["createdAt"], successor["id"]) > (each["createdAt"], each["id"])
                assert successor["concurrency"]["onNew"] != "queue"

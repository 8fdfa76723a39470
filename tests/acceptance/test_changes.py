"""The feed of changes."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.acceptance.engine import PATIENCE_SECONDS, Engine, LocalEngine, SentEvent, User

Events = AsyncIterator[SentEvent]


@asynccontextmanager
async def feed(user: User, last_event_id: str | None = None) -> AsyncIterator[Events]:
    """Open the feed. Yields its events after the first, which has only counts."""
    async with user.stream("/api/changes", last_event_id) as events:
        if last_event_id is None:
            assert set((await anext(events)).data) == {"counts"}
        yield events


async def until(events: Events, is_wanted: Callable[[dict[str, Any]], bool]) -> SentEvent:
    """Return the first event that is wanted."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in events:
            if is_wanted(event.data):
                return event
    raise AssertionError("the feed has ended")


def shows(job_id: str, status: str) -> Callable[[dict[str, Any]], bool]:
    """Return a condition on a change: the job is in it, with that status."""
    return lambda data: any(job["id"] == job_id and job["status"] == status for job in data.get("jobs", ()))


def names(kind: str) -> Callable[[dict[str, Any]], bool]:
    return lambda data: kind in data["kinds"]


async def test_changes_of_a_job_arrive_with_its_item(user: User) -> None:
    async with feed(user) as events:
        job_id = await user.submit({"log": "on"}, {"result": 1})
        event = await until(events, shows(job_id, "completed"))

    (item,) = [job for job in event.data["jobs"] if job["id"] == job_id]
    detail = await user.job(job_id)
    assert "result" not in item
    assert item == {field: detail[field] for field in item}
    assert event.data["counts"]["completed"] >= 1


async def test_callers_see_the_changes_of_their_own_jobs_only(engine: Engine, user: User, admin: User) -> None:
    async with engine.user() as other, feed(other) as events, feed(admin) as all_events:
        foreign = await user.submit()
        own = await other.submit()
        seen: set[str] = set()

        def collect(data: dict[str, Any]) -> bool:
            seen.update(job["id"] for job in data.get("jobs", ()))
            return shows(own, "completed")(data)

        event = await until(events, collect)
        await until(all_events, shows(foreign, "completed"))

    assert seen == {own}
    assert event.data["counts"]["completed"] == 1
    assert event.data["kinds"] == []


async def test_kinds_of_changed_resources_are_named_to_admins(admin: User) -> None:
    name = f"feed-{secrets.token_hex(4)}"
    async with feed(admin) as events:
        for kind in ("agents", "ai-models", "api-keys"):
            body = {"name": name} | ({"provider": "mock", "model": name} if kind == "ai-models" else {})
            assert (await admin.post(f"/api/{kind}", body)).status_code == 201
            await until(events, names(kind))


async def test_reader_that_was_cut_off_resumes_or_is_told_to_start_over(engine: Engine, user: User) -> None:
    async with feed(user) as events:
        last = await until(events, shows(await user.submit(), "completed"))
    job_id = (await user.run())["id"]

    async with feed(user, last.id) as events:
        event = await until(events, lambda data: "reset" in data or shows(job_id, "completed")(data))

    assert event.id != last.id
    assert not isinstance(engine, LocalEngine) or "reset" not in event.data  # of several replicas, another may answer


async def test_unknown_id_is_told_to_start_over(user: User) -> None:
    async with feed(user, "0badcafe-17") as events:
        assert (await until(events, lambda _: True)).data["reset"] is True


async def test_feed_from_the_id_of_a_session_misses_no_change(engine: Engine, user: User) -> None:
    async with engine.browser() as visitor:
        me = (await visitor.get("/api/auth/me")).json()
        job_id = (await user.run())["id"]
        async with feed(visitor, me["changes"]) as events:
            event = await until(events, lambda data: "reset" in data or shows(job_id, "completed")(data))
    assert not isinstance(engine, LocalEngine) or "reset" not in event.data


async def test_without_a_session_there_is_no_id(engine: Engine) -> None:
    async with engine.client() as anonymous:
        assert (await anonymous.get("/api/auth/me")).json()["changes"] is None

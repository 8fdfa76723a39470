"""The list of jobs: its order, pages, filters, and visibility."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, Engine, User


async def ids(user: User, **query: Any) -> list[str]:
    """Return the ids of the jobs on a page of the list."""
    answer = await user.get("/api/jobs", **query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["jobs"]]


async def test_jobs_are_listed_newest_first(user: User) -> None:
    submitted = [await user.submit() for _ in range(5)]

    assert await ids(user) == submitted[::-1]


async def test_pages_follow_each_other_without_gap_or_overlap(user: User) -> None:
    submitted = [await user.submit() for _ in range(7)]

    pages = [(await user.get("/api/jobs", page=page, limit=3)).json() for page in (1, 2, 3, 4)]

    assert [job["id"] for page in pages for job in page["jobs"]] == submitted[::-1]
    assert [len(page["jobs"]) for page in pages] == [3, 3, 1, 0]
    assert [(page["total"], page["page"], page["limit"]) for page in pages] == [(7, n, 3) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 20), (0, 1), (-5, 1), (1, 1), (100, 100), (101, 100), (10**6, 100)]
)
async def test_limit_is_clamped_to_1_to_100(user: User, limit: int | None, expected: int) -> None:
    answer = await user.get("/api/jobs", **({} if limit is None else {"limit": limit}))

    assert (answer.status_code, answer.json()["limit"]) == (200, expected)


async def test_new_user_has_no_jobs(user: User) -> None:
    assert (await user.get("/api/jobs")).json() == {"jobs": [], "total": 0, "page": 1, "limit": 20}


async def test_filters_narrow_the_list_and_its_total(user: User) -> None:
    review = await user.submit(type="code-review", source="github", metadata={"repo": "octocat/hello"})
    extract = await user.submit(type="document-extraction", source="manual", metadata={"repo": "octocat/other"})
    failing = await user.submit({"fail": "no"}, type="code-review", source="dashboard")
    for job_id in (review, extract, failing):
        await user.wait(job_id)

    assert await ids(user, type="code-review") == [failing, review]
    assert await ids(user, source="github") == [review]
    assert await ids(user, repo="octocat/other") == [extract]
    assert await ids(user, status="completed") == [extract, review]
    assert await ids(user, status="failed") == [failing]
    assert await ids(user, status="active") == []
    assert await ids(user, type="code-review", status="completed", source="github", repo="octocat/hello") == [review]
    assert await ids(user, agentRole="ai-developer") == []
    assert await ids(user, chainId=str(uuid4())) == []
    assert len(await ids(user, chainId="", type="", source="", agentRole="", repo="", q="")) == 3
    assert (await user.get("/api/jobs", type="code-review", limit=1)).json()["total"] == 2


async def test_q_matches_part_of_id_type_source_or_repo_in_any_case(user: User) -> None:
    one = await user.submit(type="Code-Review", source="github", metadata={"repo": "octocat/hello"})
    other = await user.submit(type="implement-issue", source="manual")

    for part in ("code-rev", "GITHUB", "cat/hel", one):
        assert await ids(user, q=part) == [one]
    assert await ids(user, q="m") == [other]
    assert await ids(user, q="%") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [({"page": 0}, "page"), ({"page": "x"}, "page"), ({"limit": "x"}, "limit"), ({"status": "Running"}, "status")],
)
async def test_invalid_query_parameter_is_refused_by_name(user: User, query: dict[str, Any], field: str) -> None:
    answer = await user.get("/api/jobs", **query)

    assert answer.status_code == 422
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


async def test_users_see_their_own_jobs_and_admins_see_all(engine: Engine, user: User, admin: User) -> None:
    async with engine.user() as other:
        mine, theirs = await user.submit(), await other.submit()

        assert await ids(user) == [mine]
        assert await ids(other) == [theirs]
        assert await ids(user, q=theirs) == []
        assert (await ids(admin))[:2] == [theirs, mine]
        assert (await admin.get("/api/jobs")).json()["total"] > 2


async def test_list_follows_changes_of_status(user: User) -> None:
    job_id = await user.submit({"hang": True})
    await user.wait(job_id, "active")
    await until_listed(user, job_id, "active")

    await user.cancel(job_id)
    await user.wait(job_id)
    await until_listed(user, job_id, "cancelled")
    assert await ids(user, status="active") == []


async def until_listed(user: User, job_id: str, status: str) -> None:
    """Wait until the job is the only one with a status. The list may lag behind the job."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await ids(user, status=status) != [job_id]:
            await asyncio.sleep(0.01)


async def test_running_job_shows_its_activity_in_the_list_and_in_the_feed(user: User) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), user.stream("/api/changes") as changes:
        await anext(changes)
        job_id = await user.submit({"log": "reading the issue"}, {"sleepMs": 2500}, {"log": "writing"}, {"hang": True})
        seen: list[str] = []
        async for change in changes:
            seen += [each["activity"] for each in change.data.get("jobs", ())]
            seen += change.data.get("activities", {}).values()
            if "writing" in seen:
                break
        assert "reading the issue" in seen
        (item,) = (await user.get("/api/jobs", status="active")).json()["jobs"]
        assert (item["id"], item["activity"]) == (job_id, "writing")
        await user.cancel(job_id)
        await user.wait(job_id)
    (item,) = (await user.get("/api/jobs")).json()["jobs"]
    assert item["activity"] is None

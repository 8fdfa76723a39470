"""The list of jobs: filters, cursors and facets."""

import base64
from typing import Any

import httpx2
import pytest

from labrats.model.job import Job
from labrats.model.phases import Phase
from tests.api.conftest import Api, a_submission
from tests.support.builders import an_ai_model
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
async def held_back(api: Api) -> None:
    """Let no job start: its model has no slots."""
    for model in ("mock", "opus"):
        await api.store.create(an_ai_model(model, model=model, slots=0))


async def submit(user: httpx2.AsyncClient, **fields: Any) -> str:
    answer = await user.post("/api/jobs/submit", json=a_submission(**fields))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["jobId"])


async def submit_several(api: Api, user: httpx2.AsyncClient, number: int) -> list[str]:
    """Submit jobs a second apart, and return their ids, newest first, once the index has them."""
    ids = []
    for _ in range(number):
        ids.append(await submit(user))
        await api.clock.advance(1)
    await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == number)
    return ids[::-1]


def encoded(cursor: str) -> str:
    return base64.urlsafe_b64encode(cursor.replace("'", '"').encode()).decode()


async def listed(user: httpx2.AsyncClient, **query: Any) -> Any:
    answer = await user.get("/api/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_cursors_lead_through_all_jobs(api: Api, user: httpx2.AsyncClient) -> None:
    ids = await submit_several(api, user, 5)
    first = await listed(user, cursor="", limit=2)
    assert set(first) == {"jobs", "next", "limit"}
    second = await listed(user, cursor=first["next"], limit=2)
    last = await listed(user, cursor=second["next"], limit=2)
    assert [job["id"] for page in (first, second, last) for job in page["jobs"]] == ids
    assert last["next"] is None


async def test_oldest_jobs_come_first_on_request(api: Api, user: httpx2.AsyncClient) -> None:
    ids = await submit_several(api, user, 3)
    for pages in ({"cursor": ""}, {"page": 1}):
        assert [job["id"] for job in (await listed(user, **pages, sort="oldest"))["jobs"]] == ids[::-1]
    assert [job["id"] for job in (await listed(user, page=2, limit=2, sort="oldest"))["jobs"]] == ids[:1]


async def test_a_page_without_a_cursor_has_a_total(api: Api, user: httpx2.AsyncClient) -> None:
    ids = await submit_several(api, user, 3)
    page = await listed(user, page=2, limit=2)
    assert ([job["id"] for job in page["jobs"]], page["total"], page["page"]) == (ids[2:], 3, 2)
    assert "next" not in page


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"model": "opus"}, ["other"]),
        ({"provider": "mock"}, ["mine", "other"]),
        ({"status": ["waiting", "active"]}, ["mine", "other"]),
        ({"status": ["failed", "completed"]}, []),
        ({"failedCode": "timeout"}, []),
        ({"q": "say"}, ["mine"]),
        ({"from": "2100-01-01T00:00:00Z"}, []),
        ({"to": "2100-01-01T00:00:00Z"}, ["mine", "other"]),
        ({"owner": "other"}, ["other"]),
    ],
)
async def test_filters_select_jobs(
    api: Api, admin: httpx2.AsyncClient, query: dict[str, Any], matches: list[str]
) -> None:
    async with api.client("user") as user, api.client("other") as other:
        ids = {
            await submit(user, prompt="Say hello\nand more"): "mine",
            await submit(other, prompt="Sing", config={"provider": "mock", "model": "opus"}): "other",
        }
    await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == 2)
    if "owner" in query:
        query = {"owner": (await api.store.get(Job, next(iter(reversed(ids))))).spec.owner}
    found = (await listed(admin, **query))["jobs"]
    assert sorted(ids[job["id"]] for job in found) == matches


async def test_a_caller_may_not_list_the_jobs_of_another(api: Api, user: httpx2.AsyncClient) -> None:
    async with api.client("other") as other:
        job_id = await submit(other)
    owner = (await api.store.get(Job, job_id)).spec.owner
    for path in ("/api/jobs", "/api/jobs/facets"):
        assert (await user.get(path, params={"owner": owner})).status_code == 403


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": encoded(f"[{10**400}, 'x']")}, "cursor"),
        ({"cursor": encoded("[" * 20_000)}, "cursor"),
        ({"cursor": encoded('[1, "\\ud800"]')}, "cursor"),
        ({"from": "2030-01-01T00:00:00"}, "from"),
        ({"to": "soon"}, "to"),
        ({"from": "2030-02-30T00:00:00Z"}, "from"),
        ({"to": "1767225600"}, "to"),
        ({"endedFrom": "yesterday"}, "endedFrom"),
        ({"status": "done"}, "status"),
        ({"sort": "cheapest"}, "sort"),
        ({"omit": "id"}, "omit"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_an_invalid_parameter_is_refused_and_named(
    user: httpx2.AsyncClient, query: dict[str, str], field: str
) -> None:
    answer = await user.get("/api/jobs", params=query)
    assert answer.status_code == 422
    assert answer.json()["details"][0]["field"] == field


async def test_an_item_has_a_title_and_omits_the_result_on_request(api: Api, user: httpx2.AsyncClient) -> None:
    long_line = "Fix the parser. " * 20
    await submit(user, prompt=f"\n  {long_line}\nmore")
    await api.clock.advance(1)
    await submit(user, prompt="Say hello", metadata={"title": "Greet"})
    await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == 2)
    newest, oldest = (await listed(user, omit="result"))["jobs"]
    assert (newest["title"], oldest["title"]) == ("Greet", f"{long_line[:119].strip()}…")
    assert "result" not in newest
    assert "result" in (await listed(user))["jobs"][0]


async def test_facets_count_the_callers_jobs(api: Api, user: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    await submit(user, metadata={"repo": "octo/cat"})
    await submit(user, config={"provider": "mock", "model": "opus"})
    await submit(admin)
    await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == 3)
    facets = (await user.get("/api/jobs/facets")).json()
    assert facets["status"] == [{"value": "waiting", "count": 2}]
    assert facets["repo"] == [{"value": "octo/cat", "count": 1}]
    assert facets["failedCode"] == []
    assert [each["count"] for each in facets["owner"]] == [2]
    (own,) = facets["owner"]
    by_owner = (await admin.get("/api/jobs/facets")).json()["owner"]
    assert own in by_owner
    assert len(by_owner) == 2
    filtered = (await admin.get("/api/jobs/facets", params={"owner": own["value"]})).json()
    assert filtered["status"] == facets["status"]
    assert filtered["owner"] == by_owner
    assert (await user.get("/api/jobs/facets", params={"owner": own["value"]})).json()["owner"] == [own]
    assert (await admin.get("/api/jobs/facets", params={"model": "opus"})).json()["status"] == [
        {"value": "waiting", "count": 1}
    ]


@pytest.mark.parametrize("query", [{"q": "ÜBERSETZE"}, {"from": "2000-01-01T00:00:00Z", "type": "translation"}])
async def test_facets_count_the_jobs_that_a_search_finds(
    api: Api, user: httpx2.AsyncClient, query: dict[str, str]
) -> None:
    await submit(user, prompt="Übersetze das Handbuch", type="translation", metadata={"repo": "octo/cat"})
    await submit(user, prompt="Say hello", metadata={"repo": "octo/dog"})
    await eventually(lambda: api.services.job_index.count_in(Phase.PENDING) == 2)
    facets = (await user.get("/api/jobs/facets", params=query)).json()
    assert facets["repo"] == [{"value": "octo/cat", "count": 1}]
    assert facets["agentRole"] == []
    assert (await listed(user, **query))["total"] == 1


async def test_page_after_the_last_one_has_the_same_total(api: Api, user: httpx2.AsyncClient) -> None:
    await submit_several(api, user, 3)
    for page, found in ((1, 2), (2, 1), (3, 0)):
        answer = await listed(user, page=page, limit=2)
        assert (len(answer["jobs"]), answer["total"]) == (found, 3)

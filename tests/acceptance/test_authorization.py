"""Who may do what: a row for every route there is, and every kind of caller on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User

OPEN = dict.fromkeys(("nobody", "stranger", "expired", "revoked", "other", "owner", "admin"), 200)
KEY = dict.fromkeys(("nobody", "stranger", "expired", "revoked"), 401)
OWN = KEY | {"other": 403}
ADMIN = KEY | {"other": 403, "owner": 403}


@dataclass(frozen=True)
class Row:
    """What each kind of caller is answered. Who is not named may do it: the answer is neither 401 nor 403."""

    method: str
    path: str
    answers: dict[str, int]
    body: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


MATRIX = [
    Row("GET", "/health", OPEN),
    Row("GET", "/ready", OPEN),
    Row("GET", "/metrics", OPEN),
    Row("GET", "/api/openapi.json", OPEN),
    Row("GET", "/api/docs", OPEN),
    Row("POST", "/api/jobs/submit", KEY, {}),
    Row("GET", "/api/jobs", KEY),
    Row("GET", "/api/jobs/{job_id}", OWN),
    Row("GET", "/api/jobs/{job_id}/logs", OWN),
    Row("GET", "/api/jobs/{job_id}/events", OWN),
    Row("POST", "/api/jobs/{job_id}/retry", OWN),
    Row("POST", "/api/jobs/{job_id}/cancel", OWN),
    Row("GET", "/api/ai-models", ADMIN),
    Row("POST", "/api/ai-models", ADMIN, {}),
    Row("GET", "/api/ai-models/{name}", ADMIN),
    Row("PATCH", "/api/ai-models/{name}", ADMIN, {"slots": -1}),
    Row("DELETE", "/api/ai-models/{name}", ADMIN),
    Row("GET", "/api/api-keys", ADMIN),
    Row("POST", "/api/api-keys", ADMIN, {}),
    Row("DELETE", "/api/api-keys/{key_id}", ADMIN),
]


async def test_every_route_has_a_row(engine: LocalEngine) -> None:
    async with engine.client() as nobody:
        document = (await nobody.get("/api/openapi.json")).json()

    documented = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert documented | {"GET /api/openapi.json", "GET /api/docs"} == {str(row) for row in MATRIX}


@dataclass(frozen=True)
class Callers:
    """One client of each kind, and a job of the owner's."""

    by_kind: dict[str, Any]
    job_id: str


@pytest.fixture(scope="module")
def expired_key(engine: LocalEngine) -> str:
    """A key that was valid a moment ago."""

    async def expire() -> str:
        expires_at = datetime.now(UTC) + timedelta(seconds=0.5)
        async with asyncio.timeout(PATIENCE_SECONDS), engine.user(expiresAt=expires_at.isoformat()) as user:
            while (await user.get("/api/jobs")).status_code != 401:
                await asyncio.sleep(POLL_SECONDS)
            return user.key

    return asyncio.run(expire())


@pytest.fixture
async def callers(engine: LocalEngine, expired_key: str) -> AsyncIterator[Callers]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        owner, other, revoked, admin = [await enter(engine.user()) for _ in range(3)] + [await enter(engine.admin())]
        await admin.http.delete(f"/api/api-keys/{revoked.key_id}")
        job_id = await owner.submit()
        await owner.wait(job_id)
        by_kind = {
            "nobody": await enter(engine.client()),
            "stranger": await enter(engine.client("lr_" + "x" * 43)),
            "expired": await enter(engine.client(expired_key)),
            "revoked": revoked.http,
            "other": other.http,
            "owner": owner.http,
            "admin": admin.http,
        }
        yield Callers(by_kind, job_id)


@pytest.mark.parametrize("row", MATRIX, ids=str)
async def test_each_kind_of_caller_is_answered_as_the_matrix_says(row: Row, callers: Callers) -> None:
    path = row.path.format(job_id=callers.job_id, name="there-is-none", key_id="there-is-none")
    for kind, client in callers.by_kind.items():
        answer = await client.request(row.method, path, json=row.body)
        if kind in row.answers:
            assert answer.status_code == row.answers[kind], kind
        else:
            assert answer.status_code not in (401, 403), kind
        if answer.status_code in (401, 403):
            assert set(answer.json()) == {"error", "code"}


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer nothing", "Basic bm9ib2R5Og==", "Bearer lr_\xff", "bearer\tx", "Token {key}", "{key}"],
)
async def test_whatever_is_no_valid_key_is_refused(engine: LocalEngine, user: User, header: str) -> None:
    async with engine.client() as http:
        headers = {b"Authorization": header.format(key=user.key).encode("latin-1")}
        answer = await http.get("/api/jobs", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_key_in_the_address_is_none(engine: LocalEngine, user: User) -> None:
    async with engine.client() as http:
        for name in ("key", "api_key", "token", "access_token", "authorization"):
            assert (await http.get("/api/jobs", params={name: user.key})).status_code == 401


async def test_who_may_not_call_learns_nothing_of_the_body(engine: LocalEngine, user: User) -> None:
    """The key is looked at first: a body that is broken, too much, or of the wrong type changes nothing."""
    async with engine.client() as nobody:
        for path in ("/api/jobs/submit", "/api/ai-models", "/api/api-keys"):
            for content in (b"", b"{", b"\xff", b"x" * 1_000_000):
                assert (await nobody.post(path, content=content)).status_code == 401
    assert (await user.http.post("/api/ai-models", content=b"{")).status_code == 403

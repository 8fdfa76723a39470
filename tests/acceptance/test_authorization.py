"""Authorization: the answer of every route to every kind of caller."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx2
import pytest

from labrats.api.app import MODULES
from labrats.api.auth.permissions import TABLE, Access
from labrats.api.routing import GuardedRoute, api_router
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, Engine, User

KINDS = (
    "nobody",
    "stranger",
    "expired",
    "revoked",
    "signed out",
    "forged",
    "other",
    "owner",
    "viewer",
    "admin",
    "user",
)

UNKNOWN = dict.fromkeys(("nobody", "stranger", "expired", "revoked", "signed out", "forged"), 401)
REFUSED: dict[Access, dict[str, int]] = {
    Access.OPEN: {},
    Access.SIGNED: dict.fromkeys(KINDS, 401),
    Access.CALLER: UNKNOWN,
    Access.OWNER: UNKNOWN | {"other": 403},
    Access.ADMIN: UNKNOWN | {"other": 403, "owner": 403},
}
"""The status that refuses each kind of caller, by the route's access. Callers not listed get neither 401 nor 403."""

ROUTES = [route for module in MODULES for route in module.router.routes if isinstance(route, GuardedRoute)]


def test_every_route_is_a_guarded_route() -> None:
    assert [route for module in MODULES for route in module.router.routes] == ROUTES


async def test_openapi_document_lists_exactly_the_guarded_routes(engine: Engine) -> None:
    async with engine.client() as anonymous:
        document = (await anonymous.get("/api/openapi.json")).json()

    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert documented == {(route.method, route.path_format) for route in ROUTES if route.include_in_schema}


def test_route_without_a_row_in_the_permission_table_cannot_be_created() -> None:
    router = api_router("Test")

    with pytest.raises(LookupError, match=r"POST /api/jobs/\{job_id\} has no entry in labrats/api/auth/permissions.py"):
        router.post("/api/jobs/{job_id}")(lambda: None)


def test_only_these_routes_need_no_credential() -> None:
    """This list repeats the table, so that opening a route by mistake fails a test."""
    assert {path for (_, path), access in TABLE.items() if access is Access.OPEN} == {
        "/health",
        "/ready",
        "/metrics",
        "/api/openapi.json",
        "/api/docs",
        "/api/auth/oidc",
        "/api/auth/oidc/callback",
        "/api/auth/link",
        "/api/auth/me",
        "/api/auth/logout",
    }


@dataclass(frozen=True)
class Callers:
    """A client of each kind. names: the owner's resources, by the path parameter that names them."""

    by_kind: dict[str, httpx2.AsyncClient]
    names: dict[str, str]


@pytest.fixture(scope="module")
def expired_key(engine: Engine) -> str:
    """A key that has just expired."""

    async def expire() -> str:
        expires_at = datetime.now(UTC) + timedelta(seconds=0.5)
        async with asyncio.timeout(PATIENCE_SECONDS), engine.user(expiresAt=expires_at.isoformat()) as user:
            while (await user.get("/api/jobs")).status_code != 401:
                await asyncio.sleep(POLL_SECONDS)
            return user.key

    return asyncio.run(expire())


@pytest.fixture(scope="module")
def revoked_key(engine: Engine) -> str:
    """A revoked key. All tests share it, because many different wrong keys would be rate-limited as guesses."""

    async def revoke() -> str:
        async with engine.user() as user, engine.admin() as admin:
            await admin.http.delete(f"/api/api-keys/{user.key_id}")
            return user.key

    return asyncio.run(revoke())


@asynccontextmanager
async def signed_out(engine: Engine) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client that still sends the cookie of an ended session."""
    async with engine.browser() as user:
        assert (await user.post("/api/auth/logout")).status_code == 204
        user.http.cookies["auth_token"] = user.key
        yield user.http


@pytest.fixture
async def callers(engine: Engine, expired_key: str, revoked_key: str) -> AsyncIterator[Callers]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        owner, other, admin = [await enter(engine.user()) for _ in range(2)] + [await enter(engine.admin())]
        viewer = await enter(engine.user(scopes=["viewer"]))
        job_id = await owner.submit()
        by_kind = {
            "nobody": await enter(engine.client()),
            "stranger": await enter(engine.client("lr_" + "x" * 43)),
            "expired": await enter(engine.client(expired_key)),
            "revoked": await enter(engine.client(revoked_key)),
            "other": other.http,
            "owner": owner.http,
            "viewer": viewer.http,
            "admin": admin.http,
            "user": (await enter(engine.browser())).http,
            "signed out": await enter(signed_out(engine)),
            "forged": await enter(engine.client(cookies={"auth_token": "e30.e30.e30"})),
        }
        yield Callers(by_kind, {"job_id": job_id, "action_id": await an_action(owner)})


async def an_action(owner: User) -> str:
    """Start an action on the only job of `owner`, once the index has the job. Return the action's id."""
    body = {"action": "cancel", "filter": {"status": ["waiting", "active", "completed"]}, "expected": 1}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await owner.post("/api/jobs/bulk", body)).status_code == 409:
            await asyncio.sleep(POLL_SECONDS)
    return str(answer.json()["id"])


BODIES: Final = {"/api/jobs/{job_id}/messages": {"prompt": "Add a test."}}
"""The bodies that routes need before they look for the object of a path."""


def may_be_viewed(route: GuardedRoute) -> bool:
    """Return whether a viewer may call the route. This repeats the table, so that a mistake in it fails a test."""
    if route.path in ("/api/secrets", "/api/api-keys") or route.path.endswith("/deliveries/{delivery_id}"):
        return False
    return route.method == "GET" or route.path == "/api/events/test"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_route_accepts_and_refuses_callers_as_the_table_says(route: GuardedRoute, callers: Callers) -> None:
    path = re.sub(r"\{(\w+)[^}]*\}", lambda name: callers.names.get(name[1], "there-is-none"), route.path)
    refused = REFUSED[route.access]
    if route.access not in (Access.OPEN, Access.SIGNED) and not may_be_viewed(route):
        refused = refused | {"viewer": 403}
    for kind, client in callers.by_kind.items():
        body = BODIES.get(route.path)
        own = {"Sec-Fetch-Site": "same-origin"}  # as the dashboard, which alone may sign in by POST
        async with client.stream(route.method, path, json=body, headers=own) as answer:  # some streams never end
            if kind in refused:
                assert answer.status_code == refused[kind], kind
                assert set(json.loads(await answer.aread())) == {"error", "code"}
            else:
                assert answer.status_code not in (401, 403), kind


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer nothing", "Basic bm9ib2R5Og==", "Bearer lr_\xff", "bearer\tx", "Token {key}", "{key}"],
)
async def test_authorization_header_without_a_valid_key_is_refused(engine: Engine, user: User, header: str) -> None:
    async with engine.client() as http:
        headers = {b"Authorization": header.format(key=user.key).encode("latin-1")}
        answer = await http.get("/api/jobs", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_key_in_the_query_string_is_ignored(engine: Engine, user: User) -> None:
    async with engine.client() as http:
        for name in ("key", "api_key", "token", "access_token", "authorization"):
            assert (await http.get("/api/jobs", params={name: user.key})).status_code == 401


async def test_unauthorized_caller_gets_the_same_answer_for_any_body(engine: Engine, user: User) -> None:
    """The key is checked first, even if the body is broken, too large, or of the wrong type."""
    async with engine.client() as anonymous:
        for path in ("/api/jobs/submit", "/api/ai-models", "/api/api-keys"):
            for content in (b"", b"{", b"\xff", b"x" * 1_000_000):
                assert (await anonymous.post(path, content=content)).status_code == 401
    assert (await user.http.post("/api/ai-models", content=b"{")).status_code == 403


async def test_viewer_sees_the_jobs_of_all_and_changes_none(engine: Engine, user: User) -> None:
    job_id = (await user.run({"fail": "no"}))["id"]
    async with engine.user(scopes=["viewer"]) as viewer:
        assert (await viewer.job(job_id))["owner"] == user.key_id
        assert job_id in [job["id"] for job in (await viewer.get("/api/jobs", owner=user.key_id)).json()["jobs"]]
        async with asyncio.timeout(PATIENCE_SECONDS), viewer.stream("/api/changes") as changes:
            await anext(changes)
            other = await user.submit()
            while other not in [job["id"] for job in (await anext(changes)).data.get("jobs", ())]:
                pass
        answers = [
            await viewer.post(f"/api/jobs/{job_id}/retry"),
            await viewer.post("/api/jobs/bulk", {"action": "retry", "filter": {}, "expected": 1}),
            await viewer.post("/api/jobs/submit", {}),
        ]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert "only reads" in answers[0].json()["error"]
    assert "needs an API key with the scope `" in answers[0].json()["error"]
    assert (await user.job(job_id))["status"] == "failed"


async def test_viewer_is_combined_with_no_other_scope(admin: User) -> None:
    answer = await admin.post("/api/api-keys", {"name": "both", "scopes": ["viewer", "admin"]})

    assert answer.status_code == 422
    assert answer.json()["details"][0]["field"] == "scopes"

"""The cookies of a request, which everybody may send."""

import time

import httpx2
import pytest
from starlette.requests import Request

from labrats.api.http.cookies import cookie_of

LONG = 'auth_token="' + "\\" * 60_000 + '"'


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        (["other=1"], None),
        (["auth_token"], ""),
        (["auth_token=a.b-c_d=="], "a.b-c_d=="),
        (["other=1;auth_token=a ; auth_token_2=b"], "a"),
        (["auth_token=a; auth_token=b"], "b"),
        (["auth_token=a", "other=1"], "a"),
    ],
)
def test_a_cookie_is_found_by_its_name(headers: list[str], found: str | None) -> None:
    request = Request({"type": "http", "headers": [(b"cookie", header.encode()) for header in headers]})
    assert cookie_of(request, "auth_token") == found


@pytest.mark.parametrize("path", ["/api/auth/me", "/api/jobs", "/api/auth/oidc/callback", "/health", "/api/docs"])
async def test_a_long_cookie_keeps_nobody_waiting(user: httpx2.AsyncClient, path: str) -> None:
    await user.get(path)  # the first request may have to prepare the answer
    del user.headers["Authorization"]
    started = time.process_time()
    await user.get(path, headers={"Cookie": LONG})
    assert time.process_time() - started < 0.5

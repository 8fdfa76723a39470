"""Sessions of the dashboard: the access that the cookie grants, cross-site requests, sign-out and login links."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from starlette.requests import Request

from labrats import __version__
from labrats.api.auth.login_links import LIFETIME, create_login_link
from labrats.api.auth.sessions import SIGNING_SECRET, Sessions, Signer, signing_secret
from labrats.compose import create_services
from labrats.model.core_resources import Secret
from labrats.model.job import Job
from labrats.settings import EngineSettings
from tests.api.conftest import SESSION_SECRET, USER, Api, a_submission, api_in_memory
from tests.fakes.store import MemoryStore
from tests.support.waiting import eventually

SUBMIT = "/api/jobs/submit"
LINK = "/api/auth/link"
SECRET = {"Labrats-Session-Secret": "0123456789abcdef0123456789abcdef"}
WRONG_SECRETS: list[dict[str, str]] = [
    {},
    {"Labrats-Session-Secret": ""},
    {"Labrats-Session-Secret": "0123456789abcdef0123456789abcdeF"},
    {"Labrats-Session-Secret": "0123456789abcdef0123456789abcdef0"},
    {"Labrats-Session-Secret": "3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9"},
]
"""The last one is the hash of the secret."""
ENGINE = {"signIn": {"oidc": None, "link": True}, "backend": "embedded", "version": __version__}
FOREIGN_PAGES = (
    "https://evil.example/", "//evil.example", "/\\evil.example", "/\t/evil.example", "jobs", "", "/a b", "/a\r\nX: y",
)  # fmt: skip
"""Pages of other sites, as browsers read them, and malformed ones."""


async def test_a_user_is_shown_and_owns_submitted_jobs(api: Api) -> None:
    async with api.browser() as browser:
        me = (await browser.get("/api/auth/me")).json()
        submitted = await browser.post(SUBMIT, json=a_submission())

    assert me == {
        "user": {"id": USER.id, "name": "Ada", "email": "ada@example.com"},
        "scopes": ["admin", "submit"],
        "expiresAt": me["expiresAt"],
        "changes": me["changes"],
        **ENGINE,
    }
    remaining = datetime.fromisoformat(me["expiresAt"]) - api.clock.now()
    assert timedelta(hours=11.9) < remaining <= timedelta(hours=12)
    job = await api.store.get(Job, submitted.json()["jobId"])
    assert job.spec.owner == USER.id


async def test_without_a_session_nobody_is_signed_in(api: Api) -> None:
    async with api.browser(None) as browser:
        nobody = {"user": None, "scopes": [], "expiresAt": None, "changes": None, **ENGINE}
        assert (await browser.get("/api/auth/me")).json() == nobody
        signed_out = await browser.post("/api/auth/logout")
        assert signed_out.status_code == 204
        assert "Set-Cookie" not in signed_out.headers
        assert (await browser.get("/api/jobs")).status_code == 401


async def test_a_user_sees_the_jobs_of_others(api: Api, user: httpx2.AsyncClient) -> None:
    job_id = (await user.post(SUBMIT, json=a_submission())).json()["jobId"]

    async with api.browser() as browser:
        assert (await browser.get(f"/api/jobs/{job_id}")).status_code == 200
        assert (await browser.get("/api/api-keys")).status_code == 200


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic dXNlcjp0ZXN0", ""])
async def test_an_authorization_header_takes_precedence_over_the_cookie(api: Api, header: str) -> None:
    async with api.browser() as browser:
        answer = await browser.get("/api/jobs", headers={"Authorization": header})
        as_a_user_of_keys = await browser.get("/api/api-keys", headers={"Authorization": "Bearer test-key-of-a-user"})

    assert answer.status_code == 401
    assert as_a_user_of_keys.status_code == 403


async def test_a_key_created_in_a_session_is_shown_again_to_the_same_request(api: Api) -> None:
    async with api.browser() as browser:
        request = {"json": {"name": "ci"}, "headers": {"Idempotency-Key": "once"}}
        first, again = [await browser.post("/api/api-keys", **request) for _ in range(2)]  # type: ignore[arg-type]

    assert first.status_code == 201
    assert again.json() == first.json()


OWN = {"Sec-Fetch-Site": "same-origin"}
FORGED = [
    {},
    {"Origin": "https://elsewhere.test"},
    {"Origin": "http://engine.test.elsewhere.test"},
    {"Origin": "http://engine.test:8080"},
    {"Origin": "http://elsewhere.engine.test"},
    {"Origin": "null"},
    {"Origin": "engine.test"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://engine.test"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://engine.test"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://elsewhere.test"},
    {"Referer": "http://engine.test/"},
    {"X-HTTP-Method-Override": "GET"},
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/x-www-form-urlencoded"},
]
UNSAFE = [
    ("POST", SUBMIT),
    ("POST", "/api/api-keys"),
    ("POST", "/api/jobs/ir-3ab1c2d4/cancel"),
    ("PATCH", "/api/ai-models/opus"),
    ("DELETE", "/api/ai-models/opus"),
    ("POST", "/api/auth/logout"),
    ("POST", f"{LINK}?token=test-token"),
    ("POST", "/api/auth/oidc/callback?state=test-state"),
]
ODD_CLAIMS: list[dict[str, object]] = [{"jti": None}, {"jti": ["1"]}, {"sub": 1}, {"name": {}}, {"email": 2}]
NO_ORIGIN = {"Origin": "null", "Host": ""}
"""Headers of a page in a sandboxed frame, with an empty Host."""


@pytest.mark.parametrize("headers", FORGED, ids=str)
@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_a_cross_site_write_is_refused(api: Api, method: str, path: str, headers: dict[str, str]) -> None:
    async with api.browser() as browser:
        del browser.headers["Sec-Fetch-Site"]
        answer = await browser.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
        assert (await browser.get("/api/auth/me")).json()["user"]


@pytest.mark.parametrize(
    "headers", [OWN, {"Origin": "http://engine.test"}, {"Origin": "https://engine.test"}, OWN | {"Origin": "http://engine.test"}]
)  # fmt: skip
async def test_a_same_origin_write_is_accepted(api: Api, headers: dict[str, str]) -> None:
    async with api.browser() as browser:
        del browser.headers["Sec-Fetch-Site"]
        assert (await browser.post(SUBMIT, json=a_submission(), headers=headers)).status_code == 201


async def test_a_null_origin_is_foreign_with_any_host(tmp_path: Path) -> None:
    async with api_in_memory(tmp_path, host="0.0.0.0", allow_public=True) as api, api.browser() as browser:
        del browser.headers["Sec-Fetch-Site"]
        answer = await browser.post(SUBMIT, json=a_submission(), headers=NO_ORIGIN)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


async def test_the_public_url_is_an_own_origin_behind_a_proxy_that_changes_the_host(tmp_path: Path) -> None:
    async with api_in_memory(tmp_path, public_url="https://labrats.test") as api, api.browser() as browser:
        headers = {"Origin": "https://labrats.test", "Sec-Fetch-Site": "same-origin"}
        assert (await browser.post(SUBMIT, json=a_submission(), headers=headers)).status_code == 201


async def test_requests_with_a_key_need_no_origin(api: Api, user: httpx2.AsyncClient) -> None:
    for headers in FORGED[:6]:
        assert (await user.post(SUBMIT, json=a_submission(), headers=headers)).status_code == 201


@asynccontextmanager
async def dashboard(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a browser in which the dashboard has signed in by a link, with a secret that it does not send yet."""
    async with api.browser(None) as browser:
        answer = await browser.post(LINK, params={"token": await a_token(api)}, headers=SECRET)
        assert answer.status_code == 204, answer.text
        yield browser


async def a_token(api: Api) -> str:
    return (await create_login_link(api.store, "http://engine.test", api.clock.now())).partition("token=")[2]


async def test_a_session_with_a_secret_is_the_user_until_its_expiry(api: Api) -> None:
    async with dashboard(api) as browser:
        me = (await browser.get("/api/auth/me", headers=SECRET)).json()
        submitted = await browser.post(SUBMIT, json=a_submission(), headers=SECRET)
        assert (me["user"]["name"], submitted.status_code) == ("local", 201)
        assert SECRET["Labrats-Session-Secret"] not in browser.cookies["auth_token"]

        api.clock.step(timedelta(hours=12).total_seconds())
        assert (await browser.get("/api/jobs", headers=SECRET)).status_code == 401


@pytest.mark.parametrize("headers", WRONG_SECRETS, ids=str)
async def test_a_session_with_a_secret_does_not_exist_without_it(api: Api, headers: dict[str, str]) -> None:
    async with dashboard(api) as browser:
        stream = {"Accept": "text/event-stream"} | headers
        for method, path, sent in (
            ("GET", "/api/jobs", headers),
            ("GET", "/api/changes", stream),
            ("GET", "/api/jobs/ir-3ab1c2d4/events", stream),
            ("GET", "/api/jobs/ir-3ab1c2d4/logs?format=text", headers),
            ("GET", "/api/workspace-uploads/0/a.csv/raw", headers),
            ("POST", SUBMIT, headers),
            ("POST", "/api/api-keys", headers),
            ("DELETE", "/api/ai-models/opus", headers),
        ):
            answer = await browser.request(method, path, headers=sent)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
        me = (await browser.get("/api/auth/me", headers=headers)).json()
        assert (me["user"], me["scopes"], me["changes"]) == (None, [], None)

        assert (await browser.get("/api/jobs", headers=SECRET)).status_code == 200


async def test_an_open_stream_ends_with_its_session(api: Api) -> None:
    async with dashboard(api) as browser:
        browser.headers.update(SECRET)
        request = browser.build_request("GET", "/api/changes")
        raw = [(name.lower(), value) for name, value in request.headers.raw]
        scope = {"type": "http", "method": "GET", "headers": raw}
        _, credential = api.services.authenticator.authenticate(Request(scope))
        ended = asyncio.ensure_future(credential.wait_until_invalid(api.clock))
        await asyncio.sleep(0)
        assert not ended.done()
        await browser.post("/api/auth/logout")
        await asyncio.wait_for(ended, 1)


@pytest.mark.parametrize("secret", ["", "x" * 31, "x" * 129, "x y" * 12])
async def test_a_link_is_not_used_up_with_an_invalid_secret(api: Api, secret: str) -> None:
    link = {"token": await a_token(api)}
    async with api.browser(None) as browser:
        answer = await browser.post(LINK, params=link, headers={"Labrats-Session-Secret": secret})
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (422, "Labrats-Session-Secret")
        assert "auth_token" not in browser.cookies
        assert (await browser.post(LINK, params=link, headers=SECRET)).status_code == 204


async def test_a_page_without_storage_signs_in_without_a_secret(api: Api) -> None:
    async with api.browser(None) as browser:
        assert (await browser.post(LINK, params={"token": await a_token(api)})).status_code == 204
        assert (await browser.get("/api/jobs")).status_code == 200


async def test_a_session_of_the_version_before_is_accepted_until_its_expiry(api: Api) -> None:
    claims = {"jti": "1" * 32, "sub": USER.id, "name": USER.name, "email": USER.email, "viewer": True}
    async with api.browser(None) as browser:
        in_an_hour = api.clock.now() + timedelta(hours=1)
        browser.cookies["auth_token"] = Signer(SESSION_SECRET).sign("session", claims, in_an_hour)
        for headers in ({}, SECRET):
            assert (await browser.get("/api/auth/me", headers=headers)).json()["scopes"] == ["viewer"]


BROWSERS: list[dict[str, str]] = [
    {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"},
    {"Accept": "*/*", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    {
        "Accept": "*/*",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 Version/16.1 Safari/605.1.15",
    },
    {"Accept": "text/html", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", BROWSERS, ids=str)
@pytest.mark.parametrize(("next_page", "page"), [("/", "/login"), ("/jobs?a=b&c", "/login?next=%2Fjobs%3Fa%3Db%26c")])
async def test_a_link_leads_a_browser_to_the_sign_in_page(
    api: Api, headers: dict[str, str], next_page: str, page: str
) -> None:
    """Pages of other ports get the cookie of a browser, so that its session needs a secret from the beginning."""
    token = await a_token(api)
    async with api.browser(None) as browser:
        del browser.headers["Sec-Fetch-Site"]
        answer = await browser.get(LINK, params={"token": token, "next": next_page}, headers=headers)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"{page}#token={token}")
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Set-Cookie" not in answer.headers
    async with api.client(None) as program:
        assert (await program.get(LINK, params={"token": token})).status_code == 303  # the link is not used up
        assert (await program.get("/api/jobs")).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "http://engine.test:3000"}, {"Sec-Fetch-Site": "same-site"}, {}])
async def test_a_page_on_another_port_cannot_sign_out_a_session_with_a_secret(
    api: Api, headers: dict[str, str]
) -> None:
    """Its requests have the cookie, and no secret."""
    async with dashboard(api) as browser:
        del browser.headers["Sec-Fetch-Site"]
        answer = await browser.post("/api/auth/logout", headers=headers)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (204, False)
        assert (await browser.get("/api/jobs", headers=SECRET)).status_code == 200


async def test_a_session_expires(api: Api) -> None:
    async with api.browser() as browser:
        api.clock.step(timedelta(hours=12).total_seconds() - 1)
        assert (await browser.get("/api/jobs")).status_code == 200
        api.clock.step(1)
        assert (await browser.get("/api/jobs")).status_code == 401
        assert (await browser.get("/api/auth/me")).json()["user"] is None


async def test_sign_out_invalidates_copies_of_the_cookie(api: Api) -> None:
    async with api.browser() as browser, api.browser() as another:
        saved = dict(browser.cookies)
        answer = await browser.post("/api/auth/logout")
        assert answer.status_code == 204
        assert 'auth_token=""' in answer.headers["Set-Cookie"]
        assert "Max-Age=0" in answer.headers["Set-Cookie"]

        browser.cookies.update(saved)
        assert (await browser.get("/api/jobs")).status_code == 401
        assert (await browser.post("/api/auth/logout")).status_code == 204
        assert (await another.get("/api/jobs")).status_code == 200


async def test_an_ended_session_is_refused_at_every_replica_and_deleted_after_its_expiry(api: Api) -> None:
    sessions = Sessions(Signer(SESSION_SECRET), timedelta(hours=1))
    token = sessions.begin(USER, api.clock.now())
    following = asyncio.create_task(sessions.follow(api.store))
    async with api.browser(None) as browser:
        browser.cookies["auth_token"] = token
        await browser.post("/api/auth/logout")
    await eventually(lambda: sessions.caller(token, "", api.clock.now()) is None)

    api.clock.step(3600)
    async with api.browser() as browser:
        await browser.post("/api/auth/logout")

    following.cancel()
    assert [secret.name.partition("-session-")[0] for secret in await api.store.list(Secret)].count("ended") == 1


async def test_an_invalid_token_is_no_session(api: Api) -> None:
    now = api.clock.now()
    good = api.services.sessions.begin(USER, now)
    key, claims = OctKey.import_key(SESSION_SECRET), jwt.decode(good, OctKey.import_key(SESSION_SECRET)).claims
    head, body, signature = good.split(".")
    in_time = now + LIFETIME
    forged = [
        "",
        "null",
        good[:-1],
        f"{good}x",
        f"{head}.{body}.",
        f"{urlsafe_b64encode(b'[' * 20_000).decode().rstrip('=')}.{body}.{signature}",
        f"eyJhbGciOiJub25lIn0.{body}.",
        f"{head}.{body[:-2]}.{signature}",
        jwt.encode({"alg": "HS256"}, claims, OctKey.import_key("another-test-secret-of-other-sessions")),
        jwt.encode({"alg": "HS384"}, claims, key, algorithms=["HS384"]),
        *(
            Signer(SESSION_SECRET).sign("session", {"jti": "1", "sub": "x", "name": "x", "email": None} | odd, in_time)
            for odd in ODD_CLAIMS
        ),
        Signer(SESSION_SECRET).sign("session", {}, in_time),
        jwt.encode({"alg": "HS256"}, {"aud": "session", "exp": "soon"}, key),
        jwt.encode({"alg": "HS256"}, {"aud": "session"}, key),
        Signer(SESSION_SECRET).sign("oidc", {"jti": "1", "sub": "x", "name": "x", "email": None}, now + LIFETIME),
    ]
    async with api.browser(None) as browser:
        for token in forged:
            browser.cookies["auth_token"] = token
            assert (await browser.get("/api/jobs")).status_code == 401, token
        browser.cookies["auth_token"] = good
        assert (await browser.get("/api/jobs")).status_code == 200


async def test_the_signing_secret_is_created_once_for_all_replicas() -> None:
    store = MemoryStore()

    secrets = await asyncio.gather(*(signing_secret(store, None) for _ in range(3)))

    assert len(set(secrets)) == 1
    assert len(secrets[0]) >= 43
    assert (await store.get(Secret, SIGNING_SECRET)).data == {"secret": secrets[0]}


@pytest.mark.parametrize(("role", "created"), [("api", 1), ("controller", 0)])
async def test_only_an_engine_that_serves_requests_creates_a_signing_secret(
    api: Api, tmp_path: Path, role: str, created: int
) -> None:
    """On a cluster, the controller has no permission to create Secrets."""
    store = MemoryStore()

    settings = EngineSettings(data_dir=tmp_path, backend="kubernetes", role=role)
    await create_services(settings, store, api.services.runner, api.services.metrics)

    assert len(await store.list(Secret)) == created


async def test_a_login_link_signs_in_once(api: Api) -> None:
    link = await create_login_link(api.store, "http://engine.test", api.clock.now())
    assert link.partition("token=")[2] not in str([secret.data for secret in await api.store.list(Secret)])
    async with api.client(None) as program, api.client(None) as late:
        opened = await program.get(link)
        assert (opened.status_code, opened.headers["Location"]) == (303, "/")
        assert opened.headers["Referrer-Policy"] == "no-referrer"
        for attribute in ("HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"):
            assert attribute in opened.headers["Set-Cookie"]
        assert "Secure" not in opened.headers["Set-Cookie"]
        assert (await program.get("/api/auth/me")).json()["user"] == {
            "id": "user-local",
            "name": "local",
            "email": None,
        }

        again = await late.get(link)
        assert (again.status_code, again.json()["code"]) == (401, "link_not_valid")
        assert "auth_token" not in late.cookies


async def test_a_login_link_leads_to_the_wanted_page(api: Api) -> None:
    link = await create_login_link(api.store, "http://engine.test", api.clock.now())
    async with api.client(None) as program:
        opened = await program.get(
            link, params={"token": link.partition("token=")[2], "next": "/jobs?status=failed#top"}
        )

    assert (opened.status_code, opened.headers["Location"]) == (303, "/jobs?status=failed#top")


@pytest.mark.parametrize("page", FOREIGN_PAGES)
async def test_pages_of_other_sites_are_refused_and_use_up_no_link(api: Api, page: str) -> None:
    link = await create_login_link(api.store, "http://engine.test", api.clock.now())
    async with api.client(None) as program:
        refused = await program.get(link, params={"token": link.partition("token=")[2], "next": page})
        opened = await program.get(link)

    assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, "next")
    assert opened.status_code == 303


async def test_a_head_request_does_not_use_up_a_login_link(api: Api) -> None:
    link = await create_login_link(api.store, "http://engine.test", api.clock.now())
    async with api.client(None) as program:
        refused = await program.head(link)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, POST")
        assert (await program.get(link)).status_code == 303


async def test_one_of_many_concurrent_uses_of_a_login_link_signs_in(api: Api) -> None:
    link = await create_login_link(api.store, "http://engine.test", api.clock.now())
    async with api.client(None) as client:
        answers = await asyncio.gather(*(client.get(link) for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [303] + [401] * 9


async def test_an_expired_login_link_is_refused_and_deleted(api: Api) -> None:
    link = await create_login_link(api.store, "http://engine.test", api.clock.now())
    api.clock.step(LIFETIME.total_seconds())
    async with api.client(None) as program:
        assert (await program.get(link)).status_code == 401
    expired = await create_login_link(api.store, "http://engine.test", api.clock.now())
    api.clock.step(LIFETIME.total_seconds())
    await create_login_link(api.store, "http://engine.test", api.clock.now())

    assert expired
    assert sum(secret.name.startswith("login-link-") for secret in await api.store.list(Secret)) == 1


@pytest.mark.parametrize("token", ["", "x", "é", "lr_AbC", "x" * 200])
async def test_an_invalid_login_token_is_refused(api: Api, token: str) -> None:
    async with api.client(None) as program:
        assert (await program.get("/api/auth/link", params={"token": token})).status_code == 401


@pytest.mark.parametrize("public_url", [None, "https://labrats.test"])
async def test_the_cookie_is_secure_with_tls(tmp_path: Path, public_url: str | None) -> None:
    async with api_in_memory(tmp_path, public_url=public_url) as api:
        scheme = "http" if public_url else "https"
        link = await create_login_link(api.store, f"{scheme}://engine.test", api.clock.now())
        async with api.client(None) as program:
            assert "Secure" in (await program.get(link)).headers["Set-Cookie"]

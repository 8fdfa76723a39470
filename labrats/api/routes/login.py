"""Sign-in to the dashboard, sign-out, and the current user."""

from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

from fastapi import Header, Query, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from labrats import __version__
from labrats.api.auth.authentication import SESSION_COOKIE, SESSION_SECRET
from labrats.api.auth.login_links import PATH as LINK
from labrats.api.auth.login_links import redeem
from labrats.api.auth.oidc import LOGIN_LIFETIME, OpenIdProvider
from labrats.api.auth.sessions import User
from labrats.api.http.cookies import cookie_of
from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.api.schemas.patterns import OWN_PAGE, RANDOM_TEXT
from labrats.model.errors import NotFound

router = api_router("Auth")

DASHBOARD: Final = "/"
_SIGN_IN_PAGE: Final = "/login"
CALLBACK: Final = "/api/auth/oidc/callback"
LOGIN_COOKIE: Final = "oidc_login"
LOCAL_USER: Final = User("user-local", "local")
"""The user of login links, who owns the data folder."""


class UserView(ResponseBody):
    """A signed-in user."""

    id: str = Field(description="The owner of the jobs that the user submits.", examples=["user-9b1c2d3e4f5a6b7c"])
    name: str = Field(examples=["Ada"])
    email: str | None = Field(examples=["ada@example.com"])


class SignIn(ResponseBody):
    """The ways to sign in."""

    oidc: str | None = Field(
        description="The OpenID provider; null if none is configured.", examples=["https://login.example.com"]
    )
    link: bool = Field(description="True if `labrats serve` and `labrats login-link` print links to sign in.")


class Me(ResponseBody):
    """The signed-in user, if any, and the engine."""

    user: UserView | None
    scopes: list[str] = Field(description="The permissions of the user; empty without one.", examples=[["admin"]])
    expires_at: datetime | None = Field(description="End of the session.", examples=["2030-01-01T12:00:00Z"])
    sign_in: SignIn
    changes: str | None = Field(
        description="The `Last-Event-ID` with which `GET /api/changes` streams every change from this answer on; null "
        "without a user.",
        examples=["5f0c9a1b-16"],
    )
    backend: Literal["embedded", "kubernetes"]
    version: str = Field(examples=["0.2.0"])


NextPage = Annotated[
    str,
    Query(
        alias="next",
        max_length=2000,
        pattern=OWN_PAGE,
        description="The page to show after the sign-in.",
        examples=["/jobs"],
    ),
]
State = Annotated[str, Query(description="The value that was sent to the provider.")]
Code = Annotated[str | None, Query(description="The code to exchange for the user's ID token.")]
Issuer = Annotated[str | None, Query(description="The issuer that responds.")]
ErrorCode = Annotated[str | None, Query(description="The provider's error code, if sign-in failed.")]
LinkToken = Annotated[str, Query(max_length=200, description="The link's token.")]
SessionSecret = Annotated[
    str | None,
    Header(
        alias=SESSION_SECRET,
        min_length=32,
        max_length=128,
        pattern=RANDOM_TEXT,
        description="A random secret. The session is accepted only in requests with the same header. Without it, the "
        "cookie alone is accepted.",
        examples=["9b1c2d3e4f5a6b7c9b1c2d3e4f5a6b7c"],
    ),
]


@router.get(
    "/api/auth/oidc",
    status_code=303,
    response_class=RedirectResponse,
    responses=answers(303, None, "Redirect to the OpenID provider", 404, 422, 503),
    summary="Sign in by OpenID Connect",
)
async def begin_login(request: Request, next_page: NextPage = DASHBOARD) -> Response:
    """Redirect the browser to the OpenID provider, with a cookie that ties the response to this browser."""
    url, cookie = await _provider(request).begin(f"{_origin(request)}{CALLBACK}", next_page)
    response = RedirectResponse(url, 303)
    response.set_cookie(
        LOGIN_COOKIE,
        cookie,
        max_age=int(LOGIN_LIFETIME.total_seconds()),
        path=CALLBACK,
        httponly=True,
        samesite="lax",  # the browser returns from another site
        secure=_is_secure(request),
    )
    return response


@router.get(
    CALLBACK,
    status_code=303,
    response_class=RedirectResponse,
    responses=answers(303, None, "Signed in, or the sign-in page; redirect to the dashboard", 401, 404, 503),
    summary="Return from the OpenID provider",
)
async def return_from_provider(
    request: Request, state: State = "", code: Code = None, iss: Issuer = None, error: ErrorCode = None
) -> Response:
    """Redirect a browser to the sign-in page, which sends the same parameters by POST. A program is signed in at once.

    Only the response to this client's login is accepted.
    """
    if _is_browser(request):
        return _to_sign_in_page(request.url.query, _provider(request).next_page(_login_cookie(request)))
    user, page = await _finish(request, state, code, iss, error)
    return _without_login(request, _signed_in(request, RedirectResponse(page, 303), user))


@router.post(
    CALLBACK,
    status_code=204,
    responses=answers(204, None, "Signed in", 401, 403, 404, 422, 503),
    summary="Finish the sign-in by OpenID Connect",
)
async def finish_login(
    request: Request,
    state: State = "",
    code: Code = None,
    iss: Issuer = None,
    error: ErrorCode = None,
    secret: SessionSecret = None,
) -> Response:
    """Exchange the code for a session of the dashboard. Only the response to this browser's login is accepted."""
    services_of(request).authenticator.check_origin(request)
    user, _ = await _finish(request, state, code, iss, error)
    return _without_login(request, _signed_in(request, Response(status_code=204), user, secret))


@router.get("/api/auth/me", responses=answers(200, Me, "The user and the version", 503), summary="Get the current user")
async def me(request: Request) -> Response:
    """Get the user of the session cookie, the ways to sign in, and the engine's version."""
    services = services_of(request)
    session = services.authenticator.session(request)
    provider = services.openid_provider
    return json_response(
        {
            "user": session and {"id": session.user.id, "name": session.user.name, "email": session.user.email},
            "scopes": sorted(session.caller.scopes) if session else [],
            "expiresAt": session and session.expires_at,
            "signIn": {"oidc": provider and provider.issuer, "link": provider is None},
            "changes": services.change_feed.current_id() if session else None,
            "backend": services.settings.backend,
            "version": __version__,
        }
    )


@router.post(
    "/api/auth/logout", status_code=204, responses=answers(204, None, "Signed out", 403, 503), summary="Sign out"
)
async def logout(request: Request) -> Response:
    """End the session and its open streams, and clear the cookie. Copies of the cookie become invalid."""
    services = services_of(request)
    if session := services.authenticator.session(request):
        services.authenticator.check_origin(request)
        await services.sessions.end(session, services.store, services.clock.now())
    response = Response(status_code=204)
    # The request of another site has no cookie, that of another port no session: neither must clear the cookie.
    has_cookie = cookie_of(request, SESSION_COOKIE) is not None
    if has_cookie and services.authenticator.has_own_origin(request):
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="lax", secure=_is_secure(request))
    return response


@router.get(
    LINK,
    status_code=303,
    response_class=RedirectResponse,
    responses=answers(303, None, "Signed in, or the sign-in page; redirect to the dashboard", 401, 422, 503),
    summary="Open a one-time link",
)
async def open_link(request: Request, token: LinkToken, next_page: NextPage = DASHBOARD) -> Response:
    """Redirect a browser to the sign-in page, which sends the token by POST. A program is signed in at once.

    `labrats serve` and `labrats login-link` print links.
    """
    if _is_browser(request):
        return _to_sign_in_page(urlencode({"token": token}), next_page)
    await _redeem(request, token)
    return _signed_in(request, RedirectResponse(next_page, 303), LOCAL_USER)


@router.post(
    LINK,
    status_code=204,
    responses=answers(204, None, "Signed in", 401, 403, 422, 503),
    summary="Sign in by a one-time link",
)
async def redeem_link(request: Request, token: LinkToken, secret: SessionSecret = None) -> Response:
    """Exchange the token of a one-time link for a session of the dashboard."""
    services_of(request).authenticator.check_origin(request)
    await _redeem(request, token)
    return _signed_in(request, Response(status_code=204), LOCAL_USER, secret)


def _provider(request: Request) -> OpenIdProvider:
    """Return the OpenID provider. Raises NotFound if none is configured."""
    if (provider := services_of(request).openid_provider) is None:
        raise NotFound("no OpenID provider is configured (OIDC_ISSUER); `labrats login-link` prints a link to sign in")
    return provider


def _origin(request: Request) -> str:
    """Return the engine's address as the browser knows it."""
    return services_of(request).settings.public_url or f"{request.url.scheme}://{request.url.netloc}"


def _is_browser(request: Request) -> bool:
    """Return whether a browser sends the request, of its own or by a script of any page.

    It sends cookies to every port of a host. Its session therefore begins with a secret, which only a page of this
    origin can send.
    """
    headers = request.headers
    is_navigation = "text/html" in headers.get("accept", "")
    # Over plain HTTP, browsers send no Sec-Fetch headers, but no page can change this one.
    return is_navigation or "sec-fetch-site" in headers or headers.get("user-agent", "").startswith("Mozilla/")


def _to_sign_in_page(parameters: str, next_page: str) -> Response:
    """Return a redirect to the sign-in page. Browsers send the parameters, in the fragment, to no server."""
    query = "" if next_page == DASHBOARD else f"?{urlencode({'next': next_page})}"
    return RedirectResponse(f"{_SIGN_IN_PAGE}{query}#{parameters}", 303, {"Referrer-Policy": "no-referrer"})


async def _redeem(request: Request, token: str) -> None:
    """Use up a login link. Raises ApiError 401 unless it is valid."""
    services = services_of(request)
    if not await redeem(services.store, token, services.clock.now()):
        message = "this login link was used before, or has expired; `labrats login-link` prints a new one"
        raise ApiError(401, "link_not_valid", message)


async def _finish(
    request: Request, state: str, code: str | None, iss: str | None, error: str | None
) -> tuple[User, str]:
    """Return the user who has signed in at the provider, and the page that the user wanted to see."""
    parameters = {"state": state, "code": code, "iss": iss, "error": error}
    present = {name: value for name, value in parameters.items() if value is not None}
    return await _provider(request).finish(_login_cookie(request), present)


def _login_cookie(request: Request) -> str:
    return cookie_of(request, LOGIN_COOKIE) or ""


def _without_login(request: Request, response: Response) -> Response:
    """Delete the cookie of a finished login."""
    response.delete_cookie(LOGIN_COOKIE, path=CALLBACK, httponly=True, samesite="lax", secure=_is_secure(request))
    return response


def _signed_in(request: Request, response: Response, user: User, secret: str | None = None) -> Response:
    """Add the cookie of a new session of `user`, which is accepted only with the secret if there is one."""
    sessions = services_of(request).sessions
    response.headers["Referrer-Policy"] = "no-referrer"
    response.set_cookie(
        SESSION_COOKIE,
        sessions.begin(user, services_of(request).clock.now(), secret),
        max_age=int(sessions.lifetime.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=_is_secure(request),
    )
    return response


def _is_secure(request: Request) -> bool:
    """Return whether the browser uses TLS, to the engine or to a trusted proxy."""
    public_url = services_of(request).settings.public_url
    return request.url.scheme == "https" or (public_url or "").startswith("https://")

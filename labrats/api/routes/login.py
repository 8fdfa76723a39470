"""Sign-in to the dashboard, sign-out, and the current user."""

from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import Header, Query, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from labrats import __version__
from labrats.api.auth.authentication import SESSION_COOKIE, SESSION_SECRET, unauthorized
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
_USED_LINK: Final = "/login?link=used"
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
    bound: bool = Field(description="True if the session is accepted only with `Labrats-Session-Secret`.")
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
    responses=answers(303, None, "Signed in; redirect to the dashboard", 401, 404, 503),
    summary="Return from the OpenID provider",
)
async def finish_login(
    request: Request,
    state: Annotated[str, Query(description="The value that was sent to the provider.")] = "",
    code: Annotated[str | None, Query(description="The code to exchange for the user's ID token.")] = None,
    iss: Annotated[str | None, Query(description="The issuer that responds.")] = None,
    error: Annotated[str | None, Query(description="The provider's error code, if sign-in failed.")] = None,
) -> Response:
    """Exchange the code for a session. Only the response to this browser's login is accepted."""
    parameters = {"state": state, "code": code, "iss": iss, "error": error}
    present = {name: value for name, value in parameters.items() if value is not None}
    user, page = await _provider(request).finish(cookie_of(request, LOGIN_COOKIE) or "", present)
    response = _signed_in(request, user, page)
    response.delete_cookie(LOGIN_COOKIE, path=CALLBACK, httponly=True, samesite="lax", secure=_is_secure(request))
    return response


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
            "bound": session is not None and services.sessions.is_bound(session),
            "signIn": {"oidc": provider and provider.issuer, "link": provider is None},
            "changes": services.change_feed.current_id() if session else None,
            "backend": services.settings.backend,
            "version": __version__,
        }
    )


@router.post(
    "/api/auth/bind",
    status_code=204,
    responses=answers(204, None, "The session is bound", 401, 403, 422, 503),
    summary="Bind the session to a secret",
)
async def bind(
    request: Request,
    secret: Annotated[
        str,
        Header(
            alias=SESSION_SECRET,
            min_length=32,
            max_length=128,
            pattern=RANDOM_TEXT,
            description="A random secret. Further requests of the session must have the same header.",
            examples=["9b1c2d3e4f5a6b7c9b1c2d3e4f5a6b7c"],
        ),
    ],
) -> Response:
    """Accept the session only in requests with the secret from now on.

    A browser sends cookies to every port of a host. With a secret that stays with the pages of one port, the cookie is
    worthless to the others.
    """
    services = services_of(request)
    if (session := services.authenticator.session(request)) is None:
        raise unauthorized()
    services.authenticator.check_origin(request)
    if not await services.sessions.bind(session, secret, services.store, services.clock.now()):
        raise unauthorized()
    return Response(status_code=204)


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
    "/api/auth/link",
    status_code=303,
    response_class=RedirectResponse,
    responses=answers(303, None, "Signed in; redirect to the dashboard", 401, 422, 503),
    summary="Sign in by a one-time link",
)
async def open_link(
    request: Request,
    token: Annotated[str, Query(max_length=200, description="The link's token.")],
    next_page: NextPage = DASHBOARD,
) -> Response:
    """Exchange the token of a one-time link for a session. `labrats serve` and `labrats login-link` print links.

    A browser with a link that is not valid is redirected to the sign-in page.
    """
    services = services_of(request)
    if not await redeem(services.store, token, services.clock.now()):
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(_USED_LINK, 303, {"Referrer-Policy": "no-referrer"})
        message = "this login link was used before, or has expired; `labrats login-link` prints a new one"
        raise ApiError(401, "link_not_valid", message)
    return _signed_in(request, LOCAL_USER, next_page)


def _provider(request: Request) -> OpenIdProvider:
    """Return the OpenID provider. Raises NotFound if none is configured."""
    if (provider := services_of(request).openid_provider) is None:
        raise NotFound("no OpenID provider is configured (OIDC_ISSUER); `labrats login-link` prints a link to sign in")
    return provider


def _origin(request: Request) -> str:
    """Return the engine's address as the browser knows it."""
    return services_of(request).settings.public_url or f"{request.url.scheme}://{request.url.netloc}"


def _signed_in(request: Request, user: User, page: str) -> Response:
    """Return a redirect to a page of the dashboard, with a new session of `user`."""
    sessions = services_of(request).sessions
    response = RedirectResponse(page, 303, {"Referrer-Policy": "no-referrer"})
    response.set_cookie(
        SESSION_COOKIE,
        sessions.begin(user, services_of(request).clock.now()),
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

"""Signing in to the dashboard and out of it, and who is signed in."""

from typing import Annotated, Final

from fastapi import Query, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from labrats import __version__
from labrats.api.auth.authentication import SESSION_COOKIE
from labrats.api.auth.login_links import redeem
from labrats.api.auth.oidc import LOGIN_LIFETIME, OpenIdProvider
from labrats.api.auth.sessions import User
from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import json_response
from labrats.api.openapi import answers
from labrats.api.routing import api_router, services_of
from labrats.api.schemas.base import ResponseBody
from labrats.model.errors import NotFound

router = api_router("Auth")

DASHBOARD: Final = "/"
CALLBACK: Final = "/api/auth/oidc/callback"
LOGIN_COOKIE: Final = "oidc_login"
OWNER: Final = User("user-local", "local")
"""Who comes by a login link: whoever owns the data folder."""


class UserView(ResponseBody):
    """Somebody who is signed in."""

    id: str = Field(description="The owner of the jobs they submit.", examples=["user-9b1c2d3e4f5a6b7c"])
    name: str = Field(examples=["Ada"])
    email: str | None = Field(examples=["ada@example.com"])


class Me(ResponseBody):
    """Who is signed in, and to which version of the engine."""

    user: UserView | None
    version: str = Field(examples=["0.1.0"])


@router.get(
    "/api/auth/oidc",
    status_code=303,
    response_class=RedirectResponse,
    responses=answers(303, None, "Go on to the OpenID provider", 404, 503),
    summary="Sign in by OpenID Connect",
)
async def begin_login(request: Request) -> Response:
    """Send the browser to the OpenID provider, and have it keep what ties the answer to it."""
    url, kept = await _provider(request).begin(f"{_origin(request)}{CALLBACK}")
    response = RedirectResponse(url, 303)
    response.set_cookie(
        LOGIN_COOKIE,
        kept,
        max_age=int(LOGIN_LIFETIME.total_seconds()),
        path=CALLBACK,
        httponly=True,
        samesite="lax",  # it comes back from another site
        secure=is_secure(request),
    )
    return response


@router.get(
    CALLBACK,
    status_code=303,
    response_class=RedirectResponse,
    responses=answers(303, None, "Signed in; go on to the dashboard", 401, 404, 503),
    summary="Come back from the OpenID provider",
)
async def finish_login(
    request: Request,
    state: Annotated[str, Query(description="As it was sent to the provider.")] = "",
    code: Annotated[str | None, Query(description="To be exchanged for what it says of the user.")] = None,
    iss: Annotated[str | None, Query(description="The provider that answers.")] = None,
    error: Annotated[str | None, Query(description="Why it signed nobody in.")] = None,
) -> Response:
    """Exchange the code for a session. All but the one answer that this browser waits for is refused."""
    sent = {"state": state, "code": code, "iss": iss, "error": error}
    answer = {name: value for name, value in sent.items() if value is not None}
    user = await _provider(request).finish(request.cookies.get(LOGIN_COOKIE, ""), answer)
    response = signed_in(request, user)
    response.delete_cookie(LOGIN_COOKIE, path=CALLBACK, httponly=True, samesite="lax", secure=is_secure(request))
    return response


@router.get("/api/auth/me", responses=answers(200, Me, "Who is signed in, if anybody", 503), summary="Who is signed in")
async def me(request: Request) -> Response:
    """The user of the session whose cookie is sent, and the engine's version."""
    session = services_of(request).authenticator.session(request)
    user = session and {"id": session.user.id, "name": session.user.name, "email": session.user.email}
    return json_response({"user": user, "version": __version__})


@router.post(
    "/api/auth/logout", status_code=204, responses=answers(204, None, "Signed out", 403, 503), summary="Sign out"
)
async def logout(request: Request) -> Response:
    """End the session, wherever its cookie may have got to, and its open streams; clear the cookie."""
    services = services_of(request)
    if session := services.authenticator.session(request):
        services.authenticator.check_origin(request)
        await services.sessions.end(session, services.store, services.clock.now())
    response = Response(status_code=204)
    if SESSION_COOKIE in request.cookies:  # another site can send this without it, and must not have it cleared
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="lax", secure=is_secure(request))
    return response


@router.get(
    "/api/auth/link",
    status_code=303,
    response_class=RedirectResponse,
    responses=answers(303, None, "Signed in; go on to the dashboard", 401, 422, 503),
    summary="Sign in by a one-time link",
)
async def open_link(
    request: Request, token: Annotated[str, Query(max_length=200, description="The link's token.")]
) -> Response:
    """Exchange the token of a one-time link, which `labrats serve` and `labrats login-link` print, for a session."""
    services = services_of(request)
    if not await redeem(services.store, token, services.clock.now()):
        message = "this login link was used before, or has expired; `labrats login-link` prints a new one"
        raise ApiError(401, "link_not_valid", message)
    return signed_in(request, OWNER)


def _provider(request: Request) -> OpenIdProvider:
    """Raises 404 where there is none."""
    if (provider := services_of(request).openid_provider) is None:
        raise NotFound(
            "no OpenID provider is configured (OIDC_ISSUER); `labrats login-link` prints a link to sign in by"
        )
    return provider


def _origin(request: Request) -> str:
    """How the browser reaches us."""
    return services_of(request).settings.public_url or f"{request.url.scheme}://{request.url.netloc}"


def signed_in(request: Request, user: User) -> Response:
    """To the dashboard, with a new session of `user`."""
    sessions = services_of(request).sessions
    response = RedirectResponse(DASHBOARD, 303, {"Referrer-Policy": "no-referrer"})
    response.set_cookie(
        SESSION_COOKIE,
        sessions.begin(user, services_of(request).clock.now()),
        max_age=int(sessions.lifetime.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )
    return response


def is_secure(request: Request) -> bool:
    """Whether the browser speaks TLS: to us, or to a proxy that is trusted to say so."""
    public_url = services_of(request).settings.public_url
    return request.url.scheme == "https" or (public_url or "").startswith("https://")

"""Routes that check who is calling before anything of the body is read."""

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from labrats.api.engine import Engine
from labrats.api.errors import ApiError, error_responses
from labrats.api.json_body import StrictRequest, require_json
from labrats.api.keys import Caller


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def caller_of(request: Request) -> Caller:
    """Who is calling. Only on routes that authenticate."""
    caller: Caller = request.state.caller
    return caller


def authenticate(request: Request) -> Caller:
    """The caller named by the request's API key. Raises 401."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    engine = engine_of(request)
    if scheme.lower() == "bearer" and key and (caller := engine.keys.caller(key.strip(), engine.clock.now())):
        return caller
    message = "send a valid API key as `Authorization: Bearer KEY`"
    raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": 'Bearer realm="labrats"'})


class KeyRoute(APIRoute):
    """A route for any API key; what belongs to others is refused by the operation itself."""

    admin_only: ClassVar[bool] = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def authenticate_first(request: Request) -> Response:
            caller = authenticate(request)
            if self.admin_only and not caller.is_admin:
                raise ApiError(403, "forbidden", "this needs an API key with the scope `admin`")
            request.state.caller = caller
            if self.body_field is not None:
                require_json(request)
            return await answer(StrictRequest(request.scope, request.receive))

        return authenticate_first


class AdminRoute(KeyRoute):
    """A route for API keys with the scope `admin`."""

    admin_only = True


def key_router(tag: str) -> APIRouter:
    """Routes for any API key."""
    return APIRouter(route_class=KeyRoute, tags=[tag], responses=error_responses(401, 503))


def admin_router(tag: str) -> APIRouter:
    """Routes for admin keys."""
    return APIRouter(route_class=AdminRoute, tags=[tag], responses=error_responses(401, 403, 503))

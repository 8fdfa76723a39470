"""Routes that check who is calling before anything of the body is read."""

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from labrats.api.engine import Engine
from labrats.api.errors import ApiError
from labrats.api.json_body import StrictRequest, require_json
from labrats.api.keys import Caller
from labrats.api.openapi import ANY_KEY, NO_KEY, error_responses, operation_id


def engine_of(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def caller_of(request: Request) -> Caller:
    """Who is calling. Only on routes that authenticate."""
    caller: Caller = request.state.caller
    return caller


def bearer_key(request: Request) -> str:
    """The API key that came with the request; empty when none did."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def authenticate(request: Request) -> Caller:
    """The caller named by the request's API key. Raises 401."""
    engine = engine_of(request)
    if (key := bearer_key(request)) and (caller := engine.keys.caller(key, engine.clock.now())):
        return caller
    message = "send a valid API key as `Authorization: Bearer KEY`"
    raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": 'Bearer realm="labrats"'})


class OpenRoute(APIRoute):
    """A route that needs no key."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options | {"openapi_extra": NO_KEY})


class KeyRoute(APIRoute):
    """A route for any API key; what belongs to others is refused by the operation itself."""

    admin_only: ClassVar[bool] = False

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options | {"openapi_extra": ANY_KEY})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def authenticate_first(request: Request) -> Response:
            caller = authenticate(request)
            if self.admin_only and not caller.is_admin:
                raise ApiError(403, "forbidden", "this needs an API key with the scope `admin`")
            strict = StrictRequest(request.scope, request.receive)
            strict.state.caller = caller
            if self.body_field is not None:
                require_json(strict)
                await strict.json()  # FastAPI, which finds it read, would put its own error in the place of ours
            return await answer(strict)

        return authenticate_first


class AdminRoute(KeyRoute):
    """A route for API keys with the scope `admin`."""

    admin_only = True


def open_router(tag: str) -> APIRouter:
    """Routes that need no key."""
    return APIRouter(route_class=OpenRoute, tags=[tag], generate_unique_id_function=operation_id)


def key_router(tag: str) -> APIRouter:
    """Routes for any API key."""
    errors = error_responses(401, 503)
    return APIRouter(route_class=KeyRoute, tags=[tag], responses=errors, generate_unique_id_function=operation_id)


def admin_router(tag: str) -> APIRouter:
    """Routes for admin keys."""
    errors = error_responses(401, 403, 503)
    return APIRouter(route_class=AdminRoute, tags=[tag], responses=errors, generate_unique_id_function=operation_id)

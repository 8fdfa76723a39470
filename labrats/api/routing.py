"""Routes that authenticate the caller before they read the body, and the way of a request to its route."""

from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from labrats.api.auth.authentication import Credential
from labrats.api.auth.permissions import Access, access_to, is_open_to_viewers
from labrats.api.http.arguments import MISSING, Arguments
from labrats.api.http.body_bounds import bounds_of
from labrats.api.http.errors import ApiError, error_answer
from labrats.api.http.event_stream import EventStream
from labrats.api.http.json_body import StrictRequest, require_json
from labrats.api.openapi import SECURITY, error_responses, operation_id
from labrats.api.services import Services
from labrats.model.caller import Caller
from labrats.model.errors import Invalid, Problem


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def caller_of(request: Request) -> Caller:
    """Return the caller of a route that authenticates."""
    caller: Caller = request.state.caller
    return caller


def credential_of(request: Request) -> Credential:
    """Return the caller's credential. Only for routes that authenticate."""
    credential: Credential = request.state.credential
    return credential


class GuardedRoute(APIRoute):
    """A route that only the callers in labrats/api/auth/permissions.py may call."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        (self.method,) = options["methods"]
        self.access = access_to(self.method, path)
        self.is_open_to_viewers = is_open_to_viewers(self.method, path)
        documented = {
            "openapi_extra": {"security": SECURITY[self.access]} | (options.get("openapi_extra") or {}),
            "responses": error_responses(*_REFUSALS[self.access]) | (options.get("responses") or {}),
        }
        super().__init__(path, endpoint, **options | documented)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function for FastAPI, which this route gives to no other."""
        self._arguments = Arguments(self.dependant)
        self._query_names = self._arguments.query_names
        return self.respond

    async def respond(self, request: Request) -> Response:
        """Respond to a request that matches this route. Raises an error for which `error_answer` has a response."""
        if self.access in (Access.OPEN, Access.SIGNED):
            return await self._call(request, MISSING)
        services = services_of(request)
        caller, credential = services.authenticator.authenticate(request)
        if caller.is_viewer and not self.is_open_to_viewers:
            needed = "admin" if self.access is Access.ADMIN else "submit"
            message = "the scope `viewer` only reads, and neither payloads of deliveries nor facts about credentials"
            raise ApiError(403, "forbidden", f"{message}; this needs an API key with the scope `{needed}`")
        if self.access is Access.ADMIN and not (caller.is_admin or caller.is_viewer):
            raise ApiError(403, "forbidden", "this needs an API key with the scope `admin`")
        _refuse_unknown(request.query_params, self._query_names)
        request.state.caller, request.state.credential = caller, credential
        async with services.caller_bodies.room_for(self._body_size(request), caller.id):
            response = await self._call(request, await self._parsed_body(request))
        if isinstance(response, EventStream):
            response.access_ends = partial(credential.wait_until_invalid, services.clock)
        return response

    async def _call(self, request: Request, body: Any) -> Response:
        response: Response = await self.endpoint(**await self._arguments.read(request, body))
        return response

    def _body_size(self, request: Request) -> int:
        """Return the size of the request's JSON body in bytes, at most; 0 if the operation takes none."""
        if self.body_field is None:
            return 0
        declared = request.headers.get("content-length")
        if declared is None and "transfer-encoding" not in request.headers:
            return 0
        return int(declared) if declared and declared.isdecimal() else bounds_of(request.method, request.url.path).bytes

    async def _parsed_body(self, request: Request) -> Any:
        """Return the JSON of a request, or MISSING if the operation takes none or the request has no body."""
        if self.body_field is None or not (self.body_field.field_info.is_required() or await request.body()):
            return MISSING
        require_json(request)
        return await request.json()


def _refuse_unknown(names: Iterable[str], known: Collection[str]) -> None:
    """Raise Invalid for query parameters that the operation does not have, so that no typo is ignored."""
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        expected = f"expected: {', '.join(sorted(known))}" if known else "this operation has none"
        raise Invalid(*(Problem(name[:200], f"is not a query parameter; {expected}") for name in unknown[:50]))


class Dispatcher:
    """ASGI application that passes each request to its route, and any other one to FastAPI, which refuses it.

    Paths without parameters are looked up. FastAPI would try one route after the other, and pass each request through
    layers for dependencies and background tasks, which this API does not use.
    """

    def __init__(self, api: FastAPI) -> None:
        self._api = api
        routes = [route for route in api.routes if isinstance(route, GuardedRoute)]
        self._fixed = {(route.method, route.path): route for route in routes if not route.param_convertors}
        self._with_parameters = defaultdict[str, list[GuardedRoute]](list)
        for route in routes:
            if route.param_convertors:
                self._with_parameters[route.method].append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (found := self._find(scope["method"], scope["path"])) is None:
            await self._api(scope, receive, send)
            return
        route, parameters = found
        scope["app"], scope["route"], scope["path_params"] = self._api, route, parameters
        request, started = StrictRequest(scope, receive), False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            response = await route.respond(request)
            await response(scope, receive, send_and_note)
        except Exception as error:
            answer = error_answer(request, error)
            if started:
                raise  # the server closes the connection, so that the client sees an incomplete answer
            await answer(scope, receive, send)

    def _find(self, method: str, path: str) -> tuple[GuardedRoute, dict[str, str]] | None:
        """Return the route of a request, and its path parameters."""
        if route := self._fixed.get((method, path)):
            return route, {}
        for route in self._with_parameters.get(method, ()):
            if match := route.path_regex.match(path):
                return route, match.groupdict()
        return None


_REFUSALS: Final[Mapping[Access, tuple[int, ...]]] = {
    Access.OPEN: (),
    Access.SIGNED: (401, 503),
    Access.CALLER: (401, 403, 429, 503),
    Access.OWNER: (401, 403, 429, 503),
    Access.ADMIN: (401, 403, 429, 503),
}
"""The statuses of authentication errors, by access."""


def api_router(tag: str) -> APIRouter:
    """Return a router for one part of the API. labrats/api/auth/permissions.py has the permissions of its routes."""
    return APIRouter(route_class=GuardedRoute, tags=[tag], generate_unique_id_function=operation_id)

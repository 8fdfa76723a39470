"""Routes that authenticate the caller before they read the body."""

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from labrats.api.auth.authentication import Credential
from labrats.api.auth.permissions import Access, access_to
from labrats.api.http.errors import ApiError
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
        documented = {
            "openapi_extra": {"security": SECURITY[self.access]} | (options.get("openapi_extra") or {}),
            "responses": error_responses(*_REFUSALS[self.access]) | (options.get("responses") or {}),
        }
        super().__init__(path, endpoint, **options | documented)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.access in (Access.OPEN, Access.SIGNED):
            return handle
        known = _query_names(self.dependant)

        async def authenticate_first(request: Request) -> Response:
            services = services_of(request)
            caller, credential = services.authenticator.authenticate(request, self.access)
            if self.access is Access.ADMIN and not caller.is_admin:
                raise ApiError(403, "forbidden", "this needs an API key with the scope `admin`")
            _refuse_unknown(request.query_params, known)
            strict = StrictRequest(request.scope, request.receive)
            strict.state.caller, strict.state.credential = caller, credential
            if self.body_field is not None and (self.body_field.field_info.is_required() or await strict.body()):
                require_json(strict)
                await strict.json()  # parsed here, since FastAPI would replace the error by its own
            response = await handle(strict)
            if isinstance(response, EventStream):
                response.access_ends = partial(credential.wait_until_invalid, services.clock)
            return response

        return authenticate_first


def _query_names(dependant: Dependant) -> set[str]:
    """Return the names of the query parameters of an operation and of its dependencies."""
    own = {parameter.alias for parameter in dependant.query_params}
    return own.union(*map(_query_names, dependant.dependencies))


def _refuse_unknown(names: Iterable[str], known: Collection[str]) -> None:
    """Raise Invalid for query parameters that the operation does not have, so that no typo is ignored."""
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        expected = f"expected: {', '.join(sorted(known))}" if known else "this operation has none"
        raise Invalid(*(Problem(name[:200], f"is not a query parameter; {expected}") for name in unknown[:50]))


_REFUSALS: Final[Mapping[Access, tuple[int, ...]]] = {
    Access.OPEN: (),
    Access.SIGNED: (401, 503),
    Access.KEY: (401, 429, 503),
    Access.CALLER: (401, 403, 429, 503),
    Access.OWNER: (401, 403, 429, 503),
    Access.ADMIN: (401, 403, 429, 503),
}
"""The statuses of authentication errors, by access."""


def api_router(tag: str) -> APIRouter:
    """Return a router for one part of the API. labrats/api/auth/permissions.py has the permissions of its routes."""
    return APIRouter(route_class=GuardedRoute, tags=[tag], generate_unique_id_function=operation_id)

"""Routes that check who is calling before anything of the body is read."""

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from labrats.api.auth.authentication import Credential
from labrats.api.auth.keys import Caller
from labrats.api.auth.permissions import Access, access_to
from labrats.api.http.errors import ApiError
from labrats.api.http.event_stream import EventStream
from labrats.api.http.json_body import StrictRequest, require_json
from labrats.api.openapi import SECURITY, error_responses, operation_id
from labrats.api.services import Services
from labrats.model.errors import Invalid, Problem


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def caller_of(request: Request) -> Caller:
    """Who is calling. Only on routes that authenticate."""
    caller: Caller = request.state.caller
    return caller


def credential_of(request: Request) -> Credential:
    """What let the caller in. Only on routes that authenticate."""
    credential: Credential = request.state.credential
    return credential


class GuardedRoute(APIRoute):
    """A route for those whom labrats/api/auth/permissions.py lets call it."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        (self.method,) = options["methods"]
        self.access = access_to(self.method, path)
        documented = {
            "openapi_extra": {"security": SECURITY[self.access]} | (options.get("openapi_extra") or {}),
            "responses": error_responses(*_REFUSALS[self.access]) | (options.get("responses") or {}),
        }
        super().__init__(path, endpoint, **options | documented)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        if self.access in (Access.OPEN, Access.SIGNED):
            return answer
        known = {parameter.alias for parameter in self.dependant.query_params}

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
                await strict.json()  # FastAPI, which finds it read, would put its own error in the place of ours
            response = await answer(strict)
            if isinstance(response, EventStream):
                response.access_ends = partial(credential.wait_until_invalid, services.clock)
            return response

        return authenticate_first


def _refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raises Invalid for query parameters that the operation does not have: a typo is not silently lost."""
    unknown = [name for name in dict.fromkeys(given) if name not in known]
    if unknown:
        instead = f"there are: {', '.join(sorted(known))}" if known else "there are none here"
        raise Invalid(*(Problem(name[:200], f"is no query parameter; {instead}") for name in unknown[:50]))


_REFUSALS: Final[Mapping[Access, tuple[int, ...]]] = {
    Access.OPEN: (),
    Access.SIGNED: (401, 503),
    Access.KEY: (401, 429, 503),
    Access.CALLER: (401, 403, 429, 503),
    Access.OWNER: (401, 403, 429, 503),
    Access.ADMIN: (401, 403, 429, 503),
}
"""The errors that every operation may answer with, whatever it does."""


def api_router(tag: str) -> APIRouter:
    """Routes of one part of the API. Who may call each is said in labrats/api/auth/permissions.py."""
    return APIRouter(route_class=GuardedRoute, tags=[tag], generate_unique_id_function=operation_id)

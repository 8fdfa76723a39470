"""The arguments of endpoints, read from requests.

FastAPI declares, validates and documents the parameters. Its own reader inspects the type of every parameter again on
each request, which takes longer than most endpoints. This one inspects them once.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, get_origin

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

MISSING: Final = object()
"""The body of a request that has none."""

_MISSING_ERROR: Final = {"type": "missing", "msg": "Field required", "input": None}


class Arguments:
    """The arguments of one endpoint: parameters in the path, the query and the headers, a body, and dependencies."""

    def __init__(self, endpoint: Dependant) -> None:
        if endpoint.cookie_params or endpoint.response_param_name or endpoint.background_tasks_param_name:
            raise TypeError(f"{endpoint.path}: cookies, responses and background tasks cannot be parameters")
        self._request_name = endpoint.request_param_name
        self._path = [_Parameter.of("path", field) for field in endpoint.path_params]
        self._query = [_Parameter.of("query", field) for field in endpoint.query_params]
        self._headers = [_Parameter.of("header", field) for field in endpoint.header_params]
        self._body = [_Parameter.of("body", field) for field in endpoint.body_params]
        self._dependencies = [(str(each.name), each.call, Arguments(each)) for each in endpoint.dependencies]

    @property
    def query_names(self) -> set[str]:
        """The names of all parameters in the query, those of dependencies included."""
        return {each.alias for each in self._query}.union(*(each.query_names for _, _, each in self._dependencies))

    async def read(self, request: Request, body: Any = MISSING) -> dict[str, Any]:
        """Return the arguments by name. `body`: the parsed body. Raises RequestValidationError with all errors."""
        errors: list[Any] = []
        values = await self.collect(request, body, errors)
        if errors:
            raise RequestValidationError(errors)
        return values

    async def collect(self, request: Request, body: Any, errors: list[Any]) -> dict[str, Any]:
        """Return the arguments, and add their errors to `errors`."""
        values: dict[str, Any] = {} if self._request_name is None else {self._request_name: request}
        for name, call, arguments in self._dependencies:
            found = len(errors)
            its_values = await arguments.collect(request, body, errors)
            if call and len(errors) == found:
                values[name] = await call(**its_values)
        for parameter in self._path:
            parameter.read(request.path_params.get(parameter.alias, MISSING), values, errors)
        if self._query:
            query = request.query_params
            given = dict(query.multi_items())  # a lookup in a dict costs a fraction of one in Starlette's QueryParams
            for parameter in self._query:
                if parameter.is_list and parameter.alias in given:
                    parameter.read(query.getlist(parameter.alias), values, errors)
                else:
                    parameter.read(given.get(parameter.alias, MISSING), values, errors)
        for parameter in self._headers:
            parameter.read(request.headers.get(parameter.alias, MISSING), values, errors)
        for parameter in self._body:
            parameter.read(body, values, errors)
        return values


@dataclass(frozen=True)
class _Parameter:
    """A parameter. validate: returns the valid value, and errors."""

    name: str
    alias: str
    location: Sequence[str]
    validate: Callable[..., tuple[Any, list[Any]]]
    is_required: bool
    default: Any
    is_list: bool

    @classmethod
    def of(cls, place: str, field: Any) -> "_Parameter":
        """Inspect a field of a Dependant."""
        is_required = field.field_info.is_required()
        return cls(
            name=field.name,
            alias=field.alias,
            location=("body",) if place == "body" else (place, field.alias),
            validate=field.validate,
            is_required=is_required,
            default=None if is_required else field.field_info.get_default(),
            is_list=get_origin(field.field_info.annotation) is list,
        )

    def read(self, given: Any, values: dict[str, Any], errors: list[Any]) -> None:
        """Add the value to `values`, or its errors to `errors`."""
        if given is not MISSING:
            value, found = self.validate(given, loc=self.location)
            errors += found
            values[self.name] = value
        elif self.is_required:
            errors.append({**_MISSING_ERROR, "loc": self.location})
        else:
            values[self.name] = deepcopy(self.default) if self.is_list else self.default

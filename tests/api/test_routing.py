"""The way of a request to its route, and the arguments that the route reads from it."""

from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Query
from fastapi.dependencies.utils import get_dependant
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from labrats.api.http.arguments import Arguments
from labrats.api.routing import Dispatcher, api_router
from labrats.model.errors import NotFound


async def arguments_of(endpoint: Any, query: str = "", **headers: str) -> dict[str, Any]:
    """Read the arguments of an endpoint at `/things/{name}` from a request for /things/hat."""
    scope = {
        "type": "http", "method": "GET", "path": "/things/hat", "path_params": {"name": "hat"},
        "query_string": query.encode(), "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
    }  # fmt: skip
    return await Arguments(get_dependant(path="/things/{name}", call=endpoint)).read(Request(scope))


async def test_arguments_come_from_path_query_and_headers() -> None:
    async def endpoint(
        request: Request,
        name: str,
        size: int,
        tag: Annotated[list[str], Query()],
        colours: Annotated[list[str], Query()] = ["red"],  # noqa: B006
        limit: int = 20,
        agent: Annotated[str | None, Header(alias="User-Agent")] = None,
    ) -> None: ...

    values = await arguments_of(endpoint, "size=3&tag=a&tag=b", **{"user-agent": "curl"})
    assert values.pop("request").path_params == {"name": "hat"}
    assert values == {
        "name": "hat", "size": 3, "tag": ["a", "b"], "colours": ["red"], "limit": 20, "agent": "curl",
    }  # fmt: skip


async def test_default_list_is_not_shared_between_requests() -> None:
    async def endpoint(name: str, tags: Annotated[list[str], Query()] = []) -> None: ...  # noqa: B006

    (await arguments_of(endpoint))["tags"].append("changed")
    assert (await arguments_of(endpoint))["tags"] == []


async def test_all_errors_are_reported_together() -> None:
    async def filters(since: int, until: int = 0) -> int:
        return until - since

    async def endpoint(name: str, range_: Annotated[int, Depends(filters)], limit: int) -> None: ...

    with pytest.raises(RequestValidationError) as raised:
        await arguments_of(endpoint, "until=x")
    found = [(error["loc"], error["type"]) for error in raised.value.errors()]
    assert found == [
        (("query", "since"), "missing"), (("query", "until"), "int_parsing"), (("query", "limit"), "missing"),
    ]  # fmt: skip
    assert (await arguments_of(endpoint, "since=1&until=9&limit=1"))["range_"] == 8


async def test_unsupported_parameter_is_refused_at_start() -> None:
    async def endpoint(name: str, cookie: Annotated[str, Cookie()]) -> None: ...

    with pytest.raises(TypeError, match="cookies"):
        await arguments_of(endpoint)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_fixed_path_comes_before_one_with_parameters(admin: httpx2.AsyncClient, method: str) -> None:
    assert (await admin.request(method, "/api/jobs/facets")).status_code == 200
    assert (await admin.request(method, "/api/jobs/facet")).status_code == 404


async def test_wrong_method_and_unknown_path_are_refused(admin: httpx2.AsyncClient) -> None:
    refused = await admin.put("/api/jobs/ir-00000001")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
    assert (await admin.get("/api/jobs/")).json()["code"] == "not_found"


@pytest.mark.parametrize("frames_before", [0, 1])
async def test_error_becomes_a_response_unless_one_has_begun(frames_before: int) -> None:
    async def frames() -> AsyncIterator[bytes]:
        for _ in range(frames_before):
            yield b"a frame"
        raise NotFound("the file is gone")

    async def health() -> Response:
        if not frames_before:
            raise NotFound("the file is gone")
        return StreamingResponse(frames())

    router, sent = api_router("Test"), list[Any]()
    router.get("/health")(health)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    app = Dispatcher(FastAPI(openapi_url=None, routes=router.routes))
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET", "path": "/health", "headers": []}
    with pytest.raises(NotFound) if frames_before else nullcontext():
        await app(scope, receive, send)
    assert [message.get("status") for message in sent] == [200, None] if frames_before else [404, None]

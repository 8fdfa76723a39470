"""The web application: its routes, what stands before them, and its OpenAPI document."""

import time
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labrats import __version__
from labrats.api import ai_models, api_keys, health, jobs
from labrats.api.engine import Engine
from labrats.api.errors import ApiError, error_response, install_error_answers
from labrats.api.routing import KeyRoute
from labrats.api.submission import BODY_BYTES
from labrats.metrics import Metrics

_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]


def create_app(engine: Engine) -> FastAPI:
    """The API over `engine`."""
    app = FastAPI(
        title="Labrats",
        version=__version__,
        description="Turns requests and events into runs of AI agents.",
        openapi_url="/api/openapi.json",
        docs_url="/api/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.engine = engine
    for module in (health, jobs, ai_models, api_keys):
        app.include_router(module.router)
    install_error_answers(app)
    app.add_middleware(Gate, metrics=engine.metrics)
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]
    return app


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document, made once: FastAPI's, with the authentication of each route."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        document.setdefault("components", {})["securitySchemes"] = {
            "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key, `Authorization: Bearer KEY`."}
        }
        for route in app.routes:
            if isinstance(route, KeyRoute):
                for method in route.methods or ():
                    document["paths"][route.path_format][method.lower()]["security"] = [{"apiKey": []}]
        app.openapi_schema = document
    return app.openapi_schema


class Gate:
    """Before everything else: bounds the body, stamps headers, measures. Plain ASGI: it is on the path of every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def send_stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                present = {name for name, _ in headers}
                headers.extend(header for header in _SECURITY_HEADERS if header[0] not in present)
                self._observe(scope, message["status"], time.perf_counter() - began)
            await send(message)

        if _declared_length(scope) > BODY_BYTES:
            await _too_large()(scope, receive, send_stamped)
            return
        await self._app(scope, _bounded(receive), send_stamped)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.http_seconds.labels(scope["method"], route, str(status)).observe(seconds)


def _bounded(receive: Receive) -> Receive:
    """`receive`, which refuses to bring more than a body may have."""
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > BODY_BYTES:
            raise ApiError(413, "too_large", _TOO_LARGE)
        return message

    return receive_bounded


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large() -> ASGIApp:
    return error_response(413, "too_large", _TOO_LARGE, headers={"Connection": "close"})


_TOO_LARGE: Final = f"the body is larger than {BODY_BYTES // 2**20} MiB"

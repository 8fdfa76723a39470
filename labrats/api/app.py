"""The web application: the routes that this engine serves, and the checks before them."""

import time
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labrats import __version__
from labrats.api.auth.hosts import AllowedHosts
from labrats.api.http.body_bounds import bounds_of
from labrats.api.http.dashboard import Dashboard
from labrats.api.http.errors import ApiError, error_response, install_error_handlers
from labrats.api.http.head_requests import GET_HAS_EFFECT, without_body
from labrats.api.openapi import openapi_document
from labrats.api.routes import (
    agents,
    ai_models,
    api_keys,
    bulk,
    changes,
    config,
    deliveries,
    docs,
    events,
    github,
    health,
    instructions,
    job_attempts,
    job_events,
    job_report,
    job_texts,
    jobs,
    login,
    model_files,
    pause,
    pdfs,
    queue,
    secrets,
    stats,
    system,
    webhook_sources,
    webhooks,
    workspace_uploads,
)
from labrats.api.routing import Dispatcher
from labrats.api.services import Services
from labrats.metrics import Metrics

MODULES: Final = (
    health, docs, changes, bulk, jobs, job_events, job_texts, job_report, job_attempts, agents, instructions, events,
    config, pause, ai_models, queue, secrets, api_keys, login, pdfs, workspace_uploads, stats, system, webhooks,
    webhook_sources, deliveries, model_files, github,
)  # fmt: skip
RECEIVER_MODULES: Final = (health, webhooks)
"""The modules of a webhook receiver."""

CONTROLLER_MODULES: Final = (health,)
"""The modules of an engine that only drives jobs."""

_DEFAULT_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]

_CHECKED_HEADERS: Final = frozenset({b"host", b"content-encoding", b"content-length"})


def create_app(services: Services) -> ASGIApp:
    """Return the ASGI application that the server runs."""
    app: ASGIApp = Dispatcher(create_api(services))
    app = Dashboard(app, forge_url=services.forge_setup.web_url) if services.settings.answers_requests else app
    app = ApiMiddleware(app, services.metrics, AllowedHosts.of(services.settings))
    source, path = services.settings.webhook_source, services.settings.webhook_path
    return _with_alias(app, path, f"/webhooks/{source}") if source and path else app


def _with_alias(app: ASGIApp, alias: str, path: str) -> ASGIApp:
    """Return an application that handles requests to `alias` as requests to `path`."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_alias = scope["type"] == "http" and scope["path"] == alias
        await app({**scope, "path": path, "raw_path": path.encode()} if is_alias else scope, receive, send)

    return serve


def create_api(services: Services) -> FastAPI:
    """Return the API, with the modules for this engine's role."""
    settings = services.settings
    has_api = settings.answers_requests
    modules = MODULES if has_api else RECEIVER_MODULES if settings.receives_webhooks else CONTROLLER_MODULES
    api = FastAPI(
        title="Labrats",
        version=__version__,
        description="Turns requests and events into runs of AI agents.",
        openapi_url=None,  # FastAPI would write the document for each request
        docs_url=None,  # FastAPI's page loads scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        # A flat list instead of include_router(): every request walks it, and openapi_document() reads it.
        routes=[route for module in modules for route in module.router.routes],
    )
    api.state.services = services
    api.openapi = lambda: openapi_document(api)  # type: ignore[method-assign]
    install_error_handlers(api)
    return api


class ApiMiddleware:
    """Middleware that checks the Host, limits the body, answers HEAD as GET, adds headers and records metrics.

    Plain ASGI, since every request passes through it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: AllowedHosts) -> None:
        self._app, self._metrics, self._hosts = app, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, method = time.perf_counter(), scope["method"]
        if method == "HEAD" and scope["path"] not in GET_HAS_EFFECT:
            scope, send = {**scope, "method": "GET"}, without_body(send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"].extend(header for header in _DEFAULT_HEADERS if header[0] not in present)
                route = getattr(scope.get("route"), "path", "unknown")
                self._metrics.http_answered(method, route, message["status"], time.perf_counter() - started)
            await send(message)

        limit = bounds_of(method, scope["path"]).bytes
        if refusal := self._refusal(scope, limit):
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, _limited(receive, limit), send_with_headers)

    def _refusal(self, scope: Scope, limit: int) -> Response | None:
        """Return an error response if the request's headers already show that it is not acceptable."""
        for name, value in scope["headers"]:
            if name not in _CHECKED_HEADERS:
                continue
            text = value.decode("latin-1").strip().lower()
            if name == b"host" and not self._hosts.include(text):
                message = f"the host {text[:100]!r} is not allowed; LABRATS_ALLOWED_HOSTS adds names"
                return error_response(403, "foreign_host", message)
            if name == b"content-encoding" and text not in ("", "identity"):
                message = f"the body is encoded as {text[:100]!r}; send it without Content-Encoding"
                return error_response(415, "unsupported_media_type", message)
            if name == b"content-length" and text.isdecimal() and int(text) > limit:
                return error_response(413, "too_large", _too_large(limit))
        return None


def _limited(receive: Receive, limit: int) -> Receive:
    """Return a `receive` that raises ApiError 413 once the body exceeds `limit` bytes."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise ApiError(413, "too_large", _too_large(limit))
        return message

    return receive_limited


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit // 2**20} MiB"

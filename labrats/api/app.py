"""The web application: its routes, what stands before them, and its OpenAPI document."""

import time
from collections.abc import Iterator
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labrats import __version__
from labrats.api.auth.hosts import AllowedHosts
from labrats.api.http.body_bounds import bounds_of
from labrats.api.http.errors import ApiError, error_response, install_error_handlers
from labrats.api.http.head_requests import GET_HAS_EFFECT, without_body
from labrats.api.openapi import openapi_document
from labrats.api.routes import (
    agents,
    ai_models,
    api_keys,
    config,
    docs,
    events,
    health,
    instructions,
    job_events,
    jobs,
    login,
    model_files,
    pdfs,
    stats,
    webhook_sources,
    webhooks,
    workspace_uploads,
)
from labrats.api.services import Services
from labrats.metrics import Metrics

MODULES: Final = (
    health, docs, jobs, job_events, agents, instructions, events, config, ai_models, api_keys, login, pdfs,
    workspace_uploads, stats, webhooks, webhook_sources, model_files,
)  # fmt: skip
RECEIVER: Final = (health, webhooks)
"""What a webhook-receiver serves."""

PROBES: Final = (health,)
"""All that an engine serves which drives jobs, and leaves requests to others."""

_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]


def create_app(services: Services) -> ASGIApp:
    """What the server serves."""
    app: ASGIApp = create_api(services)
    source, path = services.settings.webhook_source, services.settings.webhook_path
    app = _also_at(path, f"/webhooks/{source}", app) if source and path else app
    return Gate(app, services.metrics, AllowedHosts.of(services.settings))


def _also_at(path: str, served: str, app: ASGIApp) -> ASGIApp:
    """`app`, which answers at `path` too as it does at `served`."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_meant = scope["type"] == "http" and scope["path"] == path
        await app({**scope, "path": served, "raw_path": served.encode()} if is_meant else scope, receive, send)

    return serve


def create_api(services: Services) -> FastAPI:
    """The API over `services`, as far as it is this engine's part."""
    settings = services.settings
    is_whole = settings.answers_requests
    modules = MODULES if is_whole else RECEIVER if settings.receives_webhooks else PROBES
    api = FastAPI(
        title="Labrats",
        version=__version__,
        description="Turns requests and events into runs of AI agents.",
        openapi_url="/api/openapi.json" if is_whole else None,
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        # Handed in flat, rather than included: every request walks this list, and openapi_document() reads it.
        routes=[route for module in modules for route in module.router.routes],
    )
    api.state.services = services
    api.openapi = lambda: openapi_document(api)  # type: ignore[method-assign]
    install_error_handlers(api)
    return api


class Gate:
    """Before everything else: judges the Host, bounds the body, answers HEAD as GET, stamps headers, measures.

    Plain ASGI, since it is on the path of every request.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: AllowedHosts) -> None:
        self._app, self._metrics, self._hosts = app, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, method = time.perf_counter(), scope["method"]
        if method == "HEAD" and scope["path"] not in GET_HAS_EFFECT:
            scope, send = {**scope, "method": "GET"}, without_body(send)

        async def send_stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"].extend(header for header in _HEADERS if header[0] not in present)
                route = getattr(scope.get("route"), "path", "unknown")
                self._metrics.http_answered(method, route, message["status"], time.perf_counter() - began)
            await send(message)

        limit = bounds_of(method, scope["path"]).bytes
        if foreign := [host for host in _headers(scope, b"host") if not self._hosts.include(host)]:
            message = f"{foreign[0][:100]!r} is no name of this engine; LABRATS_ALLOWED_HOSTS adds names"
            await error_response(403, "foreign_host", message)(scope, receive, send_stamped)
            return
        if (encoding := _header(scope, b"content-encoding")) not in (None, "", "identity"):
            message = f"the body is encoded as {encoding[:100]!r}; send it as it is, without Content-Encoding"
            await error_response(415, "unsupported_media_type", message)(scope, receive, send_stamped)
            return
        if _declared_length(scope) > limit:
            await error_response(413, "too_large", _too_large(limit))(scope, receive, send_stamped)
            return
        await self._app(scope, _bounded(receive, limit), send_stamped)


def _bounded(receive: Receive, limit: int) -> Receive:
    """`receive`, which refuses to bring more than `limit` bytes of a body."""
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise ApiError(413, "too_large", _too_large(limit))
        return message

    return receive_bounded


def _headers(scope: Scope, name: bytes) -> Iterator[str]:
    """Yield the values of the headers of that name, in lower case."""
    return (value.decode("latin-1").strip().lower() for each, value in scope["headers"] if each == name)


def _header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of that name, in lower case."""
    return next(_headers(scope, name), None)


def _declared_length(scope: Scope) -> int:
    length = _header(scope, b"content-length") or ""
    return int(length) if length.isdecimal() else 0


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit // 2**20} MiB"

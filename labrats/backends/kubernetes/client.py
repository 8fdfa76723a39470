"""The HTTP client of the API server. Each request has a timeout, and errors become LabratsError."""

import asyncio
import json
import re
import socket
import ssl
from asyncio import Semaphore
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import httpx2
import msgspec
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import NameValue, User, UserExec
from lightkube.core.exceptions import ConfigError

from labrats.backends.kubernetes.proxy import proxy_options
from labrats.model.errors import Conflict, Invalid, LabratsError, NotFound, Problem, RetryLater
from labrats.model.nesting import DEEPEST, cut_off_below
from labrats.model.record import Record
from labrats.net.retry_after import retry_after_seconds
from labrats.net.tls import accept_private_authorities

T = TypeVar("T")

REQUEST_SECONDS: Final = 15.0
"""Timeout of a request. The API server itself gives up a write that etcd does not accept within 10 s."""

MAX_CONCURRENT_REQUESTS: Final = 32
"""Limit of concurrent requests. More wait here instead of being rejected by the API server."""

PAGE_SIZE: Final = 500
"""Maximum number of objects in a page of a list."""

JSON: Final = "application/json"
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
"""Content types of request bodies: an object, two kinds of patch, and server-side apply."""

MAX_OBJECT_DEPTH: Final = 2 * DEEPEST
"""Maximum nesting of an object. The engine writes none that is deeper."""

_PLUGIN_API: Final = "client.authentication.k8s.io/v1"
"""API version of credential plugins, the programs that print tokens, in the kubeconfigs of cloud providers."""

_CLOSE_SECONDS: Final = 0.05
"""Time for the TLS connections of cancelled requests to close, which the HTTP library does not wait for."""

_UNREACHABLE: Final = (aiohttp.ClientError, TimeoutError, OSError, ConfigError)
_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})
_MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""Maximum length of a line, unless a caller sets a smaller one; a longer line is dropped. No object is that long."""

_MAX_DELAY_SECONDS: Final = 60.0
"""Longest pause that an API server may ask for."""

REFUSED_DELAY_SECONDS: Final = 15.0
"""Delay before a refused request is repeated, since a person has to fix the cause first."""

_GONE_AFTER: Final = {
    socket.TCP_KEEPIDLE: 4,
    socket.TCP_KEEPINTVL: 2,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 10_000,
}
"""A connection fails once its peer has acknowledged nothing for ten seconds."""

_POLICY_DENIAL: Final = "ValidatingAdmissionPolicy "
"""Part of the message when an admission policy denied a request. The status may be 422, as for invalid objects."""

_UNKNOWN_FIELD: Final = "strict decoding error"
"""Part of the message when a custom resource lacks a field, because its definition is of an earlier version."""

UPDATE_CUSTOM_RESOURCES: Final = (
    "the custom resources are older than this engine: "
    "labrats manifests crds | kubectl apply --server-side --force-conflicts -f -"
)

_TOO_LARGE: Final = ("etcdserver: request is too large", "trying to send message larger than max")
"""Parts of the messages with which the API server answers, with 500, to an object that is too large for etcd."""

_WEBHOOK_DENIAL: Final = "admission webhook"
"""Beginning of the message when an admission webhook denied a request. Its status code may be any, often 400."""


_OBJECT_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")


def object_path(collection: str, name: str) -> str:
    """Return the path of an object. Raises NotFound for a text that is no name: in a path it could mean another object.

    A name may come from a caller's URL, where `?watch=1` or `..` would change the request.
    """
    if not _OBJECT_NAME.fullmatch(name):
        raise NotFound(f"{name!r} is not a valid object name")
    return f"{collection}/{name}"


class Expired(RetryLater):
    """The API server no longer has the changes since that version (410): list again."""


class ApiServerRefusal(RetryLater):
    """The API server refused the request for a reason that an administrator can fix: permissions, a quota, a policy."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"the API server refuses ({code}): {message}", REFUSED_DELAY_SECONDS)


class _Cause(Record):
    field: str = ""
    message: str = ""


class _Details(Record):
    name: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[_Cause, ...] = ()
    retry_after_seconds: int = 0


class Status(Record):
    """The API server's answer to a request that failed, and to a deletion."""

    code: int = 0
    message: str = ""
    details: _Details = _Details()


class _PageMetadata(Record):
    resource_version: str
    continue_: str = msgspec.field(name="continue", default="")


class ListPage(Record):
    """One page of a list. All pages of a list have the same `metadata.resource_version`."""

    metadata: _PageMetadata
    items: tuple[msgspec.Raw, ...] = ()


class ApiClient:
    """A client of one API server. Paths begin with `/api` or `/apis`; bodies and answers are encoded JSON."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        proxy: dict[str, Any],
        credentials: "_Authorization",
        semaphore: Semaphore,
        manager: Callable[[], str] = str,
    ) -> None:
        self._http = http
        self._proxy = proxy
        self._credentials = credentials
        self._semaphore = semaphore
        self._manager = manager

    @classmethod
    @asynccontextmanager
    async def open(cls, kubeconfig: Path | None = None) -> "AsyncIterator[ApiClient]":
        """Open a client for the cluster of `kubeconfig`, or else of this pod or of $KUBECONFIG.

        Raises LabratsError if no cluster is configured, or its certificates are unusable.
        """
        config = _read_config(kubeconfig)
        # The semaphore limits ordinary requests. Watches and log streams hold one connection each.
        connector = aiohttp.TCPConnector(limit=0, ssl=_tls(config), socket_factory=_socket)
        try:
            async with aiohttp.ClientSession(
                config.cluster.server,
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},  # within a cluster, compressing costs more than sending
            ) as http:
                credentials = _Authorization(user_auth(_with_supported_plugin(config.user)))
                yield cls(http, proxy_options(config.cluster.server), credentials, Semaphore(MAX_CONCURRENT_REQUESTS))
        finally:
            await asyncio.sleep(_CLOSE_SECONDS)

    def writing_as(self, manager: Callable[[], str]) -> "ApiClient":
        """Return a copy of this client that sends `manager()` as the field manager of every write."""
        return ApiClient(self._http, self._proxy, self._credentials, self._semaphore, manager)

    def apart(self) -> "ApiClient":
        """Return a copy of this client whose requests never wait for those of this one."""
        return ApiClient(self._http, self._proxy, self._credentials, Semaphore(MAX_CONCURRENT_REQUESTS), self._manager)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> bytes:
        """Send one request and return the body of the answer. Raises NotFound, Conflict, Invalid or RetryLater.

        A write may have been carried out despite RetryLater. A PUT or DELETE may even have been sent twice, since
        aiohttp repeats it if a pooled connection was dropped. Every PUT names the version that it replaces, so the
        second one raises Conflict; a second DELETE raises NotFound.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        if method in _WRITES and (manager := self._manager()):
            query = {"fieldManager": manager, **(query or {})}
        options = {"params": query, "data": body, "headers": {"Content-Type": content_type}, "timeout": timeout}
        async with self._semaphore:
            try:
                async with self._send(method, path, options) as answer:
                    content = await answer.read()
            except _UNREACHABLE as error:
                raise RetryLater(f"the API server is out of reach: {error!r}") from error
        if answer.ok:
            return content
        raise error_of(answer.status, content, answer.headers.get("Retry-After"))

    async def pages(self, path: str, query: Mapping[str, str], version: str = "") -> AsyncGenerator[ListPage]:
        """Yield all objects at `path` that match the selectors in `query`: a consistent list, ordered by name.

        version: resource version at which the list is taken; empty for the latest.
        """
        moment = {"resourceVersion": version, "resourceVersionMatch": "Exact"} if version else {}
        page = await self._page(path, {**query, **moment})
        while more := page.metadata.continue_:
            following = asyncio.create_task(self._page(path, {**query, "continue": more}))  # prefetch
            try:
                yield page
                page = await following
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        yield page

    async def _page(self, path: str, query: Mapping[str, str]) -> ListPage:
        return decode_bounded(_PAGES, await self.request("GET", path, query={**query, "limit": str(PAGE_SIZE)}))

    async def lines(
        self, path: str, query: Mapping[str, str], *, silence_seconds: float | None = None
    ) -> AsyncGenerator[bytes]:
        """Yield the lines of `batches` one by one."""
        async with aclosing(self.batches(path, query, silence_seconds=silence_seconds)) as batches:
            async for batch in batches:
                for line in batch:
                    yield line

    async def batches(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        silence_seconds: float | None = None,
        most_line_bytes: int = _MAX_LINE_BYTES,
    ) -> AsyncGenerator[list[bytes]]:
        """Yield the lines of a streamed answer, a watch or a log, as they arrive, until the answer ends.

        A last line without a line feed was cut off and is dropped, and so is a line of more than `most_line_bytes`.
        Raises what `request` raises, and RetryLater if no data came for `silence_seconds`, since a broken connection
        may go unnoticed otherwise.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=REQUEST_SECONDS, sock_read=silence_seconds)
        try:
            async with self._send("GET", path, {"params": query, "timeout": timeout}) as answer:
                if not answer.ok:
                    raise error_of(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                splitter = LineSplitter(most_line_bytes)
                try:
                    async for chunk in answer.content.iter_any():
                        if lines := splitter.lines_of(chunk):
                            yield lines
                finally:
                    if (connection := answer.connection) and connection.transport:
                        connection.transport.abort()  # an orderly close could outlast the session
        except _UNREACHABLE as error:
            raise RetryLater(f"the connection to the API server broke: {error!r}", delay_seconds=0) from error

    @asynccontextmanager
    async def _send(self, method: str, path: str, options: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield the answer. After a 401, renew the short-lived token and send the request again."""
        headers = options.get("headers", {})
        options = options | self._proxy
        async with self._http.request(
            method, path, **options | {"headers": headers | await self._credentials.current()}
        ) as answer:
            if answer.status != 401 or not (renewed := await self._credentials.renewed()):
                yield answer
                return
        async with self._http.request(method, path, **options | {"headers": headers | renewed}) as answer:
            yield answer


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket that notices a peer that is gone: without it, a watch is silent for more than a minute.

    An API server that is started again elsewhere, or behind a new address, closes no connection of the old one.
    """
    family, kind, protocol, *_ = address
    created = socket.socket(family, kind, protocol)
    created.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _GONE_AFTER.items():
        created.setsockopt(socket.IPPROTO_TCP, option, value)
    return created


class LineSplitter:
    """Splits a stream into lines. A line of more than `most_bytes` is dropped, and none of it is stored any longer."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._unfinished, self._is_too_long = bytearray(), False

    def lines_of(self, chunk: bytes) -> list[bytes]:
        """Return the lines that end in the next chunk of the stream, without their line feeds."""
        end, *others = chunk.split(b"\n")
        self._add(end)
        if not others:
            return []
        lines = [] if self._is_too_long else [bytes(self._unfinished)]
        self._unfinished, self._is_too_long = bytearray(), False
        *whole, start = others
        self._add(start)
        return lines + [line for line in whole if len(line) <= self._most_bytes]

    def _add(self, piece: bytes) -> None:
        if self._is_too_long or len(self._unfinished) + len(piece) > self._most_bytes:
            self._unfinished, self._is_too_long = bytearray(), True
        else:
            self._unfinished += piece


_PAGES: Final = msgspec.json.Decoder(ListPage)


def decode_bounded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode `body`. Parts that are nested too deeply for the decoder are cut off.

    Otherwise one such object in a list would hide all others.
    """
    try:
        return decoder.decode(body)
    except RecursionError:
        return decoder.decode(cut_off_below(body, MAX_OBJECT_DEPTH + 10))


class _Authorization:
    """The Authorization header from lightkube: a token, the content of a token file, or the output of a plugin.

    lightkube adds the header to requests of httpx, so each call here passes one that is never sent.
    """

    def __init__(self, auth: httpx2.Auth | None) -> None:
        self._auth = auth

    async def current(self) -> dict[str, str]:
        """Return the header to send; empty if a client certificate authenticates the connection."""
        if self._auth is None:
            return {}
        async with aclosing(_flow(self._auth)) as flow:
            return _authorization(await _next(flow))

    async def renewed(self) -> dict[str, str]:
        """Return the header to send after the current one was refused; empty if there is no other."""
        if self._auth is None:
            return {}
        async with aclosing(_flow(self._auth)) as flow:
            await _next(flow)
            try:
                return _authorization(await _next(flow, httpx2.Response(401)))
            except StopAsyncIteration:
                return {}


def _flow(auth: httpx2.Auth) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
    return auth.async_auth_flow(httpx2.Request("GET", "https://never.sent"))


async def _next(
    flow: AsyncGenerator[httpx2.Request, httpx2.Response], answer: httpx2.Response | None = None
) -> httpx2.Request:
    """Return the next request of the flow. Raises RetryLater if the credential plugin printed no token."""
    try:
        return await (anext(flow) if answer is None else flow.asend(answer))
    except (KeyError, TypeError, ValueError) as error:
        raise RetryLater(
            "the credential plugin that the kubeconfig names printed no token", REFUSED_DELAY_SECONDS
        ) from error


def _with_supported_plugin(user: User | None) -> User | None:
    """Return `user` with a plugin version that lightkube supports: v1beta1 equals v1 in all that is used here."""
    if user is None or user.exec is None or user.exec.apiVersion != _PLUGIN_API:
        return user
    exec_info = {"apiVersion": _PLUGIN_API, "kind": "ExecCredential", "spec": {"interactive": False}}
    variable = NameValue(name="KUBERNETES_EXEC_INFO", value=json.dumps(exec_info))
    plugin = user.exec
    supported = UserExec(_PLUGIN_API + "beta1", plugin.command, [*(plugin.env or []), variable], plugin.args)
    return msgspec.structs.replace(user, exec=supported)


def _authorization(request: httpx2.Request) -> dict[str, str]:
    return {"Authorization": request.headers["Authorization"]}


def _read_config(kubeconfig: Path | None) -> SingleConfig:
    try:
        config = (KubeConfig.from_file(kubeconfig) if kubeconfig else KubeConfig.from_env()).get()
    except (ConfigError, OSError, KeyError) as error:
        raise LabratsError(f"no Kubernetes cluster is configured: {error}") from error
    assert config is not None, "lightkube returns None only where a default was given"
    return config


def _tls(config: SingleConfig) -> ssl.SSLContext:
    try:
        return accept_private_authorities(verify_cluster(config.cluster, config.user or User(), config.abs_file))
    except (ConfigError, OSError) as error:
        raise LabratsError(f"the certificates of the Kubernetes cluster cannot be used: {error}") from error


def error_of(code: int, body: bytes, retry_after: str | None = None) -> LabratsError:
    """Return the error for an answer that is not a success."""
    status = _read_status(body)
    details, message = status.details, status.message
    match code:
        case 413 | 422 if message.startswith(_WEBHOOK_DENIAL):
            return Invalid(Problem("object", message))
        case _ if message.startswith(_WEBHOOK_DENIAL):  # its author may have chosen any code
            return ApiServerRefusal(code, message)
        case 404 if details.name and details.kind != "namespaces":
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case 422 if _POLICY_DENIAL in message and not any(cause.field for cause in details.causes):
            return ApiServerRefusal(code, message)
        case 400 if _UNKNOWN_FIELD in message:
            return ApiServerRefusal(code, f"{message}; {UPDATE_CUSTOM_RESOURCES}")
        case 413 | 422:
            causes = details.causes or [_Cause(message=message)]
            return Invalid(*(Problem(cause.field or "object", cause.message) for cause in causes))
        case 400 if status.code == 400:  # the API server cannot decode the object: a number in it is too large
            return Invalid(Problem("object", message))
        case 500 if any(each in message for each in _TOO_LARGE):
            return Invalid(Problem("object", "is larger than etcd allows"))
        case 429 | 500 | 502 | 503 | 504:
            return RetryLater(f"the API server is busy: {message}", _delay_seconds(retry_after, details))
        case 401 | 403 | 404:  # permissions, the namespace or the custom resources are missing
            return ApiServerRefusal(code, message)
        case _:
            return LabratsError(f"the API server answered {code}: {message}")


def _read_status(body: bytes) -> Status:
    """Return the status in `body`. A proxy, or an API server that does not know the path, answers in plain text."""
    try:
        return msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Status(message=body[:200].decode(errors="replace").strip())


def _delay_seconds(retry_after: str | None, details: _Details) -> float:
    seconds = retry_after_seconds(retry_after, datetime.now(UTC))
    return min(max(details.retry_after_seconds if seconds is None else seconds, 1.0), _MAX_DELAY_SECONDS)

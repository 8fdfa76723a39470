"""Requests to the API server: each has a deadline, and what goes wrong is said in the engine's own errors."""

import asyncio
import json
import ssl
from asyncio import Semaphore
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
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

T = TypeVar("T")

REQUEST_SECONDS: Final = 15.0
"""The deadline of a request. The API server itself gives up a write after 10 s that etcd does not take."""

AT_ONCE: Final = 32
"""Requests under way. Further ones wait here, rather than be turned away by the API server."""

PAGE: Final = 500
"""How many objects a page of a list has, at most."""

JSON: Final = "application/json"
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
"""What a body is: an object, a patch of one, or what its writer wants of it (server-side apply)."""

DEEPEST_OBJECT: Final = 2 * DEEPEST
"""How deep a whole object may be nested. What lies deeper is not written by an engine."""

_PLUGIN_API: Final = "client.authentication.k8s.io/v1"
"""The version in which programs that make tokens are asked for them; clouds' kubeconfigs name such programs."""

_UNREACHABLE: Final = (aiohttp.ClientError, TimeoutError, OSError, ConfigError)
_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})
_LONGEST_LINE_BYTES: Final = 8 * 1024 * 1024
"""Of a longer line only the end is read: no object is so large, and what a program logs must not fill the memory."""

_LONGEST_DELAY_SECONDS: Final = 60.0

REFUSED_DELAY_SECONDS: Final = 15.0
"""How soon to ask again for what was refused: somebody has to mend something first."""

_DENIED: Final = "admission webhook"
"""How a refusal begins that is a policy's of the cluster. Its code is what the policy's program chose, often 400."""


class Expired(RetryLater):
    """The API server no longer knows the changes since that version (410): list afresh."""


class ApiServerRefusal(RetryLater):
    """The API server has not done it: whoever runs the cluster may mend why (a right, a quota, a policy)."""

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
    """What the API server says instead of an object."""

    code: int = 0
    message: str = ""
    details: _Details = _Details()


class _PageMetadata(Record):
    resource_version: str
    continue_: str = msgspec.field(name="continue", default="")


class ListPage(Record):
    """A part of a list. `metadata.resource_version` is that of the moment which the whole list shows."""

    metadata: _PageMetadata
    items: tuple[msgspec.Raw, ...] = ()


class ApiClient:
    """One API server. Paths begin with `/api` or `/apis`; bodies and answers are JSON as it goes over the wire."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        proxy: dict[str, Any],
        credentials: "_Authorization",
        turns: Semaphore,
        manager: Callable[[], str] = str,
    ) -> None:
        self._http = http
        self._proxy = proxy
        self._credentials = credentials
        self._turns = turns
        self._manager = manager

    @classmethod
    @asynccontextmanager
    async def open(cls, kubeconfig: Path | None = None) -> "AsyncIterator[ApiClient]":
        """The API server that `kubeconfig` names; otherwise the one of the pod that this runs in, or of $KUBECONFIG.

        Raises LabratsError when there is none, or it is described in a way that cannot be used.
        """
        config = _read_config(kubeconfig)
        # Watches and log streams hold a connection each; ordinary requests are bounded by AT_ONCE.
        connector = aiohttp.TCPConnector(limit=0, ssl=_tls(config))
        async with aiohttp.ClientSession(
            config.cluster.server,
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},  # next door, packing costs more than sending
        ) as http:
            credentials = _Authorization(user_auth(_with_known_plugin(config.user)))
            yield cls(http, proxy_options(config.cluster.server), credentials, Semaphore(AT_ONCE))

    def writing_as(self, manager: Callable[[], str]) -> "ApiClient":
        """The same API server, told with each write that whom `manager` names then is behind it."""
        return ApiClient(self._http, self._proxy, self._credentials, self._turns, manager)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> bytes:
        """The answer to one request. Raises NotFound, Conflict, Invalid, or RetryLater.

        After RetryLater a write may have been carried out all the same. A PUT or DELETE may even have been sent twice,
        as aiohttp does where a kept connection was dropped: every PUT names the version that it replaces, so the second
        is refused (Conflict), and a second DELETE finds nothing (NotFound).
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        if method in _WRITES and (manager := self._manager()):
            query = {"fieldManager": manager, **(query or {})}
        options = {"params": query, "data": body, "headers": {"Content-Type": content_type}, "timeout": timeout}
        async with self._turns:
            try:
                async with self._send(method, path, options) as answer:
                    content = await answer.read()
            except _UNREACHABLE as error:
                raise RetryLater(f"the API server is out of reach: {error!r}") from error
        if answer.ok:
            return content
        raise error_of(answer.status, content, answer.headers.get("Retry-After"))

    async def pages(self, path: str, query: Mapping[str, str], version: str = "") -> AsyncGenerator[ListPage]:
        """All objects at `path` that `query`, of selectors, lets through: as of one moment, ordered by name.

        version: the moment when that was written, rather than now.
        """
        moment = {"resourceVersion": version, "resourceVersionMatch": "Exact"} if version else {}
        page = await self._page(path, {**query, **moment})
        while more := page.metadata.continue_:
            following = asyncio.create_task(self._page(path, {**query, "continue": more}))  # while this one is read
            try:
                yield page
                page = await following
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
        yield page

    async def _page(self, path: str, query: Mapping[str, str]) -> ListPage:
        return decode_deep(_PAGES, await self.request("GET", path, query={**query, "limit": str(PAGE)}))

    async def lines(
        self, path: str, query: Mapping[str, str], *, silence_seconds: float | None = None
    ) -> AsyncGenerator[bytes]:
        """What `batches` brings, line by line."""
        async with aclosing(self.batches(path, query, silence_seconds=silence_seconds)) as batches:
            async for batch in batches:
                for line in batch:
                    yield line

    async def batches(
        self, path: str, query: Mapping[str, str], *, silence_seconds: float | None = None
    ) -> AsyncGenerator[list[bytes]]:
        """The lines of an answer that goes on, a watch or a log, as many at once as have come. Ends where it ends.

        A last line that has no end was cut off, and is left out. Raises as `request` does, and RetryLater when nothing
        was heard for `silence_seconds`: half of a connection may be gone without a word.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=REQUEST_SECONDS, sock_read=silence_seconds)
        try:
            async with self._send("GET", path, {"params": query, "timeout": timeout}) as answer:
                if not answer.ok:
                    raise error_of(answer.status, await answer.read(), answer.headers.get("Retry-After"))
                unfinished = b""
                try:
                    async for chunk in answer.content.iter_any():
                        *lines, unfinished = (unfinished[-_LONGEST_LINE_BYTES:] + chunk).split(b"\n")
                        if lines:
                            yield lines
                finally:
                    if (connection := answer.connection) and connection.transport:
                        connection.transport.abort()  # left in the middle; an orderly end would outlive the session
        except _UNREACHABLE as error:
            raise RetryLater(f"the API server broke off: {error!r}", delay_seconds=0) from error

    @asynccontextmanager
    async def _send(self, method: str, path: str, options: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The beginning of the answer. A credential that is refused is renewed once: tokens are short-lived."""
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


_PAGES: Final = msgspec.json.Decoder(ListPage)


def decode_deep(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """What `decoder` makes of `body`, though some of it be nested too deeply to be read: that is cut off.

    One object in a list must not hide all others.
    """
    try:
        return decoder.decode(body)
    except RecursionError:
        return decoder.decode(cut_off_below(body, DEEPEST_OBJECT + 10))


class _Authorization:
    """The Authorization header, as lightkube makes it: token, token file, or the output of another program.

    lightkube writes it into requests of another HTTP library, so it is given one that is never sent.
    """

    def __init__(self, auth: httpx2.Auth | None) -> None:
        self._auth = auth

    async def current(self) -> dict[str, str]:
        """The header to send; empty where the connection's certificate says who we are."""
        if self._auth is None:
            return {}
        async with aclosing(_flow(self._auth)) as flow:
            return _authorization(await _next(flow))

    async def renewed(self) -> dict[str, str]:
        """The header to send after the current one was refused; empty when there is no other."""
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
    """The next request of the flow. Raises RetryLater when the program that makes tokens made none."""
    try:
        return await (anext(flow) if answer is None else flow.asend(answer))
    except (KeyError, TypeError, ValueError) as error:
        raise RetryLater("the program that the kubeconfig names printed no token", REFUSED_DELAY_SECONDS) from error


def _with_known_plugin(user: User | None) -> User | None:
    """As lightkube takes it. It knows the older versions only of a protocol in which nothing of ours has changed."""
    if user is None or user.exec is None or user.exec.apiVersion != _PLUGIN_API:
        return user
    asked = {"apiVersion": _PLUGIN_API, "kind": "ExecCredential", "spec": {"interactive": False}}
    told = NameValue(name="KUBERNETES_EXEC_INFO", value=json.dumps(asked))
    plugin = user.exec
    known = UserExec(_PLUGIN_API + "beta1", plugin.command, [*(plugin.env or []), told], plugin.args)
    return msgspec.structs.replace(user, exec=known)


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
        return verify_cluster(config.cluster, config.user or User(), config.abs_file)
    except (ConfigError, OSError) as error:
        raise LabratsError(f"the certificates of the Kubernetes cluster cannot be used: {error}") from error


def error_of(code: int, body: bytes, retry_after: str | None = None) -> LabratsError:
    """The error that an answer other than success stands for."""
    status = _read_status(body)
    details, message = status.details, status.message
    match code:
        case 404 if details.name and details.kind != "namespaces":
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case 413 | 422:
            causes = details.causes or [_Cause(message=message)]  # a policy names no field
            return Invalid(*(Problem(cause.field or "object", cause.message) for cause in causes))
        case 429 | 500 | 502 | 503 | 504:
            return RetryLater(f"the API server is busy: {message}", _delay_seconds(retry_after, details))
        case 401 | 403 | 404:  # for whoever runs the cluster to mend: rights, the namespace, the custom resources
            return ApiServerRefusal(code, message)
        case 400 if message.startswith(_DENIED):
            return ApiServerRefusal(code, message)
        case _:
            return LabratsError(f"the API server answered {code}: {message}")


def _read_status(body: bytes) -> Status:
    """What was said. A proxy on the way, or an API server that does not know the path, answers in plain text."""
    try:
        return msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Status(message=body[:200].decode(errors="replace").strip())


def _delay_seconds(retry_after: str | None, details: _Details) -> float:
    asked = float(retry_after) if retry_after and retry_after.isdecimal() else details.retry_after_seconds
    return min(max(asked, 1.0), _LONGEST_DELAY_SECONDS)

"""A client for one repository on GitHub: it reads and writes comments, checks, reviews, labels and pull requests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

import httpx2
import msgspec

from labrats.github.client.app import LIMIT_SECONDS, UNREACHABLE_SECONDS, Token, retry_seconds
from labrats.github.client.pause import HostPause, LimitReached
from labrats.model.errors import LabratsError, RetryLater
from labrats.net.retry_after import http_date
from labrats.net.tls import system_tls
from labrats.ports import Clock

T = TypeVar("T")

ANSWER_SECONDS: Final = 20.0
_STORE_SECONDS: Final = 60.0
_PAGE: Final = 100
_MOST_PAGES: Final = 30
_MOST_CHUNK: Final = 64 * 1024
_MESSAGE_LENGTH: Final = 300
_RATE_LIMITED: Final = "RATE_LIMITED"
_WENT_WRONG: Final = "Something went wrong while executing your query"
"""The start of GitHub's message when a query took too long, or failed for a reason of its own."""

Permissions = Mapping[str, str]
"""The permissions of a token, as GitHub names them, such as `{"issues": "write"}`."""

GitHubClient = httpx2.AsyncClient
"""A client with the address of GitHub's API as its base."""

_NEW_SECONDS: Final = 60.0
"""Age of a token up to which parts of GitHub may not know it."""

_READ: Final[Permissions] = {"metadata": "read"}

FIRST_DOUBT_SECONDS: Final = 5.0
_DOUBTS: Final = (1, 4, 20, 95)
"""Delays after refusals that may not last, as multiples of the first one: five tries in ten minutes."""

_NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""Errors before a request is sent."""

_LEVELS: Final = {"read": 1, "write": 2, "admin": 3}
_LOCKED: Final = "is locked"
_TOO_QUICKLY: Final = "submitted too quickly"
_ABSENT: Final = ("No common ancestor", "Label does not exist", "Branch not found")
"""Words of a 404 about the object itself. A 404 about a token has no more words than "Not Found"."""


class RefusedByGitHub(LabratsError):
    """GitHub refuses a request, and would refuse it again. status: of its answer. kind: of an error of GraphQL."""

    def __init__(self, status: int, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class MayPass(RetryLater):
    """GitHub refuses a request, and may soon answer it."""

    def __init__(self, refusal: RefusedByGitHub, delay_seconds: float) -> None:
        super().__init__(str(refusal), delay_seconds)
        self.refusal = refusal


class AnswerLost(RetryLater):
    """The answer to a request is missing or useless, so GitHub may have acted on the request."""


class Tokens(Protocol):
    """The tokens for one repository."""

    async def get(self, permissions: Permissions) -> Token:
        """Return a token with at least these permissions. Raises RefusedByGitHub, RetryLater."""

    async def renew(self, permissions: Permissions) -> None:
        """Use another token for these permissions from now on."""


class Doubts:
    """Refusals that may not last, counted by request.

    GitHub answers 401, 403 or 404 where a part of it does not know a new token yet.
    """

    def __init__(self) -> None:
        self._tries: dict[str, int] = {}

    def error_of(self, request: str, refusal: RefusedByGitHub) -> RefusedByGitHub | RetryLater:
        """Return the error to raise for a refusal: RetryLater, or after the last try the refusal itself."""
        tries = self._tries.get(request, 0)
        if tries == len(_DOUBTS):
            return refusal
        self._tries[request] = tries + 1
        return MayPass(refusal, FIRST_DOUBT_SECONDS * _DOUBTS[tries])

    def settle(self, request: str) -> None:
        """Forget the refusals of a request that has succeeded."""
        self._tries.pop(request, None)


@asynccontextmanager
async def github_client(api_url: str) -> AsyncIterator[Callable[[], GitHubClient]]:
    """Yield a function that returns the client for the API at `api_url`, whose connections all repositories share.

    The first call creates the client, which takes some 60 ms of the processor.
    """

    @cache
    def client() -> GitHubClient:
        return httpx2.AsyncClient(base_url=api_url.rstrip("/"), timeout=ANSWER_SECONDS, verify=system_tls())

    try:
        yield client
    finally:
        if client.cache_info().currsize:
            await client().aclose()


class RepositoryObject(msgspec.Struct, frozen=True):
    """A repository as GitHub describes it. full_name: `owner/name` as of now. homepage: its website, if it has one."""

    full_name: str = ""
    id: int | None = None
    default_branch: str = ""
    clone_url: str = ""
    homepage: str | None = None


@dataclass(frozen=True)
class Changes:
    """The answer to a conditional request. items: the first page of a list; None if it has not changed.

    at: the time of the answer, by GitHub's clock. etag: for the next request; empty if GitHub sends none.
    remaining: requests that are left in this hour; None if GitHub does not say. wait_seconds: until the next request.
    """

    items: list[Mapping[str, Any]] | None
    at: datetime
    etag: str = ""
    remaining: int | None = None
    wait_seconds: float = 0


class Repository:
    """A repository, `owner/name`. Each request uses a token that may do no more than the request needs.

    A refusal that may not last is RetryLater for the first tries, each of which has a new token.
    """

    def __init__(
        self, client: GitHubClient, name: str, tokens: Tokens, clock: Clock, doubts: Doubts, pause: HostPause
    ) -> None:
        self.name, self._client, self._tokens, self._clock, self._doubts = name, client, tokens, clock, doubts
        self._pause = pause

    async def get(
        self, path: str, kind: type[T], permissions: Permissions, *, absent_is_final: bool = False, **query: str | int
    ) -> T:
        """Return the object at `path` of the repository. Raises RefusedByGitHub, RetryLater.

        absent_is_final: whether a 404 is RefusedByGitHub at once.
        """
        return _read(await self._send("GET", path, permissions, absent_is_final=absent_is_final, params=query), kind)

    async def read_changed(
        self, path: str, permissions: Permissions, etag: str | None, wrapped_in: str = "", **query: str | int
    ) -> Changes:
        """Return the first page of a list, unless the list is as it was. Raises as `get` does.

        An answer without changes costs nothing of the hourly limit. wrapped_in: the field of an object with the list.
        """
        headers = {"If-None-Match": etag} if etag else {}
        response = await self._send("GET", path, permissions, params=query, headers=headers)
        items: list[Mapping[str, Any]] | None = None
        if response.status_code != HTTPStatus.NOT_MODIFIED:
            kind: Any = dict[str, Any] if wrapped_in else list[dict[str, Any]]
            answer = _read(response, kind)
            items = answer.get(wrapped_in, []) if wrapped_in else answer
        shown = response.headers
        return Changes(
            items,
            http_date(shown.get("Date")) or self._clock.now(),
            shown.get("ETag", ""),
            int(left) if (left := shown.get("X-RateLimit-Remaining", "")).isdecimal() else None,
            float(seconds) if (seconds := shown.get("X-Poll-Interval", "")).isdecimal() else 0,
        )

    async def describe(self, *, absent_is_final: bool = False) -> RepositoryObject:
        """Return the repository, also if it has another name by now. Raises as `get` does."""
        response = await self._send("GET", "", _READ, redirects=True, absent_is_final=absent_is_final)
        if response.has_redirect_location:
            address, base = response.url.join(response.headers["Location"]), self._client.base_url
            if (address.scheme, address.host, address.port) != (base.scheme, base.host, base.port):
                raise RefusedByGitHub(response.status_code, "GitHub redirects to another server")
            response = await self._request("GET", str(address), _READ)
        return _read(response, RepositoryObject)

    async def describe_by_id(self, repository_id: int) -> RepositoryObject:
        """Return the repository with an id, for which the tokens are. Raises RefusedByGitHub, RetryLater."""
        return _read(await self._request("GET", f"/repositories/{repository_id}", _READ), RepositoryObject)

    async def pages(self, path: str, kind: type[T], permissions: Permissions, **query: str | int) -> AsyncIterator[T]:
        """Yield the pages of a list, as `kind`. Raises as `get` does."""
        for number in range(1, _MOST_PAGES + 1):
            response = await self._send("GET", path, permissions, params={**query, "per_page": _PAGE, "page": number})
            yield _read(response, kind)
            if "next" not in response.links:
                return

    async def post(self, path: str, body: Any, kind: type[T], permissions: Permissions, name: str = "") -> T:
        """Create an object. Raises as `get` does; after AnswerLost the object may exist.

        name: of the request, if the path does not tell it from others.
        """
        return _read(await self._send("POST", path, permissions, name=name, json=body), kind)

    async def add(self, path: str, body: Any, permissions: Permissions) -> None:
        """Create an object, or leave it as it is where GitHub has it already. Raises as `get` does."""
        await self._send("POST", path, permissions, json=body)

    async def patch(
        self, path: str, body: Any, kind: type[T], permissions: Permissions, *, absent_is_final: bool = False
    ) -> T:
        """Change an object. Raises as `get` does. absent_is_final: whether a 404 is RefusedByGitHub at once."""
        return _read(await self._send("PATCH", path, permissions, absent_is_final=absent_is_final, json=body), kind)

    async def delete(self, path: str, permissions: Permissions) -> None:
        """Delete an object. Raises as `get` does, and RefusedByGitHub at once if it is absent."""
        await self._send("DELETE", path, permissions, absent_is_final=True)

    async def query(self, document: str, variables: Mapping[str, Any], permissions: Permissions) -> Any:
        """Return the data of a GraphQL query or mutation. Raises as `get` does."""
        body = {"query": document, "variables": variables}
        address = graphql_address(self._client.base_url)
        answer = _read(await self._request("POST", address, permissions, name=document, json=body), _GraphQlAnswer)
        if not answer.errors:
            return answer.data
        error = answer.errors[0]
        message = error.message[:_MESSAGE_LENGTH]
        if error.type == _RATE_LIMITED:
            raise LimitReached(f"GitHub answered: {message}", delay_seconds=LIMIT_SECONDS)
        if message.startswith(_WENT_WRONG):
            raise RetryLater(f"GitHub answered: {message}", delay_seconds=30)
        raise RefusedByGitHub(200, f"GitHub refused the query: {message}", error.type)

    async def stored_text(self, path: str, permissions: Permissions, most_bytes: int) -> bytes:
        """Return the end of a text that GitHub keeps in a store, to which it redirects. Raises as `get` does."""
        response = await self._send("GET", path, permissions, redirects=True)
        end = bytearray()
        try:
            # The address is a secret of its own: the store must not get the token.
            address = response.headers.get("Location", "")
            async with asyncio.timeout(_STORE_SECONDS), self._client.stream("GET", address) as stored:
                if not stored.is_success:
                    raise RefusedByGitHub(stored.status_code, f"GitHub's store answers {stored.status_code}")
                async for chunk in stored.aiter_bytes():
                    end += chunk
                    if len(end) > 2 * most_bytes + _MOST_CHUNK:
                        del end[:-most_bytes]
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            problem = f"GitHub's store is unreachable: {type(error).__name__}"
            raise RetryLater(problem, delay_seconds=UNREACHABLE_SECONDS) from error
        return bytes(end[-most_bytes:])

    async def user(self, kind: type[T], permissions: Permissions) -> T:
        """Return the account of a personal token. Raises as `get` does."""
        return _read(await self._request("GET", "/user", permissions), kind)

    async def token(self, permissions: Permissions) -> str:
        """Return a token for git over HTTPS."""
        return (await self._tokens.get(permissions)).token

    async def has_new_token(self, permissions: Permissions) -> bool:
        """Return whether parts of GitHub may not know the token with these permissions yet."""
        created_at = (await self._tokens.get(permissions)).created_at
        return created_at is not None and (self._clock.now() - created_at).total_seconds() < _NEW_SECONDS

    async def doubt(self, request: str, permissions: Permissions, refusal: RefusedByGitHub) -> None:
        """Raise RetryLater for a refusal that may not last, and renew the token for the next try.

        Return after the last try, or if the token lacks a permission. request: under this name, tries are counted.
        """
        if refusal.status == 403 and _lacks((await self._tokens.get(permissions)).permissions, permissions):
            return
        error = self._doubts.error_of(request, refusal)
        if isinstance(error, RetryLater):
            await self._tokens.renew(permissions)
            raise error

    async def _send(self, method: str, path: str, permissions: Permissions, **options: Any) -> httpx2.Response:
        return await self._request(method, f"/repos/{self.name}{path}", permissions, **options)

    async def _request(
        self,
        method: str,
        path: str,
        permissions: Permissions,
        *,
        name: str = "",
        redirects: bool = False,
        absent_is_final: bool = False,
        headers: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> httpx2.Response:
        """Return the response. name: of the request, if method, path and query do not tell it from others."""
        self._pause.check()
        headers = {
            **headers,
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {await self.token(permissions)}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        name = name or f"{method} {path} {options.get('params') or ''}"
        try:
            response = await self._client.request(method, path, headers=headers, **options)
        except httpx2.HTTPError as error:
            problem, is_sent = f"GitHub is unreachable: {type(error).__name__}", not isinstance(error, _NOT_SENT)
            raise (AnswerLost if is_sent else RetryLater)(problem, delay_seconds=UNREACHABLE_SECONDS) from error
        is_unchanged = response.status_code == HTTPStatus.NOT_MODIFIED
        if response.is_success or is_unchanged or (redirects and response.has_redirect_location):
            self._doubts.settle(name)
            return response
        if is_temporary(response):
            delay = retry_seconds(response, self._clock.now())
            if "Retry-After" in response.headers:
                self._pause.begin(delay)
            if response.status_code < 500:
                raise LimitReached(f"GitHub answered {response.status_code}", delay_seconds=delay)
            raise AnswerLost(f"GitHub answered {response.status_code}", delay_seconds=delay)
        status, said = response.status_code, _said(response)
        refusal = RefusedByGitHub(status, f"GitHub refuses it with {status}: {said}")
        if may_pass(status, said) and not (status == 404 and absent_is_final):
            await self.doubt(name, permissions, refusal)
        raise refusal


def may_pass(status: int, said: str) -> bool:
    """Return whether a refusal may not last. said: GitHub's explanation."""
    match status:
        case 301 | 302 | 307 | 308 | 401:  # the repository was renamed since its name was read
            return True
        case 403:
            return _LOCKED not in said
        case 404:
            return not said.startswith(_ABSENT)
        case 422:
            return _TOO_QUICKLY in said
        case _:
            return False


def _lacks(granted: Permissions | None, needed: Permissions) -> bool:
    """Return whether a token is known to lack a permission."""
    if granted is None:
        return False
    return any(_LEVELS.get(granted.get(name, ""), 0) < _LEVELS[level] for name, level in needed.items())


def graphql_address(api: httpx2.URL) -> str:
    """Return the address of GraphQL beside a REST API. On GitHub Enterprise it is no part of `/api/v3`."""
    return str(api.copy_with(path=f"{api.path.rstrip('/').removesuffix('/v3')}/graphql"))


class _GraphQlError(msgspec.Struct):
    message: str = ""
    type: str | None = None


class _GraphQlAnswer(msgspec.Struct):
    data: Any = None
    errors: list[_GraphQlError] = []


class _ErrorBody(msgspec.Struct):
    message: str = ""
    errors: Any = None


def is_temporary(response: httpx2.Response) -> bool:
    """Return whether the same request may succeed later: GitHub is overloaded, or a rate limit is used up."""
    status, headers = response.status_code, response.headers
    if status == 429 or status >= 500:
        return True
    is_limited = "Retry-After" in headers or headers.get("X-RateLimit-Remaining") == "0"
    return status == 403 and (is_limited or "rate limit" in response.text.lower())


def _said(response: httpx2.Response) -> str:
    """Return GitHub's explanation of a refusal, as one line."""
    try:
        body = msgspec.json.decode(response.content, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "without an explanation"
    details = body.errors if isinstance(body.errors, list) else []
    texts = [each if isinstance(each, str) else each.get("message") for each in details if isinstance(each, str | dict)]
    text = "; ".join([body.message, *(each for each in texts if isinstance(each, str))])
    return " ".join(text.split())[:_MESSAGE_LENGTH]


def _read(response: httpx2.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AnswerLost("GitHub's response does not match its API", delay_seconds=30) from error

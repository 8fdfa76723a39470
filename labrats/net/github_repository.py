"""A client for one repository on GitHub: it reads and writes comments, checks, reviews, labels and pull requests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final, TypeVar

import httpx2
import msgspec

from labrats.model.errors import LabratsError, RetryLater
from labrats.net.github import LIMIT_SECONDS, UNREACHABLE_SECONDS, retry_seconds
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

TokenFor = Callable[[Permissions], Awaitable[str]]
"""Returns a token for the repository with at least these permissions. Raises RefusedByGitHub, RetryLater."""


class RefusedByGitHub(LabratsError):
    """GitHub refuses a request, and would refuse it again. status: of its answer. kind: of an error of GraphQL."""

    def __init__(self, status: int, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


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


class Repository:
    """A repository, `owner/name`. Each request uses a token that may do no more than the request needs."""

    def __init__(self, client: GitHubClient, name: str, token_for: TokenFor, clock: Clock) -> None:
        self.name, self._client, self._token_for, self._clock = name, client, token_for, clock

    async def get(self, path: str, kind: type[T], permissions: Permissions, **query: str | int) -> T:
        """Return the object at `path` of the repository. Raises RefusedByGitHub, RetryLater."""
        return _read(await self._send("GET", path, permissions, params=query), kind)

    async def pages(self, path: str, kind: type[T], permissions: Permissions, **query: str | int) -> AsyncIterator[T]:
        """Yield the pages of a list, as `kind`. Raises as `get` does."""
        for number in range(1, _MOST_PAGES + 1):
            response = await self._send("GET", path, permissions, params={**query, "per_page": _PAGE, "page": number})
            yield _read(response, kind)
            if "next" not in response.links:
                return

    async def post(self, path: str, body: Any, kind: type[T], permissions: Permissions) -> T:
        """Create an object. Raises as `get` does; after RetryLater the object may exist."""
        return _read(await self._send("POST", path, permissions, json=body), kind)

    async def add(self, path: str, body: Any, permissions: Permissions) -> None:
        """Create an object, or leave it as it is where GitHub has it already. Raises as `get` does."""
        await self._send("POST", path, permissions, json=body)

    async def patch(self, path: str, body: Any, kind: type[T], permissions: Permissions) -> T:
        """Change an object. Raises as `get` does."""
        return _read(await self._send("PATCH", path, permissions, json=body), kind)

    async def delete(self, path: str, permissions: Permissions) -> None:
        """Delete an object. Raises as `get` does."""
        await self._send("DELETE", path, permissions)

    async def query(self, document: str, variables: Mapping[str, Any], permissions: Permissions) -> Any:
        """Return the data of a GraphQL query or mutation. Raises as `get` does."""
        body = {"query": document, "variables": variables}
        address = graphql_address(self._client.base_url)
        answer = _read(await self._request("POST", address, permissions, json=body), _GraphQlAnswer)
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
        return await self._token_for(permissions)

    async def _send(self, method: str, path: str, permissions: Permissions, **options: Any) -> httpx2.Response:
        return await self._request(method, f"/repos/{self.name}{path}", permissions, **options)

    async def _request(
        self, method: str, path: str, permissions: Permissions, *, redirects: bool = False, **options: Any
    ) -> httpx2.Response:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {await self._token_for(permissions)}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        try:
            response = await self._client.request(method, path, headers=headers, **options)
        except httpx2.HTTPError as error:
            problem = f"GitHub is unreachable: {type(error).__name__}"
            raise RetryLater(problem, delay_seconds=UNREACHABLE_SECONDS) from error
        if response.is_success or (redirects and response.has_redirect_location):
            return response
        if is_temporary(response):
            delay = retry_seconds(response, self._clock.now())
            if response.status_code < 500:
                raise LimitReached(f"GitHub answered {response.status_code}", delay_seconds=delay)
            raise RetryLater(f"GitHub answered {response.status_code}", delay_seconds=delay)
        raise RefusedByGitHub(response.status_code, f"GitHub refuses it with {response.status_code}: {_said(response)}")


def graphql_address(api: httpx2.URL) -> str:
    """Return the address of GraphQL beside a REST API. On GitHub Enterprise it is no part of `/api/v3`."""
    return str(api.copy_with(path=f"{api.path.rstrip('/').removesuffix('/v3')}/graphql"))


class LimitReached(RetryLater):
    """A limit of GitHub is used up: it wants no request before the delay is over."""


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
        raise RetryLater("GitHub's response does not match its API", delay_seconds=30) from error

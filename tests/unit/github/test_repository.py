"""The client for a repository: the address of GraphQL, and its errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from labrats.github.client.app import Token
from labrats.github.client.pause import HostPause, LimitReached
from labrats.github.client.repository import Doubts, Permissions, RefusedByGitHub, Repository, graphql_address
from labrats.model.errors import RetryLater
from tests.fakes.clock import FakeClock


class OneToken:
    """The same token for all permissions."""

    async def get(self, permissions: Permissions) -> Token:
        return Token("test-token")

    async def renew(self, permissions: Permissions) -> None:
        """Keep the token."""


@asynccontextmanager
async def a_repository(answer: dict[str, object]) -> AsyncIterator[Repository]:
    """Yield a repository whose GraphQL API always gives an answer."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=answer))
    async with httpx2.AsyncClient(base_url="https://api.github.com", transport=transport) as client:
        yield Repository(client, "octo/demo", OneToken(), FakeClock(), Doubts(), HostPause(FakeClock()))


@pytest.mark.parametrize(
    ("api", "address"),
    [
        ("https://api.github.com", "https://api.github.com/graphql"),
        ("https://github.example.com/api/v3", "https://github.example.com/api/graphql"),
        ("https://github.example.com/api/v3/", "https://github.example.com/api/graphql"),
    ],
)
def test_graphql_has_its_own_address_on_github_enterprise(api: str, address: str) -> None:
    assert graphql_address(httpx2.URL(api)) == address


@pytest.mark.parametrize(
    "error",
    [
        {"type": "RATE_LIMITED", "message": "API rate limit exceeded"},
        {"message": "Something went wrong while executing your query. This may be the result of a timeout."},
    ],
)
async def test_an_error_that_passes_is_tried_again(error: dict[str, str]) -> None:
    async with a_repository({"data": None, "errors": [error]}) as repository:
        with pytest.raises(RetryLater, match="GitHub answered"):
            await repository.query("{ viewer { login } }", {}, {})


async def test_another_error_is_a_refusal_with_its_type() -> None:
    error = {"type": "STALE_DATA", "message": "Pull and try again."}
    async with a_repository({"data": None, "errors": [error]}) as repository:
        with pytest.raises(RefusedByGitHub, match="Pull and try again") as refused:
            await repository.query("{ viewer { login } }", {}, {})
    assert refused.value.kind == "STALE_DATA"


async def test_pause_that_github_asks_for_holds_for_all_repositories() -> None:
    clock = FakeClock()
    pause, requests = HostPause(clock), list[str]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request.url.path)
        return httpx2.Response(403, headers={"Retry-After": "60"}, json={"message": "secondary rate limit"})

    transport = httpx2.MockTransport(answer)
    async with httpx2.AsyncClient(base_url="https://api.github.com", transport=transport) as client:
        for name in ("octo/demo", "octo/other"):
            repository = Repository(client, name, OneToken(), clock, Doubts(), pause)
            with pytest.raises(LimitReached) as raised:
                await repository.describe()
            assert raised.value.delay_seconds == pytest.approx(60, abs=1)
    assert requests == ["/repos/octo/demo"]


async def test_limit_of_one_installation_holds_for_no_other() -> None:
    pause = HostPause(FakeClock())
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(403, headers=headers, json={}))
    async with httpx2.AsyncClient(base_url="https://api.github.com", transport=transport) as client:
        with pytest.raises(LimitReached):
            await Repository(client, "octo/demo", OneToken(), FakeClock(), Doubts(), pause).describe()
    pause.check()

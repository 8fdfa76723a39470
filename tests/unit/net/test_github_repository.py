"""The client for a repository: the address of GraphQL, and its errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from labrats.model.errors import RetryLater
from labrats.net.github import Token
from labrats.net.github_repository import Doubts, Permissions, RefusedByGitHub, Repository, graphql_address
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
        yield Repository(client, "octo/demo", OneToken(), FakeClock(), Doubts())


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

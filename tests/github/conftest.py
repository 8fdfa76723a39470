"""Fixtures for the tests of the stand-in for GitHub: clients with a token of its App."""

from collections.abc import Callable, Iterator
from typing import Final

import httpx2
import pytest
from joserfc import jwt

from tests.support.github import APP_ID, GitHubStandIn, Issue, a_github
from tests.support.github.access import APP_KEY, INSTALLATION

WRITES: Final = dict.fromkeys(("contents", "issues", "pull_requests", "checks", "statuses"), "write")

Client = Callable[..., httpx2.Client]


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with a_github() as github:
        yield github


@pytest.fixture(autouse=True)
def short_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a publisher soon try again what GitHub has refused."""
    monkeypatch.setattr("labrats.github.client.repository.FIRST_DOUBT_SECONDS", 0.01)


@pytest.fixture
def client(github: GitHubStandIn) -> Iterator[Client]:
    """Return a function that returns a client with a token: of the App with these permissions, or the given one."""
    opened: list[httpx2.Client] = []

    def connect(permissions: dict[str, str] = WRITES, *, token: str = "") -> httpx2.Client:
        proof = token or a_token(github, permissions)
        # The first query of GraphQL reads a schema of 1.5 MB, which takes seconds on a busy machine.
        opened.append(httpx2.Client(base_url=github.url, headers={"Authorization": f"Bearer {proof}"}, timeout=60))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def bot(client: Client) -> httpx2.Client:
    return client()


def an_app_jwt() -> str:
    return jwt.encode({"alg": "RS256"}, {"iss": APP_ID, "iat": 0, "exp": 2**40}, APP_KEY)


def a_token(github: GitHubStandIn, permissions: dict[str, str], repository: str = "demo") -> str:
    answer = httpx2.post(
        f"{github.url}/app/installations/{INSTALLATION}/access_tokens",
        headers={"Authorization": f"Bearer {an_app_jwt()}"},
        json={"repositories": [repository], "permissions": permissions},
    )
    return str(answer.json()["token"]) if answer.status_code == 201 else f"none: {answer.text}"


@pytest.fixture
def issue(github: GitHubStandIn) -> Issue:
    return github.demo.open_issue()


@pytest.fixture
def pull(github: GitHubStandIn) -> Issue:
    """A pull request that changes the lines 20 and 36 of 40, in two hunks, and adds a file."""
    lines = [f"line {number}\n" for number in range(1, 41)]
    github.demo.git.commit({"long.txt": "".join(lines)})
    lines[19] = lines[35] = "changed\n"
    github.demo.git.commit({"long.txt": "".join(lines), "new.txt": "one\ntwo\n"}, "fix")
    return github.demo.open_pull("fix")

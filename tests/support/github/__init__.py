"""A stand-in for GitHub on loopback: its REST and GraphQL API, as far as the engine uses it, and git over HTTP.

Each request is checked against GitHub's published descriptions of its API. A test whose engine sends a request that
GitHub does not document fails.

    with a_github() as github:
        issue = github.demo.open_issue("It crashes")
        ...                                    # an engine with LABRATS_GITHUB_API_URL=github.url comments on it
        assert [comment["body"] for comment in github.comments_of(issue)] == ["On it."]
"""

from tests.support.github.access import APP_ID, APP_KEY_PEM, APP_LOGIN
from tests.support.github.faults import Fault
from tests.support.github.server import GitHubStandIn, a_github
from tests.support.github.state import Issue, Pull, Repository

__all__ = [
    "APP_ID",
    "APP_KEY_PEM",
    "APP_LOGIN",
    "Fault",
    "GitHubStandIn",
    "Issue",
    "Pull",
    "Repository",
    "a_github",
]

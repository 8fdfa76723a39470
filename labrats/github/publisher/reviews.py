"""Write the review of a pull request, once, on the commit that the agent has seen."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from labrats.github.client.access import CONTENTS, PULL_REQUESTS, Access, Actor, Author, Authored, Identity
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.publisher.creations import Creations
from labrats.github.publisher.pull_request import PullRequest
from labrats.github.reports.reported_job import ReportedJob
from labrats.github.reports.review import (
    Lines,
    Review,
    fingerprint_of,
    fingerprints_in,
    lines_of,
    review_mark,
    review_of,
)
from labrats.model.report import ReviewReport

_NAME: Final = "review"
_RESOLVE: Final = (
    "mutation($thread: ID!) { resolveReviewThread(input: {threadId: $thread}) { thread { id isResolved } } }"
)
_RESOLVING: Final = {**PULL_REQUESTS, **CONTENTS}
"""GitHub lets only those resolve a thread who may write the contents of the repository."""

_THREADS: Final = """
query($owner: String!, $name: String!, $number: Int!, $after: String) {
  repository(owner: $owner, name: $name) { pullRequest(number: $number) {
    reviewThreads(first: 100, after: $after) {
      pageInfo { hasNextPage endCursor }
      nodes { id isResolved resolvedBy { login } comments(first: 1) { nodes { body author { __typename login } } } }
    } } } }
"""


class _File(msgspec.Struct):
    filename: str
    patch: str | None = None


class _ReviewObject(Authored, frozen=True, kw_only=True):
    id: int
    html_url: str
    body: str | None = None


class _LineComment(Authored, frozen=True, kw_only=True):
    body: str = ""


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    has_next_page: bool
    end_cursor: str | None = None


class _ThreadComment(msgspec.Struct, frozen=True):
    body: str
    author: Actor | None = None


class _ThreadComments(msgspec.Struct, frozen=True):
    nodes: list[_ThreadComment]


class _Thread(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    is_resolved: bool
    comments: _ThreadComments
    resolved_by: Author | None = None

    def is_resolved_by(self, identity: Identity) -> bool:
        """Return whether an account has resolved the thread. GitHub names no App there: only people are users."""
        return self.is_resolved and (self.resolved_by is None or identity.is_named(self.resolved_by.login))


class _Threads(msgspec.Struct, frozen=True, rename="camel"):
    page_info: _Page
    nodes: list[_Thread]


@dataclass(frozen=True)
class Earlier:
    """Our earlier reviews of a pull request, and their threads by the fingerprint of the agent's finding."""

    reviews: Sequence[_ReviewObject]
    threads: Sequence[tuple[str, _Thread]]
    known: frozenset[str]
    """Fingerprints of findings that are not reported again. A finding whose thread the engine has resolved is."""


async def read_lines(access: Access, pull_request: PullRequest) -> Lines:
    """Return the lines of the pull request's diff. Raises RefusedByGitHub, RetryLater."""
    patches: dict[str, str] = {}
    async for files in access.repository.pages(f"/pulls/{pull_request.number}/files", list[_File], PULL_REQUESTS):
        patches |= {file.filename: file.patch for file in files if file.patch}
    return lines_of(patches)


async def read_earlier(access: Access, pull_request: PullRequest, agent: str) -> Earlier:
    """Return our earlier reviews with the agent's findings. Raises RefusedByGitHub, RetryLater."""
    path = f"/pulls/{pull_request.number}/reviews"
    reviews: list[_ReviewObject] = []
    async for page in access.repository.pages(path, list[_ReviewObject], PULL_REQUESTS):
        reviews += [each for each in page if access.identity.wrote(each)]
    known = {found for each in reviews for found in fingerprints_in(each.body or "", agent)}
    threads: list[tuple[str, _Thread]] = []
    try:
        threads += [
            (fingerprint, thread)
            async for thread in _threads(access, pull_request)
            for first in thread.comments.nodes
            if access.identity.is_actor(first.author)
            for fingerprint in fingerprints_in(first.body, agent)
        ]
        known |= {found for found, thread in threads if not thread.is_resolved_by(access.identity)}
    except RefusedByGitHub:  # without its threads nothing is resolved, but no finding is lost or repeated
        known |= await _known_by_comments(access, pull_request, agent)
    return Earlier(reviews, threads, frozenset(known))


async def _known_by_comments(access: Access, pull_request: PullRequest, agent: str) -> set[str]:
    """Return the fingerprints of the agent's findings in our comments on lines. Raises RefusedByGitHub, RetryLater."""
    path, known = f"/pulls/{pull_request.number}/comments", set[str]()
    async for page in access.repository.pages(path, list[_LineComment], PULL_REQUESTS):
        known |= {found for each in page if access.identity.wrote(each) for found in fingerprints_in(each.body, agent)}
    return known


async def _threads(access: Access, pull_request: PullRequest) -> AsyncIterator[_Thread]:
    owner, _, name = access.repository.name.partition("/")
    variables: dict[str, Any] = {"owner": owner, "name": name, "number": pull_request.number, "after": None}
    while True:
        data = await access.repository.query(_THREADS, variables, PULL_REQUESTS)
        try:
            page = msgspec.convert(data["repository"]["pullRequest"]["reviewThreads"], _Threads)
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise RefusedByGitHub(200, "GitHub does not show the threads of the pull request") from error
        for thread in page.nodes:
            yield thread
        if not page.page_info.has_next_page:
            return
        variables["after"] = page.page_info.end_cursor


async def write_review(
    access: Access,
    creations: Creations,
    pull_request: PullRequest,
    reported: ReportedJob,
    rules: ReviewReport,
    lines: Lines,
    earlier: Earlier,
) -> str | None:
    """Write the review of the job unless it exists, and return its URL; None if it has nothing to say.

    Raises RefusedByGitHub, RetryLater.
    """
    mark = review_mark(reported.job.id)
    if found := next((each for each in earlier.reviews if mark in (each.body or "")), None):
        return found.html_url
    if (review_id := creations.id_of(_NAME)) is not None:
        path = f"/pulls/{pull_request.number}/reviews/{review_id}"
        return (await access.repository.get(path, _ReviewObject, PULL_REQUESTS)).html_url
    if (review := review_of(reported, rules, lines, earlier.known)) is None:
        return None
    created = await creations.create(_NAME, lambda: _create(access, pull_request, review), lambda each: each.id)
    return created.html_url


async def _create(access: Access, pull_request: PullRequest, review: Review) -> _ReviewObject:
    path = f"/pulls/{pull_request.number}/reviews"
    body: dict[str, Any] = {"commit_id": pull_request.head.sha, "event": review.event, "body": review.body}
    try:
        return await access.repository.post(
            path, body | {"comments": list(review.comments)}, _ReviewObject, PULL_REQUESTS
        )
    except RefusedByGitHub as error:
        if error.status != 422 or not review.comments:
            raise
        # GitHub refuses a whole review for one line that it sees differently: no finding is lost.
        return await access.repository.post(
            path, body | {"body": review.as_text()[:65_000]}, _ReviewObject, PULL_REQUESTS
        )


async def resolve_outdated_threads(access: Access, reported: ReportedJob, lines: Lines, earlier: Earlier) -> None:
    """Resolve the threads of the agent's earlier findings that no longer apply. Raises RefusedByGitHub, RetryLater.

    An agent without a valid `publish.json` has said nothing about them.
    """
    if reported.written is None:
        return
    current = {fingerprint_of(finding, lines) for finding in reported.written.findings}
    for fingerprint, thread in earlier.threads:
        if not thread.is_resolved and fingerprint not in current:
            await access.repository.query(_RESOLVE, {"thread": thread.id}, _RESOLVING)

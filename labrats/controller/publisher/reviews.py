"""Write the review of a pull request, once, on the commit that the agent has seen."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from labrats.controller.publisher.access import CONTENTS, PULL_REQUESTS, Access, Authored
from labrats.controller.publisher.pull_request import PullRequest
from labrats.model.report import ReviewReport
from labrats.net.github_repository import RefusedByGitHub
from labrats.reports.reported_job import ReportedJob
from labrats.reports.review import Lines, Review, fingerprint_of, fingerprints_in, lines_of, review_mark, review_of

_RESOLVE: Final = (
    "mutation($thread: ID!) { resolveReviewThread(input: {threadId: $thread}) { thread { id isResolved } } }"
)
_RESOLVING: Final = {**PULL_REQUESTS, **CONTENTS}
"""GitHub lets only those resolve a thread who may write the contents of the repository."""

_THREADS: Final = """
query($owner: String!, $name: String!, $number: Int!) {
  repository(owner: $owner, name: $name) { pullRequest(number: $number) {
    reviewThreads(first: 100) { nodes { id isResolved comments(first: 1) { nodes { body author { login } } } } } } } }
"""


class _File(msgspec.Struct):
    filename: str
    patch: str | None = None


class _ReviewObject(Authored, frozen=True, kw_only=True):
    html_url: str
    body: str | None = None


class _ReviewComment(Authored, frozen=True, kw_only=True):
    body: str = ""


async def read_lines(access: Access, pull_request: PullRequest) -> Lines:
    """Return the lines of the pull request's diff. Raises RefusedByGitHub, RetryLater."""
    patches: dict[str, str] = {}
    async for files in access.repository.pages(f"/pulls/{pull_request.number}/files", list[_File], PULL_REQUESTS):
        patches |= {file.filename: file.patch for file in files if file.patch}
    return lines_of(patches)


async def read_reported(access: Access, pull_request: PullRequest) -> frozenset[str]:
    """Return the fingerprints of the findings in our earlier reviews. Raises RefusedByGitHub, RetryLater."""
    path, known = f"/pulls/{pull_request.number}/comments", set[str]()
    async for comments in access.repository.pages(path, list[_ReviewComment], PULL_REQUESTS):
        known |= fingerprints_in([each.body for each in comments if access.identity.wrote(each)])
    return frozenset(known)


async def write_review(
    access: Access,
    pull_request: PullRequest,
    reported: ReportedJob,
    rules: ReviewReport,
    lines: Lines,
    known: frozenset[str],
) -> str | None:
    """Write the review of the job unless it exists, and return its URL; None if it has nothing to say.

    known: the fingerprints of findings that earlier reviews have reported. Raises RefusedByGitHub, RetryLater.
    """
    path, mark = f"/pulls/{pull_request.number}", review_mark(reported.job.id)
    async for page in access.repository.pages(f"{path}/reviews", list[_ReviewObject], PULL_REQUESTS):
        for found in page:
            if mark in (found.body or "") and access.identity.wrote(found):
                return found.html_url
    if (review := review_of(reported, rules, lines, known)) is None:
        return None
    return await _create(access, pull_request, review)


async def _create(access: Access, pull_request: PullRequest, review: Review) -> str:
    path = f"/pulls/{pull_request.number}/reviews"
    body: dict[str, Any] = {"commit_id": pull_request.head.sha, "event": review.event, "body": review.body}
    try:
        created = await access.repository.post(
            path, body | {"comments": list(review.comments)}, _ReviewObject, PULL_REQUESTS
        )
    except RefusedByGitHub as error:
        if error.status != 422 or not review.comments:
            raise
        # GitHub refuses a whole review for one line that it sees differently: no finding is lost.
        text = "\n\n".join([review.body, *(_as_text(each) for each in review.comments)])
        created = await access.repository.post(path, body | {"body": text[:65_000]}, _ReviewObject, PULL_REQUESTS)
    return created.html_url


def _as_text(comment: Mapping[str, Any]) -> str:
    return f"`{comment['path']}:{comment['line']}`\n{comment['body']}"


async def resolve_outdated_threads(
    access: Access, pull_request: PullRequest, reported: ReportedJob, lines: Lines, known: frozenset[str]
) -> None:
    """Resolve the threads of our earlier reviews whose findings no longer apply. Raises RefusedByGitHub, RetryLater."""
    current = {fingerprint_of(finding, lines) for finding in reported.publication.findings}
    if known <= current:
        return
    owner, _, name = access.repository.name.partition("/")
    variables = {"owner": owner, "name": name, "number": pull_request.number}
    data = await access.repository.query(_THREADS, variables, PULL_REQUESTS)
    login = access.identity.login.removesuffix("[bot]").lower()
    for thread in _nodes(data, "repository", "pullRequest", "reviewThreads"):
        first: dict[str, Any] = next(iter(_nodes(thread, "comments")), {})
        author = ((first.get("author") or {}).get("login") or "").removesuffix("[bot]").lower()
        found = fingerprints_in([first.get("body") or ""])
        if author == login and found and not thread.get("isResolved") and not found & current:
            await access.repository.query(_RESOLVE, {"thread": thread.get("id")}, _RESOLVING)


def _nodes(data: Any, *path: str) -> list[Any]:
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    nodes = data.get("nodes") if isinstance(data, Mapping) else None
    return nodes if isinstance(nodes, list) else []

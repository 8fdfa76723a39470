"""Open a pull request with the commits of an agent, or add them to one that is ours."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from labrats.controller.publisher.access import CONTENTS, ISSUES, PULL_REQUESTS, READ, Access, Authored
from labrats.controller.publisher.branch import BranchHasOtherCommits, Commits, NotPushed
from labrats.controller.publisher.labels import add_proposed_labels
from labrats.model.report import ProtectedAction, PublishPolicy, PullRequestReport, ReportTarget
from labrats.net.github_repository import RefusedByGitHub
from labrats.reports.policy import protected_among, reason_to_refuse
from labrats.reports.pull_request import (
    PULL_REQUEST_MARK,
    base_branch,
    branch_name,
    pull_request_body,
    pull_request_mark,
    pull_request_title,
)
from labrats.reports.reported_job import ReportedJob

log = structlog.get_logger()

_PATCH_BYTES: Final = 40_000
_OPEN: Final = "open"


class Branch(msgspec.Struct, frozen=True):
    """One side of a pull request."""

    class Repo(msgspec.Struct, frozen=True):
        """The repository of a branch. It may have been deleted."""

        full_name: str

    ref: str
    sha: str
    repo: Repo | None = None


class PullRequest(Authored, frozen=True, kw_only=True):
    """A pull request."""

    number: int
    state: str
    html_url: str
    head: Branch
    base: Branch
    title: str = ""
    body: str | None = None

    def is_of_fork(self, repository: str) -> bool:
        """Return whether its commits are in another repository."""
        return self.head.repo is None or self.head.repo.full_name.lower() != repository.lower()


class _Issue(msgspec.Struct):
    title: str = ""


class _RepositoryObject(msgspec.Struct):
    default_branch: str
    clone_url: str


class _Ignored(msgspec.Struct):
    pass


@dataclass(frozen=True)
class Pushed:
    """The result: the pull request's URL, or the changes as a patch, and what was refused."""

    url: str | None = None
    patch: str | None = None
    refused: tuple[str, ...] = ()


async def read_pull_request(access: Access, number: int) -> PullRequest:
    """Return a pull request. Raises RefusedByGitHub, RetryLater."""
    return await access.repository.get(f"/pulls/{number}", PullRequest, PULL_REQUESTS)


async def publish_commits(
    access: Access,
    target: ReportTarget,
    reported: ReportedJob,
    rules: PullRequestReport,
    policy: PublishPolicy,
    bundle: bytes,
) -> Pushed:
    """Push the commits and open their pull request, once. What is not allowed becomes a patch. Raises RetryLater."""
    repository = await access.repository.get("", _RepositoryObject, READ)
    token = await access.repository.token({**CONTENTS, **PULL_REQUESTS})
    try:
        commits = await asyncio.to_thread(Commits.fetch, bundle, repository.clone_url, token)
    except NotPushed as error:
        return Pushed(refused=(str(error),))
    try:
        return await _publish(access, target, reported, rules, policy, commits, len(bundle), repository.default_branch)
    finally:
        await asyncio.to_thread(commits.close)


async def _publish(
    access: Access,
    target: ReportTarget,
    reported: ReportedJob,
    rules: PullRequestReport,
    policy: PublishPolicy,
    commits: Commits,
    size: int,
    default_branch: str,
) -> Pushed:
    protected = protected_among(policy, commits.files)
    if reason := reason_to_refuse(policy, commits.files, size):
        return await _as_patch(commits, reason)
    if protected and policy.protected_files.action is ProtectedAction.REFUSE:
        return await _as_patch(commits, f"the changes concern protected files: {', '.join(protected[:10])}")
    try:
        of_target = await read_pull_request(access, target.pull_request) if target.pull_request else None
        if of_target and of_target.is_of_fork(target.repository):
            return await _as_patch(commits, "nothing is pushed to the branch of a fork")
        if of_target and _is_ours(access, of_target) and of_target.state == _OPEN:
            return await _push_to_ours(of_target, commits)
        base = of_target.head.ref if of_target else base_branch(reported) or default_branch
        return await _open(access, target, reported, rules, commits, protected, base)
    except (RefusedByGitHub, NotPushed) as error:
        return await _as_patch(commits, f"no pull request: {error}")


def _is_ours(access: Access, pull_request: PullRequest) -> bool:
    """Return whether a job opened the pull request. The account of a personal token may open others, too."""
    return access.identity.wrote(pull_request) and PULL_REQUEST_MARK in (pull_request.body or "")


async def _push_to_ours(pull_request: PullRequest, commits: Commits) -> Pushed:
    try:
        await asyncio.to_thread(commits.push, pull_request.head.ref)
    except BranchHasOtherCommits:
        reason = f"the branch `{pull_request.head.ref}` has moved since the agent has seen it"
        return await _as_patch(commits, reason)
    return Pushed(pull_request.html_url)


async def _open(
    access: Access,
    target: ReportTarget,
    reported: ReportedJob,
    rules: PullRequestReport,
    commits: Commits,
    protected: list[str],
    base: str,
) -> Pushed:
    branch = branch_name(rules.branch, reported, target)
    try:
        await asyncio.to_thread(commits.push, branch)
    except BranchHasOtherCommits:
        if (ours := await _find(access, branch)) and pull_request_mark(reported) in (ours.body or ""):
            return Pushed(ours.html_url)  # somebody has added to the pull request of this job
        branch = f"{branch}-{reported.job.id}"
        await asyncio.to_thread(commits.push, branch)
    found = await _find(access, branch)
    if found and found.state != _OPEN and found.head.sha == commits.tip:
        return await _as_patch(commits, f"the pull request with these commits was closed: {found.html_url}")
    if found is None or found.state != _OPEN:
        found = await _create(access, target, reported, rules, protected, branch, base)
    refused = await _decorate(access, found, rules, reported)
    return Pushed(found.html_url, refused=refused)


async def _find(access: Access, branch: str) -> PullRequest | None:
    """Return the latest pull request of the branch."""
    owner = access.repository.name.partition("/")[0]
    query = {"head": f"{owner}:{branch}", "state": "all", "sort": "created", "direction": "desc"}
    found = await access.repository.get("/pulls", list[PullRequest], PULL_REQUESTS, **query)
    return next((each for each in found if each.head.ref == branch), None)


async def _create(
    access: Access,
    target: ReportTarget,
    reported: ReportedJob,
    rules: PullRequestReport,
    protected: list[str],
    branch: str,
    base: str,
) -> PullRequest:
    body: dict[str, Any] = {
        "title": pull_request_title(reported, rules, await _issue_title(access, target, reported)),
        "body": pull_request_body(reported, rules, target, protected),
        "head": branch,
        "base": base,
        "draft": rules.draft or bool(protected),
        "maintainer_can_modify": True,
    }
    try:
        return await access.repository.post("/pulls", body, PullRequest, PULL_REQUESTS)
    except RefusedByGitHub as error:
        if error.status != 422 or "draft" not in str(error).lower():
            raise
    return await access.repository.post("/pulls", body | {"draft": False}, PullRequest, PULL_REQUESTS)


async def _issue_title(access: Access, target: ReportTarget, reported: ReportedJob) -> str | None:
    if reported.publication.title or target.issue is None:
        return None
    return (await access.repository.get(f"/issues/{target.issue}", _Issue, ISSUES)).title


async def _decorate(
    access: Access, pull_request: PullRequest, rules: PullRequestReport, reported: ReportedJob
) -> tuple[str, ...]:
    """Add labels and ask for reviews. Return what GitHub refuses, which does not harm the pull request."""
    number, refused = pull_request.number, []
    as_target = ReportTarget(repository=access.repository.name, pull_request=number)
    try:
        if rules.labels:
            body: dict[str, Any] = {"labels": list(rules.labels)}
            await access.repository.post(f"/issues/{number}/labels", body, list[_Ignored], PULL_REQUESTS)
        await add_proposed_labels(access, as_target, number, reported.publication.labels)
    except RefusedByGitHub as error:
        refused.append(f"labels of the pull request: {error}")
    try:
        if rules.reviewers:
            body = {"reviewers": list(rules.reviewers)}
            await access.repository.post(f"/pulls/{number}/requested_reviewers", body, _Ignored, PULL_REQUESTS)
    except RefusedByGitHub as error:
        refused.append(f"reviewers of the pull request: {error}")
    return tuple(refused)


async def _as_patch(commits: Commits, reason: str) -> Pushed:
    return Pushed(patch=await asyncio.to_thread(commits.patch, _PATCH_BYTES), refused=(reason,))

"""Open a pull request with the commits of an agent, or add them to one that is ours."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgspec

from labrats.github.client.access import (
    CONTENTS,
    ISSUES,
    PULL_REQUESTS,
    READ_CONTENTS,
    WORKFLOWS,
    Access,
    Authored,
)
from labrats.github.client.repository import Permissions, RefusedByGitHub
from labrats.github.publisher.branch import Commits
from labrats.github.publisher.creations import Creations
from labrats.github.publisher.git import (
    BranchHasOtherCommits,
    CannotPick,
    Denied,
    HoldsSecrets,
    NotPushed,
    PlaceOfSecret,
    in_git_thread,
)
from labrats.github.publisher.labels import add_proposed_labels
from labrats.github.publisher.signed_commits import Placed, place_on_branch
from labrats.github.reports.policy import protected_among, reason_to_refuse
from labrats.github.reports.pull_request import (
    PULL_REQUEST_MARK,
    base_branch,
    branch_name,
    pull_request_body,
    pull_request_mark,
    pull_request_title,
)
from labrats.github.reports.reported_job import LostRace, ReportedJob
from labrats.model.errors import RetryLater
from labrats.model.found_secrets import FoundSecret
from labrats.model.job import DEFAULT_BRANCH_ANNOTATION
from labrats.model.report import ProtectedAction, PublishPolicy, PullRequestReport, ReportTarget
from labrats.model.untrusted_commits import is_for_untrusted_commits

PATCH_BYTES: Final = 40_000
_DRAFT: Final = (
    "mutation($id: ID!) { convertPullRequestToDraft(input: {pullRequestId: $id}) { pullRequest { isDraft } } }"
)
_CONTAINED: Final = ("identical", "behind")
"""GitHub's words for a commit that the other side of a comparison contains."""

_SECRETS_REFUSED: Final = (
    "no pull request: GitHub has found secrets in the commits, so there is no patch either; remove the secrets from "
    "the commits and revoke them, or allow them on GitHub and publish again"
)

_SOME_SECRET: Final = FoundSecret(kind="secret", path="", line=0, commit="")
"""The record of a secret whose place GitHub does not name."""

_EXISTS: Final = "already exists"
"""GitHub's words for a second open pull request of a branch."""

_MOST_PICKS: Final = 3
"""Times that the commits are picked onto the branch, which others may move again meanwhile."""

OPEN: Final = "open"
"""The state of a pull request that is neither closed nor merged."""


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
    node_id: str = ""
    title: str = ""
    body: str | None = None
    draft: bool = False

    def is_of_fork(self, repository: str) -> bool:
        """Return whether its commits are in another repository."""
        return self.head.repo is None or self.head.repo.full_name.lower() != repository.lower()


class _Issue(msgspec.Struct):
    title: str = ""


class _Comparison(msgspec.Struct):
    status: str = ""


@dataclass(frozen=True)
class Pushed:
    """The result: the pull request's URL, or the changes as a patch, and what was refused.

    commit:  the last of the commits on GitHub.
    holds_secrets, secrets: whether GitHub has found secrets in the commits, and those whose place it names. There is no
             patch then.
    lost:    what follows if nothing was pushed, since others have moved the branch. There is no patch then, which would
             not apply.
    """

    url: str | None = None
    commit: str | None = None
    patch: str | None = None
    refused: tuple[str, ...] = ()
    holds_secrets: bool = False
    secrets: tuple[FoundSecret, ...] = ()
    lost: LostRace | None = None


async def read_pull_request(access: Access, number: int) -> PullRequest:
    """Return a pull request. Raises RefusedByGitHub, RetryLater."""
    return await access.repository.get(f"/pulls/{number}", PullRequest, PULL_REQUESTS)


RunAgain = Callable[[PullRequest], Awaitable[bool]]
"""Asks for one more run of the job on the new head of its pull request. Returns whether there will be one."""


class RecordParts(Protocol):
    """Stores parts of a report before the others are written. parts: fields of Published."""

    async def __call__(self, **parts: str | None) -> None: ...


@dataclass(frozen=True)
class CommitsPublisher:
    """Publishes the commits of one job. What is not allowed becomes a patch.

    own_branch: the branch that an earlier pass over the report has recorded.
    record:     stores the name of a branch before it is created, and a pull request once it is.
    new_branches: those that this or an earlier pass has certainly created.
    run_again:  see RunAgain.
    """

    access: Access
    target: ReportTarget
    reported: ReportedJob
    rules: PullRequestReport
    policy: PublishPolicy
    own_branch: str | None
    record: RecordParts
    creations: Creations
    new_branches: set[str]
    run_again: RunAgain

    async def publish(self, bundle: bytes) -> Pushed:
        """Push the commits of a bundle and open their pull request, once. Raises RefusedByGitHub, RetryLater."""
        forbidden: RefusedByGitHub | None = None
        permissions = CONTENTS
        try:
            token = await self.access.repository.token(permissions)
        except RefusedByGitHub as error:
            forbidden, permissions = error, READ_CONTENTS
            token = await self.access.repository.token(permissions)
        try:
            url, hosts = self._clone_url(), self.reported.known_hosts
            commits = await in_git_thread(Commits.fetch, bundle, url, token, hosts, self.access.signer)
        except NotPushed as error:
            await self._doubt(error, permissions)
            return Pushed(refused=(str(error),))
        try:
            if forbidden:
                return await _as_patch(commits, f"no pull request: {forbidden}")
            if reason := self._reason_to_refuse(commits, len(bundle)):
                return await _as_patch(commits, reason)
            if commits.change_workflows:  # an App that may not refuses, which leads to a patch as well
                permissions = WORKFLOWS
                commits = replace(commits, token=await self.access.repository.token(permissions))
            return await self._push(commits)
        except HoldsSecrets as error:
            return await _without_secrets(commits, error.places)
        except (RefusedByGitHub, NotPushed) as error:
            await self._doubt(error, permissions)
            return await _as_patch(commits, f"no pull request: {error}")
        finally:
            await in_git_thread(commits.close)

    async def _doubt(self, error: RefusedByGitHub | NotPushed, permissions: Permissions) -> None:
        """Raise RetryLater if git was denied access, which may not last. permissions: of its token."""
        if isinstance(error, Denied):
            await self.access.repository.doubt("git", permissions, RefusedByGitHub(403, str(error)))

    def _clone_url(self) -> str:
        setup = self.reported.job.spec.workspace_setup
        return self.access.described.clone_url or (setup.git_repo if setup else "")

    def _reason_to_refuse(self, commits: Commits, size: int) -> str | None:
        if reason := reason_to_refuse(self.policy, commits.files, size):
            return reason
        protected = protected_among(self.policy, commits.files)
        if protected and self.policy.protected_files.action is ProtectedAction.REFUSE:
            return f"the changes concern protected files: {', '.join(protected[:10])}"
        return None

    async def _push(self, commits: Commits) -> Pushed:
        number = self.target.pull_request
        of_target = await read_pull_request(self.access, number) if number is not None else None
        if of_target and of_target.is_of_fork(self.access.repository.name):
            return await _as_patch(commits, "nothing is pushed to the branch of a fork")
        if of_target and self._is_ours_and_open(of_target) and self._may_push_to(of_target.head.ref):
            return await self._push_to_ours(of_target, commits)
        if self.policy.max_pull_requests == 0:
            return await _as_patch(commits, "no pull request: policy.maxPullRequests is 0")
        if of_target:
            return await self._open(commits, of_target.head.ref if of_target.state == OPEN else of_target.base.ref)
        return await self._open(commits, await self._base(commits))

    async def _base(self, commits: Commits) -> str:
        """Return the branch that the agent started from. For a default branch with another name now, it is that one."""
        base, annotations = base_branch(self.reported), self.reported.job.metadata.annotations
        if base and base == annotations.get(DEFAULT_BRANCH_ANNOTATION):
            is_gone = await in_git_thread(commits.remote_head, base) is None
            return self.access.described.default_branch if is_gone else base
        return base or self.access.described.default_branch

    def _is_ours(self, pull_request: PullRequest) -> bool:
        """Return whether a job opened the pull request.

        The account of a personal token may open others, which lack the mark. An App opens none, and people may edit its
        text.
        """
        identity = self.access.identity
        is_marked = PULL_REQUEST_MARK in (pull_request.body or "")
        return identity.wrote(pull_request) and (identity.app_id is not None or is_marked)

    def _is_of_job(self, pull_request: PullRequest) -> bool:
        return self._is_ours(pull_request) and pull_request_mark(self.reported) in (pull_request.body or "")

    def _is_ours_and_open(self, pull_request: PullRequest) -> bool:
        return pull_request.state == OPEN and self._is_ours(pull_request)

    def _may_push_to(self, branch: str) -> bool:
        """Return whether the job may add commits to this branch of the engine.

        Trusted jobs work on what is there, so an untrusted one adds nothing.
        """
        return is_for_untrusted_commits(branch) or not self.reported.job.spec.untrusted

    async def _open(self, commits: Commits, base: str) -> Pushed:
        branch = branch_name(self.rules.branch, self.reported, self.target)
        found = await self._find(branch)
        if found and found.state != OPEN and self._is_of_job(found):
            return Pushed(found.html_url)  # a person has merged or closed it, and the report is written again
        try:
            return await self._open_from(branch, found, commits, base)
        except BranchHasOtherCommits:
            if found and self._is_of_job(found):
                return Pushed(found.html_url)  # somebody has added to the pull request of this job
        branch = f"{branch}-{self.reported.job.id}"
        return await self._open_from(branch, await self._find(branch), commits, base)

    async def _open_from(self, branch: str, found: PullRequest | None, commits: Commits, base: str) -> Pushed:
        """Open a pull request from this branch. found: the latest one of the branch.

        Raises BranchHasOtherCommits, NotPushed.
        """
        await self._require_start(commits, found, base)
        is_new = await self._claim(branch, found, commits)
        placed, protected = await self._place(commits, branch, found, is_new=is_new)
        if found and found.state != OPEN and found.head.sha == placed.head:
            return await _as_patch(commits, f"the pull request with these commits was closed: {found.html_url}")
        if found is None or found.state != OPEN:
            found = await self._create(commits, branch, base, placed)
            # A reply to it, or a failed check of it, may come before the other parts are written.
            await self.record(pull_request_url=found.html_url, commit=placed.head)
        refused = (*placed.refused, *protected, *await self._decorate(found.number))
        return Pushed(found.html_url, placed.head, refused=refused)

    async def _require_start(self, commits: Commits, found: PullRequest | None, base: str) -> None:
        """Raise NotPushed unless the pull request's base has the commit that the agent's commits are based on.

        The agent chooses this commit. The commits up to it would be published, too, and no policy has judged them.
        found: the latest pull request of the branch. An open one of the engine gets the commits, so that its base and
        its head count instead. Raises BranchHasOtherCommits if neither has the commit.
        """
        if found is None or not self._is_ours_and_open(found):
            if not await self._has_start(commits, base):
                raise NotPushed(_without_start(base))
        elif not await self._has_start(commits, found.base.ref) and not await self._has_start(commits, found.head.ref):
            raise BranchHasOtherCommits(_without_start(found.head.ref))

    async def _has_start(self, commits: Commits, branch: str) -> bool:
        """Return whether a branch has the commit that the agent's commits are based on."""
        head = await in_git_thread(commits.remote_head, branch)
        if head is None or head == commits.base:
            return head is not None
        path = f"/compare/{head}...{commits.base}"
        try:  # only the first page has the changed files, which may be large
            compared = await self.access.repository.get(path, _Comparison, READ_CONTENTS, per_page=1, page=2)
        except RefusedByGitHub as error:
            if error.status != 404:  # the commits have no common ancestor
                raise
            return False
        return compared.status in _CONTAINED

    async def _claim(self, branch: str, found: PullRequest | None, commits: Commits) -> bool:
        """Return whether the branch must be created. Raises BranchHasOtherCommits if it exists and is not the engine's.

        The engine's own branches are those of its open pull requests, and the one that this job has recorded. Its name
        is recorded before it is created, so that the next publisher recognises it after a kill. The commits of a branch
        are no proof, since an agent can copy them.
        """
        if await in_git_thread(commits.remote_head, branch) is None:
            if branch != self.own_branch:
                await self.record(branch=branch)
            return True
        if branch == self.own_branch or (found and self._is_ours_and_open(found)):
            return False
        raise BranchHasOtherCommits("the branch is not the engine's")

    async def _push_to_ours(self, pull_request: PullRequest, commits: Commits) -> Pushed:
        """Add the commits to the branch: as they are, or picked onto commits that others have pushed meanwhile."""
        branch = pull_request.head.ref
        if not await self._has_start(commits, branch):
            return await self._lost(pull_request, _without_start(branch))
        reason = f"the branch `{branch}` has moved since the agent has seen it"
        for _ in range(_MOST_PICKS):
            try:
                placed, protected = await self._place(commits, branch, pull_request)
            except BranchHasOtherCommits:
                try:
                    commits = await in_git_thread(commits.picked_onto, branch)
                except CannotPick as error:
                    return await self._lost(pull_request, f"{reason}, and {error}")
            else:
                return Pushed(pull_request.html_url, placed.head, refused=(*placed.refused, *protected))
        return await self._lost(pull_request, f"{reason}, again and again")

    async def _lost(self, pull_request: PullRequest, reason: str) -> Pushed:
        """Return the result for commits that do not fit the branch: the job runs once more, or nothing is pushed."""
        if await self.run_again(pull_request):
            return Pushed(refused=(f"commits: {reason}, so the job runs once more",), lost=LostRace.RUNS_AGAIN)
        advice = f"`labrats patch {self.reported.job.id}` shows the changes"
        return Pushed(refused=(f"nothing was pushed: {reason}; {advice}",), lost=LostRace.NOT_PUSHED)

    async def _place(
        self, commits: Commits, branch: str, existing: PullRequest | None, *, is_new: bool = False
    ) -> tuple[Placed, tuple[str, ...]]:
        """Put the commits on the branch. Before protected files get there, an open pull request becomes a draft.

        existing: the pull request of the branch. is_new: whether the branch must be created.
        Return the notice that says so as well. Raises as `place_on_branch` does.
        """
        notice: tuple[str, ...] = ()
        protected = protected_among(self.policy, commits.files)
        if protected and existing and existing.state == OPEN:
            if not existing.draft:
                await self.access.repository.query(_DRAFT, {"id": existing.node_id}, PULL_REQUESTS)
            notice = (f"the pull request is a draft until a person has reviewed {', '.join(protected[:10])}",)
        sign = self.rules.sign_commits
        await self.access.note_commit(commits.tip)
        placed = await place_on_branch(self.access, commits, branch, self.new_branches, sign=sign, is_new=is_new)
        if placed.head != commits.tip:  # GitHub created it, or it was picked onto the branch
            await self.access.note_commit(placed.head)
        return placed, notice

    async def _find(self, branch: str) -> PullRequest | None:
        """Return the latest pull request of the branch."""
        owner = self.access.repository.name.partition("/")[0]
        query: dict[str, Any] = {"head": f"{owner}:{branch}", "state": "all", "sort": "created", "direction": "desc"}
        found = await self.access.repository.get("/pulls", list[PullRequest], PULL_REQUESTS, **query)
        of_repository = (each for each in found if not each.is_of_fork(self.access.repository.name))
        if listed := next((each for each in of_repository if each.head.ref == branch), None):
            return listed
        number = self.creations.id_of(_name_of(branch))
        return None if number is None else await read_pull_request(self.access, number)

    async def _create(self, commits: Commits, branch: str, base: str, placed: Placed) -> PullRequest:
        """Open the pull request. If there will be none, a branch that was created for it is removed."""
        try:
            return await self.creations.create(
                _name_of(branch),
                lambda: self._create_or_find(commits, branch, base),
                lambda pull_request: pull_request.number,
            )
        except RefusedByGitHub:
            if branch in self.new_branches:
                with suppress(NotPushed, RetryLater):  # the branch stays, as after a kill
                    await in_git_thread(commits.remove_branch, branch, placed.head)
            raise

    async def _create_or_find(self, commits: Commits, branch: str, base: str) -> PullRequest:
        protected = protected_among(self.policy, commits.files)
        body: dict[str, Any] = {
            "title": pull_request_title(self.reported, self.rules, await self._issue_title()),
            "body": pull_request_body(self.reported, self.rules, self.target, protected),
            "head": branch,
            "base": base,
            "draft": self.rules.draft or bool(protected),
            "maintainer_can_modify": True,
        }
        repository = self.access.repository
        try:
            return await repository.post("/pulls", body, PullRequest, PULL_REQUESTS)
        except RefusedByGitHub as error:
            if error.status != 422:
                raise
            if (found := await self._find(branch)) and found.state == OPEN:
                return found  # an earlier request, which GitHub was late to answer, has opened it
            if _EXISTS in str(error):  # GitHub's list does not show it yet
                await repository.doubt(f"pull request of {branch}", PULL_REQUESTS, error)
            if "draft" not in str(error).lower():
                raise
        return await repository.post("/pulls", body | {"draft": False}, PullRequest, PULL_REQUESTS)

    async def _issue_title(self) -> str | None:
        if self.reported.publication.title or self.target.issue is None:
            return None
        return (await self.access.repository.get(f"/issues/{self.target.issue}", _Issue, ISSUES)).title

    async def _decorate(self, number: int) -> tuple[str, ...]:
        """Add labels and ask for reviews. Return what GitHub refuses, which does not harm the pull request."""
        refused: list[str] = []
        repository = self.access.repository
        target = ReportTarget(repository=repository.name, pull_request=number)
        try:
            if self.rules.labels:
                body: dict[str, Any] = {"labels": list(self.rules.labels)}
                await self.access.note_labels(number, self.rules.labels)
                await repository.add(f"/issues/{number}/labels", body, PULL_REQUESTS)
            refused += await add_proposed_labels(self.access, target, number, self.reported, self.policy)
        except RefusedByGitHub as error:
            refused.append(f"labels of the pull request: {error}")
        try:
            if self.rules.reviewers:
                body = {"reviewers": list(self.rules.reviewers)}
                await repository.add(f"/pulls/{number}/requested_reviewers", body, PULL_REQUESTS)
        except RefusedByGitHub as error:
            refused.append(f"reviewers of the pull request: {error}")
        return tuple(refused)


def _name_of(branch: str) -> str:
    """Return the name of the pull request of a branch among the created objects."""
    return f"pull request of {branch}"


def _without_start(branch: str) -> str:
    return f"the branch `{branch}` does not have the commit that the agent started from"


async def _without_secrets(commits: Commits, places: Sequence[PlaceOfSecret]) -> Pushed:
    """Return the result for commits that hold secrets: the places of these, and no patch."""
    secrets = await in_git_thread(commits.secrets_at, places) or (_SOME_SECRET,)
    listed = [f"secret: {each.kind} in `{each.path}`, line {each.line}" for each in secrets if each.path]
    return Pushed(refused=(_SECRETS_REFUSED, *listed), holds_secrets=True, secrets=secrets)


async def _as_patch(commits: Commits, reason: str) -> Pushed:
    return Pushed(patch=await in_git_thread(commits.patch, PATCH_BYTES), refused=(reason,))

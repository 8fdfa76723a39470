"""Put the commits of an agent on a branch: pushed, or created by GitHub, which signs the commits that it creates.

GitHub's commits have other ids than the agent's, the same files and messages, and the account of the credentials as
their author.
"""

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from labrats.github.client.access import CONTENTS, WORKFLOWS, Access
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.publisher.branch import Change, Commits
from labrats.github.publisher.git import (
    BranchHasOtherCommits,
    HoldsSecrets,
    MustBeVerified,
    NotPushed,
    in_git_thread,
)
from labrats.model.errors import RetryLater

MOST_COMMITS: Final = 50
"""The commits of one job that GitHub creates. Each is a write, and starts the workflows of the branch."""

_MIB: Final = 1024 * 1024
MOST_BYTES: Final = 25 * _MIB
"""The files of one commit. GitHub refuses requests of more than some 40 MB, and base64 adds a third."""

_CREATE: Final = """
mutation($input: CreateCommitOnBranchInput!) {
  createCommitOnBranch(input: $input) { commit { oid tree { oid } signature { isValid } } } }
"""
_FILE: Final = "100644"
_NONE: Final = "000000"
_SPECIAL: Final = {"100755": "is executable", "120000": "is a symbolic link", "160000": "is a submodule"}
_STALE: Final = "STALE_DATA"
_FOUND: Final = "Secret detected"
"""Words of GitHub's push protection, which names no place here."""

_NOT_SIGNED: Final = "signed commits: GitHub created the commits, but it did not sign them"
_UNSIGNED: Final = "so the commits were pushed without a signature"
_CHECKED_LATER: Final = "gpgverify_unavailable"


class NotExpressible(NotPushed):
    """GitHub's API cannot create a commit with these changes. Its text says why."""


@dataclass(frozen=True)
class Placed:
    """The result.

    head:    the last commit of the branch.
    refused: what was not done as it was asked.
    """

    head: str
    refused: tuple[str, ...] = ()


class _Oid(msgspec.Struct, frozen=True):
    oid: str


class _Signature(msgspec.Struct, frozen=True, rename="camel"):
    is_valid: bool


class _Verification(msgspec.Struct, frozen=True):
    verified: bool
    reason: str = ""


class _CommitOfObject(msgspec.Struct, frozen=True):
    verification: _Verification


class _CommitObject(msgspec.Struct, frozen=True):
    commit: _CommitOfObject


class _Created(msgspec.Struct, frozen=True):
    oid: str
    tree: _Oid
    signature: _Signature | None = None


async def place_on_branch(
    access: Access, commits: Commits, branch: str, new_branches: set[str], *, sign: bool, is_new: bool = False
) -> Placed:
    """Put the commits on a branch, once. GitHub signs them if `sign` is set, or if the branch takes no others.

    new_branches: those that the engine has certainly created for the commits; this one is added if it is created now.
    is_new: whether the branch must be created, so that one that somebody has created meanwhile stays as it is.
    Raises BranchHasOtherCommits, NotPushed, RefusedByGitHub, RetryLater.
    """
    refused: list[str] = []
    if sign:
        try:
            return await _create(access, commits, branch, new_branches, is_new=is_new)
        except NotExpressible as error:
            if commits.signer is None:
                refused.append(f"signed commits: {error}, {_UNSIGNED}")
    if commits.unsigned:
        refused.append(f"signing key: {commits.unsigned}, {_UNSIGNED}")
    try:
        head, is_created = await in_git_thread(partial(commits.push, branch, is_new=is_new))
    except MustBeVerified as demand:
        try:
            return await _create(access, commits, branch, new_branches, is_new=is_new)
        except NotExpressible as error:
            raise NotPushed(f"{demand}, and {error}") from error
    if commits.signer and (reason := await _reason_not_verified(access, head)):
        refused.append(f"signing key: GitHub does not verify the signatures: {reason}")
    if is_created:
        new_branches.add(branch)
    return Placed(head, tuple(refused))


async def _reason_not_verified(access: Access, commit: str) -> str | None:
    """Return GitHub's word for what is wrong with a commit's signature, such as `unknown_key`; None if nothing is."""
    try:
        found = await access.repository.get(f"/commits/{commit}", _CommitObject, CONTENTS)
    except RefusedByGitHub as error:
        return str(error)
    verification = found.commit.verification
    return None if verification.verified or verification.reason == _CHECKED_LATER else verification.reason


async def _create(access: Access, commits: Commits, branch: str, new_branches: set[str], *, is_new: bool) -> Placed:
    """Let GitHub create the commits that the branch lacks. Raises NotExpressible before it changes anything."""
    found = await in_git_thread(commits.find_on, branch)
    if is_new and found.head is not None:
        raise BranchHasOtherCommits("somebody has created the branch meanwhile")
    missing = range(found.count, len(commits.line))
    await in_git_thread(_require_expressible, commits, missing)
    head = found.head or commits.base
    if found.head is None and await in_git_thread(commits.create_branch, branch):
        new_branches.add(branch)
    is_signed = True
    try:
        for number in missing:
            created = await _create_one(access, commits, number, branch, head)
            head = created.oid
            is_signed = is_signed and created.signature is not None and created.signature.is_valid
    except (RefusedByGitHub, HoldsSecrets):
        if branch in new_branches:
            with suppress(NotPushed, RetryLater):  # the branch stays, as after a kill
                await in_git_thread(commits.remove_branch, branch, head)
        raise
    return Placed(head, () if is_signed else (_NOT_SIGNED,))


async def _create_one(access: Access, commits: Commits, number: int, branch: str, head: str) -> _Created:
    wanted = {"input": await in_git_thread(_input, commits, number)}
    wanted["input"] |= {
        "branch": {"repositoryNameWithOwner": access.repository.name, "branchName": branch},
        "expectedHeadOid": head,
    }
    try:
        permissions = WORKFLOWS if commits.change_workflows else CONTENTS
        answer = await access.repository.query(_CREATE, wanted, permissions)
    except RefusedByGitHub as error:
        if _FOUND in str(error):
            raise HoldsSecrets(()) from error
        if error.kind != _STALE:
            raise
        # Another look tells whether somebody has pushed, or an earlier write has yet to reach all of GitHub.
        raise RetryLater(str(error), delay_seconds=5) from error
    created = msgspec.convert(answer["createCommitOnBranch"]["commit"], _Created)
    if created.tree.oid != commits.line[number].tree:
        raise NotPushed("GitHub created a commit with other files than the agent's")
    return created


def _input(commits: Commits, number: int) -> dict[str, Any]:
    """Return the message and the changes of a commit, as GitHub's API expects them."""
    changes = commits.changes(number)
    added = [change for change in changes if change.mode != _NONE]
    headline, _, body = commits.message(commits.line[number]).partition("\n")
    return {
        "message": {"headline": headline or "Change files", "body": body.strip()},
        "fileChanges": {
            "additions": [
                {"path": change.path.decode(), "contents": base64.b64encode(content).decode()}
                for change, content in zip(added, commits.contents(added), strict=True)
            ],
            "deletions": [{"path": change.path.decode()} for change in changes if change.mode == _NONE],
        },
    }


def _require_expressible(commits: Commits, numbers: Sequence[int]) -> None:
    """Raise NotExpressible unless GitHub's API can create all of these commits."""
    if len(numbers) > MOST_COMMITS:
        raise NotExpressible(f"GitHub is asked to sign {MOST_COMMITS} commits at most, and these are {len(numbers)}")
    for number in numbers:
        changes = commits.changes(number)
        for change in changes:
            if problem := _problem_of(change):
                path = change.path.decode(errors="replace")
                raise NotExpressible(f"GitHub can sign only changes of ordinary files, and `{path}` {problem}")
        size = sum(commits.sizes([change for change in changes if change.mode != _NONE]))
        if size > MOST_BYTES:
            most, found = MOST_BYTES // _MIB, -(-size // _MIB)
            raise NotExpressible(f"GitHub is asked to sign {most} MiB a commit, and one has {found} MiB")


def _problem_of(change: Change) -> str | None:
    if change.mode in _SPECIAL:
        return _SPECIAL[change.mode]
    if change.mode == _FILE and change.old_mode in _SPECIAL:
        return f"{_SPECIAL[change.old_mode].replace('is', 'was', 1)} before"
    try:
        change.path.decode()
    except UnicodeDecodeError:
        return "has a name that is not UTF-8"
    return None

"""Hand over an attempt's commits as a git bundle, relative to the commit that was cloned.

Changes that the agent has not committed are one more commit on top. A bundle cannot be redacted, so there is none if
anything in it contains a secret.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from labrats.executor.context import RunContext
from labrats.executor.engine_repository import Change, DiffFailed, EngineRepository
from labrats.executor.git_identity import IDENTITY
from labrats.executor.git_outputs import read_head
from labrats.executor.workspace_diff import Baseline, Work, repository_of
from labrats.model.protocol import BUNDLE_BYTES, BUNDLE_REF
from labrats.model.publication import PUBLICATION_FOLDER

CONTENT_BYTES: Final = 32 * 1024 * 1024
"""Limit on the uncompressed objects of a bundle. All of them are searched for secrets, at some 6 MiB a second."""

_UNCOMMITTED: Final = "Add uncommitted changes"
_ALL_CHANGES: Final = "Add all changes"
_KINDS: Final = {"blob": "file", "tree": "folder"}


def has_new_commits(context: RunContext, baseline: Baseline) -> bool:
    """Return whether the agent has checked out another commit than at its start."""
    return read_head(context.workspace).commit not in (baseline.outputs.commit, baseline.head.commit)


async def report_bundle(context: RunContext, baseline: Baseline, work: Work) -> None:
    """Store the bundle of the attempt's commits, and report its size. Do nothing if there is no new commit.

    Without the uncommitted changes if these cannot be added. Raises DiffFailed, with the reason, if there are changes
    but no bundle.
    """
    cloned, head = baseline.outputs.commit, work.head
    if not (context.repository and cloned and baseline.tree):
        return
    is_new = has_new_commits(context, baseline)
    if not is_new and context.events.outputs.files_changed == 0 and not baseline.earlier:
        return
    repository = repository_of(context)
    # Commits on those of the setup commands cannot be pushed without these, which are not the agent's work.
    own_head = head if head and baseline.head.commit == cloned and await _extends(repository, cloned, head) else None
    if is_new and own_head and await _has_publication(repository, cloned, own_head):
        context.events.log(
            f"[the bundle has one commit in place of the agent's, which have files of {PUBLICATION_FOLDER}]"
        )
        own_head = None
    try:
        if work.reason or work.tree is None:
            raise work.reason or DiffFailed("the workspace is empty")
        top = await _top_commit(repository, baseline, cloned, own_head, work.tree)
        bundle = None if top == cloned else await _bundle(context, repository, top, cloned)
    except DiffFailed as failure:
        earlier = baseline.earlier
        # The commits of the job that this one continues must stay.
        if not (is_new and own_head) or (earlier and await _has_commits_beyond(repository, earlier, own_head)):
            raise
        bundle = await _bundle(context, repository, own_head, cloned)
        reason = context.events.field(str(failure))
        context.events.log(f"[the bundle has the commits of the agent without its uncommitted changes: {reason}]")
    if bundle:
        context.events.bundle(bundle)
        context.events.report_outputs(replace(context.events.outputs, bundle_bytes=len(bundle)))


async def _bundle(context: RunContext, repository: EngineRepository, top: str, cloned: str) -> bytes:
    """Return the bundle of the commits up to `top`. Raises DiffFailed if it is too large, or contains a secret."""
    await repository.git("update-ref", BUNDLE_REF, top)
    await _require_no_secret(context, repository, top, cloned)
    return await repository.git("bundle", "create", "--quiet", "-", BUNDLE_REF, f"^{cloned}", most_bytes=BUNDLE_BYTES)


async def baseline_before(context: RunContext, baseline: Baseline, cloned: str) -> Baseline | None:
    """Return the baseline to which the commits that are checked out are new, but not the work of the setup commands.

    cloned: the commit that they are based on. Return None if git fails.
    """
    top, tree = baseline.outputs.commit, baseline.tree
    if top is None or tree is None:
        return None
    repository = repository_of(context)
    try:
        tree = await _tree_with(repository, cloned, await repository.changes(top, tree))
    except DiffFailed:
        return None
    return replace(baseline, tree=tree, outputs=replace(baseline.outputs, commit=cloned), earlier=top)


async def _top_commit(
    repository: EngineRepository, baseline: Baseline, cloned: str, head: str | None, files: str
) -> str:
    """Return the last commit of the bundle, which the engine makes if the agent has left uncommitted changes.

    head:  the agent's last commit; None to use none of its commits.
    files: the tree of the workspace.

    The commit descends from the last one of the job that this one continues, so that it can be pushed to the same
    branch.
    """
    if head:
        base, message = head, _UNCOMMITTED
    else:
        base, message = cloned, _ALL_CHANGES
    tree, earlier = await _tree_on(repository, base, cloned, baseline.tree or cloned, files), baseline.earlier
    parents = [base]
    if earlier and await _has_commits_beyond(repository, earlier, base):
        parents = [earlier, base] if await _has_commits_beyond(repository, base, earlier) else [earlier]
        base, message = earlier, _UNCOMMITTED
    if parents == [base] and tree == await repository.word("rev-parse", "--verify", f"{base}^{{tree}}"):
        return base
    named = [word for parent in parents for word in ("-p", parent)]
    return await repository.word("commit-tree", tree, *named, "-m", message, variables=IDENTITY)


async def _has_commits_beyond(repository: EngineRepository, commit: str, other: str) -> bool:
    """Return whether the history of `commit` has commits that the history of `other` lacks."""
    return bool(await repository.git("rev-list", "--max-count=1", commit, f"^{other}", "--"))


async def _extends(repository: EngineRepository, cloned: str, head: str) -> bool:
    """Return whether `head` can be pushed onto the cloned commit: it descends from it, and needs no other commit."""
    if head == cloned:
        return True
    new = (head, f"^{cloned}")
    try:
        listed = (await repository.git("rev-list", "--boundary", *new, "--")).decode().split()
    except DiffFailed:  # commits are missing, as after a shallow fetch
        return False
    return [commit for commit in listed if commit.startswith("-")] == [f"-{cloned}"]


async def _has_publication(repository: EngineRepository, cloned: str, head: str) -> bool:
    """Return whether commits after the cloned one have files of the publication, which is not pushed."""
    new = (head, f"^{cloned}")
    return bool(await repository.git("rev-list", "--full-history", "--max-count=1", *new, "--", PUBLICATION_FOLDER))


async def _tree_on(repository: EngineRepository, base: str, cloned: str, baseline: str, files: str) -> str:
    """Return the tree of a commit on `base` with the files of the workspace.

    Files that only the setup commands have changed are left as they are in `base`.
    """
    if baseline == cloned:
        return files
    prepared = await repository.changes(cloned, baseline)
    for path in [*await repository.changes(cloned, base), *await repository.changes(baseline, files)]:
        prepared.pop(path, None)
    return await _tree_with(repository, files, {path: change.reversed() for path, change in prepared.items()})


async def _tree_with(repository: EngineRepository, tree: str, changes: Mapping[bytes, Change]) -> str:
    """Return a tree with changes."""
    scratch = await repository.with_index_of(tree)
    lines = b"".join(change.after.at(path) for path, change in changes.items())
    await scratch.git("update-index", "-z", "--index-info", stdin=lines)
    return await scratch.word("write-tree")


async def _require_no_secret(context: RunContext, repository: EngineRepository, top: str, cloned: str) -> None:
    """Raise DiffFailed if a new object contains a secret (a file, the name of one, a message or a person's name)."""
    listed = await repository.git("rev-list", "--objects", top, f"^{cloned}", "--")
    places = {name: path for name, _, path in (line.partition(b" ") for line in listed.splitlines())}
    objects = await repository.read_objects(places, CONTENT_BYTES)
    for (name, kind, content), place in zip(objects, places.values(), strict=True):
        await asyncio.sleep(0)  # so that the time limit can take effect
        if context.events.contains_secret(content):
            where = name if kind == "commit" else place.decode("utf-8", "replace") or "of the repository"
            raise DiffFailed(f"a secret is in the {_KINDS.get(kind, kind)} {where}")

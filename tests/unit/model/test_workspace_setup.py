"""Tests of the preparation of workspaces: the values that win, and the scope of cached folders."""

from typing import Any

from msgspec.structs import replace

from labrats.model.job import DEFAULT_BRANCH_ANNOTATION, Job, WorkspaceSetup, base_cache_scope, cache_scope
from labrats.model.phases import Phase
from labrats.model.workspace_setup import Setup
from tests.support.builders import a_job, a_spec

REPO = "https://example.org/a.git"


def a_job_of(repo: str = REPO, ref: str | None = None, **spec: Any) -> Job:
    return a_job(Phase.RUNNING, spec=a_spec(workspace_setup=WorkspaceSetup(git_repo=repo, git_ref=ref), **spec))


def scope_of(repo: str = REPO, **spec: Any) -> str:
    return cache_scope(a_job_of(repo, **spec))


def test_scope_is_that_of_repository_owner_and_trust() -> None:
    usual = scope_of(owner="a")
    assert scope_of(owner="a", type="another type") == usual
    others = [
        scope_of("https://example.org/b.git", owner="a"),
        scope_of(owner="b"),
        scope_of(owner="a", untrusted=True),
        scope_of(owner="a", resolved=None),  # applied with kubectl by anyone
    ]
    assert len({usual, *others}) == 5


def test_ref_has_a_scope_of_its_own_beside_that_of_the_default_branch() -> None:
    """An agent may have made its commits, and setup commands run what these contain."""
    usual, ours = a_job_of(owner="a"), a_job_of(owner="a", ref="labrats/ai-developer/7")
    assert base_cache_scope(usual) is None
    assert base_cache_scope(ours) == cache_scope(usual) != cache_scope(ours)
    assert cache_scope(ours) != scope_of(owner="a", ref="labrats/ai-developer/8")


def test_default_branch_of_an_event_has_the_scope_of_jobs_without_a_ref() -> None:
    usual = a_job_of(owner="a")
    for ref, is_default in (("main", True), ("refs/heads/main", True), ("dev", False), ("refs/pull/1/head", False)):
        job = a_job_of(owner="a", ref=ref)
        job = replace(job, metadata=replace(job.metadata, annotations={DEFAULT_BRANCH_ANNOTATION: "main"}))
        assert (cache_scope(job) == cache_scope(usual)) is is_default
        assert base_cache_scope(job) == (None if is_default else cache_scope(usual))


def test_values_that_are_set_win_one_by_one() -> None:
    own, default = Setup(setup=(), setup_timeout_ms=1), Setup(setup=(("make",),), setup_network="none")
    assert own.over(default) == Setup(setup=(), setup_timeout_ms=1, setup_network="none")

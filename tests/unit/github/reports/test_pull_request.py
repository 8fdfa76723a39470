"""The base branch of a pull request is the branch that the job has cloned."""

import pytest

from labrats.github.reports.pull_request import base_branch
from labrats.github.reports.reported_job import ReportedJob
from labrats.model.job import WorkspaceSetup
from tests.support.builders import a_job, a_spec


@pytest.mark.parametrize(
    ("ref", "branch"),
    [
        ("dev", "dev"),
        ("refs/heads/dev", "dev"),
        ("refs/heads/abcdef1", "abcdef1"),
        ("abcdef1", None),
        ("refs/tags/v1", None),
        ("refs/pull/7/head", None),
        (None, None),
    ],
)
def test_base_branch_is_the_cloned_branch(ref: str | None, branch: str | None) -> None:
    setup = WorkspaceSetup(git_repo="https://github.com/octo/demo.git", git_ref=ref)
    assert base_branch(ReportedJob(a_job(spec=a_spec(workspace_setup=setup)))) == branch

"""Commits that change workflows of GitHub Actions, for which GitHub demands a permission of its own."""

from typing import Final

import pytest

from tests.acceptance.engine import LocalEngine
from tests.acceptance.github.test_signed_commits import BRANCH, PUSHED, SIGNED, work
from tests.support.github import GitHubStandIn

WORKFLOW: Final = ".github/workflows/test.yml"
COMMITTING: Final = f"""
os.makedirs(".github/workflows")
write("{WORKFLOW}", "on: push\\n")
commit("Test each push")
"""
RIGHTS: Final = {"contents": "write", "workflows": "write"}


@pytest.mark.parametrize("report", [PUSHED, SIGNED], ids=["pushed", "signed"])
async def test_workflows_are_changed_by_an_app_that_may(
    engine: LocalEngine, github: GitHubStandIn, report: dict[str, object]
) -> None:
    github.access.permissions["workflows"] = "write"
    job = await work(engine, github, COMMITTING, report)
    assert github.demo.git.text_of(BRANCH, WORKFLOW) == "on: push"
    (pull,) = github.pulls_of(github.demo, BRANCH)
    assert pull.pull
    assert (pull.pull.draft, job["published"]["refused"]) == (True, [])


@pytest.mark.parametrize("report", [PUSHED, SIGNED], ids=["pushed", "signed"])
async def test_workflows_become_a_patch_where_the_app_may_not_change_them(
    engine: LocalEngine, github: GitHubStandIn, report: dict[str, object]
) -> None:
    job = await work(engine, github, COMMITTING, report)
    (reason,) = job["published"]["refused"]
    assert reason.startswith("no pull request: ")
    assert reason.endswith("it needs the permissions contents: write, workflows: write")
    (comment,) = github.comments_of(github.demo.issues[1])
    assert "+on: push" in comment["body"]
    assert github.demo.git.resolve(BRANCH) is None


async def test_other_commits_need_no_right_to_change_workflows(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.access.permissions["workflows"] = "write"
    await work(engine, github, 'commit("Add a flag", flag__txt="on")', PUSHED)
    assert github.demo.git.resolve(BRANCH)
    assert not any("workflows" in grant["permissions"] for grant in github.access.grants)

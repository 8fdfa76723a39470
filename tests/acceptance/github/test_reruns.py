"""Reruns of jobs that report to GitHub: the new job reports there as well, if an administrator wants it."""

from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import COMMITTING, an_issue_of, deliver, published, set_up
from tests.support.github import GitHubStandIn, Issue
from tests.support.github.calls import Json


async def a_job(engine: LocalEngine, github: GitHubStandIn, admin: User) -> tuple[Json, Issue]:
    """Run a job about an issue. Return it with its complete report, and the issue."""
    github.demo.git.commit({"agent.py": COMMITTING})
    issue = github.demo.open_issue()
    await set_up(admin, {"comment": "sticky"})
    return await published(admin, await deliver(engine, "issues", an_issue_of(github, issue))), issue


async def test_a_rerun_reports_where_the_first_job_did(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        first, issue = await a_job(engine, github, admin)
        answer = await admin.post(f"/api/jobs/{first['id']}/rerun", {"report": True})
        again = await published(admin, answer.json()["jobId"])
    assert again["report"] == first["report"]
    assert again["published"]["commentUrl"] == first["published"]["commentUrl"]
    (comment,) = github.comments_of(issue)
    assert all(job["id"] in comment["body"] for job in (first, again))


async def test_a_rerun_reports_only_when_it_is_told_to(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        first, issue = await a_job(engine, github, admin)
        again = await admin.wait((await admin.post(f"/api/jobs/{first['id']}/rerun", {})).json()["jobId"])
        refused = await admin.post(f"/api/jobs/{again['id']}/rerun", {"report": True})
        async with engine.user() as user:
            own = await user.run({"result": 1})
            forbidden = await user.post(f"/api/jobs/{own['id']}/rerun", {"report": True})
    assert (again["report"], again["rerunOf"]) == (None, first["id"])
    assert again["id"] not in github.comments_of(issue)[0]["body"]
    assert (refused.status_code, refused.json()["details"]) == (
        422,
        [{"field": "report", "message": "must be false: the first job reports to no issue or pull request"}],
    )
    assert (forbidden.status_code, forbidden.json()["error"]) == (
        403,
        "report needs an API key with the scope `admin`",
    )

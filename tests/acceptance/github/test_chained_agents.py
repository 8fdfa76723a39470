"""The agents of a chain work on one pull request, which the engine opens for the first of them."""

from typing import Any, Final

from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import an_issue_of, deliver, published, set_up
from tests.acceptance.github.test_comment_commands import until_jobs
from tests.support.github import GitHubStandIn
from tests.support.github.calls import Json

PROGRAM: Final = """
if "Mend the work." in prompt:  # which also has the result of the review
    commit("Turn it on", flag__txt="on\\n")
elif "Review the work." in prompt:
    assert os.path.exists("flag.txt")
    result = prompt
    publish(findings=[{"path": "flag.txt", "line": 1, "title": "Not on"}])
else:
    commit("Add a flag", flag__txt="off\\n")
"""
BRANCH: Final = "labrats/ai-developer/1"


def linked(name: str, instruction: str, after: str | None, report: dict[str, Any]) -> dict[str, Any]:
    """Return an agent that another one of the chain starts. after: the one that it starts."""
    trigger: dict[str, Any] = {"source": "github", "events": ["issues.labeled"], "instruction": instruction}
    trigger |= {"enabled": False} | ({"next": {"agentTriggerName": after}} if after else {})
    return {"name": name, "defaultProvider": "claude", "eventTriggers": [trigger], "report": report}


async def create_chain(admin: User, report: dict[str, Any]) -> None:
    await set_up(admin, report)
    first = {"source": "github", "events": ["issues.labeled"], "instruction": "Do it."}
    changed = await admin.http.patch(
        "/api/agents/ai-developer", json={"eventTriggers": [first | {"next": {"agentTriggerName": "ai-reviewer"}}]}
    )
    assert changed.status_code == 200, changed.text
    for body in (
        linked("ai-reviewer", "Review the work.", "ai-mender", {"check": {}, "review": {}}),
        linked("ai-mender", "Mend the work.", None, {"pullRequest": {}}),
    ):
        created = await admin.post("/api/agents", body)
        assert created.status_code == 201, created.text


async def test_a_chain_reviews_and_mends_the_pull_request_of_its_first_agent(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": PROGRAM})
    async with engine.admin() as admin:
        await create_chain(admin, {"comment": "sticky", "pullRequest": {}})
        await deliver(engine, "issues", an_issue_of(github, issue))
        jobs: list[Json] = [await published(admin, job["id"]) for job in (await until_jobs(admin, 3))]
    mended, reviewed, first = jobs
    assert [job["published"]["refused"] for job in jobs] == [[], [], []]
    (pull_request,) = github.pulls_of(github.demo, BRANCH)
    assert pull_request.pull
    assert first["outputs"]["pullRequestUrl"] == mended["outputs"]["pullRequestUrl"] == pull_request.url
    (review,) = pull_request.pull.reviews
    assert reviewed["published"]["reviewUrl"] == review["html_url"]
    assert [each["path"] for each in pull_request.pull.comments] == ["flag.txt"]
    assert f"The pull request of this chain is {pull_request.url}." in reviewed["result"]
    log = github.demo.git.git("log", "--format=%s", f"main..{BRANCH}").splitlines()
    assert log == ["Turn it on", "Add a flag"]
    assert github.demo.git.git("show", f"{BRANCH}:flag.txt") == "on"


async def test_a_chain_goes_on_where_no_pull_request_is_possible(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": PROGRAM.replace('assert os.path.exists("flag.txt")', "")})
    async with engine.admin() as admin:
        await create_chain(admin, {"comment": "sticky", "pullRequest": {}, "policy": {"maxPullRequests": 0}})
        await deliver(engine, "issues", an_issue_of(github, issue))
        jobs = [await published(admin, job["id"]) for job in (await until_jobs(admin, 3))]
    assert [job["status"] for job in jobs] == ["completed"] * 3
    assert github.pulls_of(github.demo, BRANCH) == []

"""The CI loop: failed checks of the engine's pull requests are repaired by an agent, a bounded number of times."""

import json
from typing import Any, Final

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import Engine, LocalEngine, User
from tests.acceptance.github.reporting import REPORT, an_issue_of, deliver, published, set_up, start_reporting, until
from tests.acceptance.github.test_comment_commands import answers_in, comment, jobs_of, until_jobs
from tests.agents.claude import CLAUDE, MessagesApi
from tests.support.deliveries import github_headers, json_body
from tests.support.github import Fault, GitHubStandIn, Issue
from tests.support.github.calls import Json
from tests.support.scripted_model import Says, Turn, scripted_model

PROGRAM: Final = """
if "E assert colour" in prompt:
    commit("Repair the colour", colour__txt=f"blue {len(prompt)}\\n")
    publish(comment=prompt.replace(100 * "x", ""))
else:
    commit("Add a colour", colour__txt="red\\n")
"""
LOG: Final = "2026-01-01T00:00:00.0000000Z \x1b[31mE assert colour == 'blue'\x1b[0m\n<!-- hidden -->\n"
FIXER: Final[dict[str, Any]] = {
    "name": "ci-fixer",
    "defaultProvider": "claude",
    "eventTriggers": [
        {
            "source": "github",
            "events": ["check_run.completed"],
            "instruction": "Repair it.",
            "ciLoop": {"attemptsPerPullRequest": 2, "label": "needs-human"},
        }
    ],
    "report": {"comment": "sticky", "pullRequest": {}},
}


async def a_pull_request(engine: LocalEngine, github: GitHubStandIn, admin: User) -> Issue:
    """Let an agent open a pull request, on an engine with an agent that repairs checks."""
    github.demo.git.commit({"agent.py": PROGRAM})
    issue = github.demo.open_issue()
    await set_up(admin, REPORT)
    assert (await admin.post("/api/agents", FIXER)).status_code == 201
    await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (pull,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
    return pull


def head_of(github: GitHubStandIn, pull: Issue) -> str:
    found = github.demo.refresh(pull)
    assert found
    return found.head_sha


async def deliver_failure(engine: Engine, github: GitHubStandIn, pull: Issue, run: Json, **fields: Any) -> Json:
    """Deliver the event of a check that has ended, which a bot sends."""
    head = {"ref": pull.pull.head if pull.pull else "", "sha": run["head_sha"]}
    payload = {
        "action": "completed",
        "check_run": run | {"pull_requests": [{"number": pull.number, "head": head}]},
        "repository": github.demo.as_json(),
        "sender": {"id": 9, "login": "labrats[bot]", "type": "Bot"},
    }
    body = json_body(payload | fields)
    async with engine.client() as client:
        answer = await client.post("/webhooks/github", content=body, headers=github_headers("check_run", body))
    assert answer.status_code == 200, answer.text
    received: Json = answer.json()
    return received


async def until_handled(engine: LocalEngine, sha: str) -> None:
    """Wait until the request of a delivered failure is removed. It was stored before the delivery was answered."""
    stored = f'"id":"checks-{sha}-ci-fixer"'
    await until(lambda: not any(stored in body for body in engine.bodies_of("WebhookSource")))


async def test_a_failed_check_leads_to_a_commit_that_repairs_it(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        before = head_of(github, pull)
        run = github.demo.end_check(before, log=30_000 * "x" + LOG)
        github.demo.end_check(before, "lint", conclusion="success")
        received = await deliver_failure(engine, github, pull, run)
        assert received["jobs"] == []
        newest = (await until_jobs(admin, 2))[0]
        job = await published(admin, newest["id"])
    assert (job["status"], job["agentRole"]) == ("completed", "ci-fixer"), job["failedReason"]
    assert job["published"]["refused"] == []
    assert pull.pull
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Repair the colour", "Add a colour"]
    sticky = next(each["body"] for each in github.comments_of(pull) if '"agent ci-fixer"' in each["body"])
    assert "E assert colour == 'blue'" in sticky
    assert "[31m" not in sticky
    assert "a hidden comment was here" in sticky
    assert "Repair it." in sticky
    assert "lint" not in sticky


async def test_a_reply_after_a_repair_continues_with_the_agent_that_opened_the_pull_request(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        await deliver_failure(engine, github, pull, github.demo.end_check(head_of(github, pull), log=LOG))
        repair, first = await until_jobs(admin, 2)
        await published(admin, repair["id"])
        await comment(engine, github, pull, "Please repeat: E assert colour")
        change = await published(admin, (await until_jobs(admin, 3))[0]["id"])
    assert (change["agentRole"], change["followUpOf"]) == ("ai-developer", first["id"])
    assert change["published"]["refused"] == []
    assert pull.pull
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Repair the colour", "Repair the colour", "Add a colour"]


async def test_further_failures_of_one_commit_start_no_second_job(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        sha = head_of(github, pull)
        runs = [github.demo.end_check(sha, name, log=LOG) for name in ("tests", "more tests")]
        for run in (*runs, runs[0]):
            await deliver_failure(engine, github, pull, run)
        newest = (await until_jobs(admin, 2))[0]
        await published(admin, newest["id"])
        await deliver_failure(engine, github, pull, runs[1])
        await until_handled(engine, sha)
        assert len(await jobs_of(admin)) == 2


async def test_used_up_attempts_lead_to_one_label_and_one_comment(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        for jobs in (2, 3):
            sha = head_of(github, pull)
            await deliver_failure(engine, github, pull, github.demo.end_check(sha, log=LOG))
            newest = (await until_jobs(admin, jobs))[0]
            await published(admin, newest["id"])
        assert pull.pull
        for _ in range(2):
            sha = head_of(github, pull)
            await deliver_failure(engine, github, pull, github.demo.end_check(sha, log=LOG))
            await until_handled(engine, sha)
            github.demo.git.commit({"more.txt": sha}, branch=pull.pull.head)
        assert len(await jobs_of(admin)) == 3
    assert "needs-human" in pull.labels
    (answer,) = answers_in(github, pull)
    assert answer.startswith(
        "The checks of this pull request still fail after 2 attempts of `ci-fixer` to repair them."
    )


async def test_other_failures_start_nothing(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        github.demo.git.commit({"flag.txt": "on"}, branch="mend")
        other = github.demo.open_pull("mend")
        of_a_person = head_of(github, other)
        await deliver_failure(engine, github, other, github.demo.end_check(of_a_person, log=LOG))
        old = head_of(github, pull)
        assert pull.pull
        github.demo.git.commit({"more.txt": "more"}, branch=pull.pull.head)
        await deliver_failure(engine, github, pull, github.demo.end_check(old, log=LOG))
        head = head_of(github, pull)
        repaired = github.demo.end_check(head, log=LOG)
        github.demo.end_check(head, conclusion="success")
        github.demo.end_check(head, log=LOG, of_fork=True)
        await deliver_failure(engine, github, pull, repaired)
        for sha in (of_a_person, old, head):
            await until_handled(engine, sha)
        assert len(await jobs_of(admin)) == 1


async def test_failures_of_a_fork_with_the_same_commit_do_not_reach_the_agent(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        run = github.demo.end_check(head_of(github, pull), log=LOG)
        github.demo.end_check(head_of(github, pull), log="E assert colour == 'evil'", of_fork=True)
        await deliver_failure(engine, github, pull, run)
        newest = (await until_jobs(admin, 2))[0]
        await published(admin, newest["id"])
    sticky = next(each["body"] for each in github.comments_of(pull) if '"agent ci-fixer"' in each["body"])
    assert "E assert colour == 'blue'" in sticky
    assert "evil" not in sticky


async def test_an_unreadable_log_is_said_to_the_agent(engine: LocalEngine, github: GitHubStandIn) -> None:
    del github.access.permissions["actions"]
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        run = github.demo.end_check(head_of(github, pull), log=LOG)
        run["output"]["summary"] = "E assert colour"
        await deliver_failure(engine, github, pull, run)
        newest = (await until_jobs(admin, 2))[0]
        await published(admin, newest["id"])
    sticky = next(each["body"] for each in github.comments_of(pull) if '"agent ci-fixer"' in each["body"])
    assert "the log cannot be read: GitHub refuses the App a token" in sticky


async def test_the_bound_holds_when_github_fails_in_between(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        pull = await a_pull_request(engine, github, admin)
        run = github.demo.end_check(head_of(github, pull), log=LOG)
        github.faults.plan(Fault(502), "GET /repos/{owner}/{repo}", times=2)
        await deliver_failure(engine, github, pull, run)
        newest = (await until_jobs(admin, 2))[0]
        await published(admin, newest["id"])
        assert len([each for each in engine.resources_with('"commit"') if "ci-attempt" in each]) == 1


async def test_the_template_creates_the_agent_with_its_instruction(engine: LocalEngine) -> None:
    engine.run_labrats("agent", "create", "--template", "ci-fixer", "--url", engine.url)
    async with engine.admin() as admin:
        agent = (await admin.get("/api/agents/ci-fixer")).json()
        (trigger,) = agent["eventTriggers"]
        assert trigger["ciLoop"] == {"attemptsPerPullRequest": 3, "label": "needs-human"}
        assert trigger["instruction"] == "repair-checks"
        assert (await admin.get("/api/instructions/repair-checks")).status_code == 200
        assert agent["report"]["comment"] == "sticky"


async def test_claude_code_works_from_a_label_to_repaired_checks(
    start_engine: EngineFactory, github: GitHubStandIn
) -> None:
    commit = "git commit --all --quiet --message"
    first = f"printf 'of\\n' > flag.txt && git add flag.txt && {commit} 'Add a flag'"
    second = f"printf 'off\\n' > flag.txt && {commit} 'Correct the flag'"
    script: list[Turn] = [CLAUDE.shell(first), Says("Added."), CLAUDE.shell(second), Says("Corrected.")]
    issue = github.demo.open_issue()
    with scripted_model(MessagesApi(), script) as server:
        settings = {"LABRATS_CLAUDE_PATH": str(CLAUDE.program), "ANTHROPIC_BASE_URL": server.url}
        engine = start_reporting(start_engine, github, **settings)
        engine.run_labrats("agent", "create", "--template", "ci-fixer", "--provider", "claude", "--url", engine.url)
        async with engine.admin() as admin:
            await set_up(admin, REPORT)
            await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
            (pull,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
            run = github.demo.end_check(head_of(github, pull), log="flag.txt: expected 'off', found 'of'\n")
            await deliver_failure(engine, github, pull, run)
            newest = (await until_jobs(admin, 2))[0]
            job = await published(admin, newest["id"])
    assert (job["status"], job["agentRole"]) == ("completed", "ci-fixer"), job["failedReason"]
    assert pull.pull
    assert github.demo.git.git("show", f"{pull.pull.head}:flag.txt") == "off"
    asked = json.dumps(server.requests)
    assert "expected 'off', found 'of'" in asked
    assert "Do not skip, weaken or delete a test" in asked

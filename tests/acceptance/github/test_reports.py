"""Reports to GitHub: an event starts an agent, and its work appears where it was asked for."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine
from tests.acceptance.github.reporting import (
    COMMITTING,
    REPORT,
    a_pull_request_of,
    an_issue_of,
    deliver,
    published,
    set_up,
    start_reporting,
    until,
)
from tests.agents.claude import CLAUDE, MessagesApi
from tests.support.deliveries import github_headers, json_body
from tests.support.github import APP_LOGIN, Fault, GitHubStandIn
from tests.support.scripted_model import Says, scripted_model

TOKEN: Final = "test-npm-token-that-must-not-be-published"
JOBS: Final = 15
BRANCH: Final = "labrats/ai-developer/1"
REVIEW: Final[dict[str, Any]] = {"check": {}, "review": {"event": "REQUEST_CHANGES"}}


def visible(body: str) -> str:
    """Return a comment without its hidden parts."""
    return re.sub(r"<!--.*?-->", "", body)


async def test_a_label_leads_to_a_draft_pull_request(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (pull_request,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
    assert pull_request.pull
    assert (pull_request.title, pull_request.pull.draft, pull_request.labels) == ("[ai] Add a flag", True, ["ai"])
    assert pull_request.pull.reviewers == ["reviewer"]
    assert f"Fixes #{issue.number}" in (pull_request.body or "")
    assert "Fixes #99" not in (pull_request.body or "")
    assert github.demo.git.git("show", f"{pull_request.pull.head}:flag.txt") == "on"
    assert github.demo.git.git("log", "-1", "--format=%an %s", pull_request.pull.head) == "Agent Add a flag"
    (comment,) = github.comments_of(issue)
    assert comment["user"]["login"] == APP_LOGIN
    assert "**ai-developer** has finished." in comment["body"]
    assert "I added the flag. @\u200bocto" in comment["body"]
    assert pull_request.url in comment["body"]
    assert f"https://labrats.example.com/jobs/{job['id']}" in comment["body"]
    assert [each["content"] for each in issue.reactions] == ["eyes", "+1"]
    assert issue.labels == []
    assert job["outputs"]["pullRequestUrl"] == pull_request.url
    assert job["published"] == {
        "commentUrl": comment["html_url"],
        "checkUrl": None,
        "reviewUrl": None,
        "pullRequestUrl": pull_request.url,
        "refused": [],
        "isComplete": True,
    }
    assert engine.files_with("ghs_test_token") == []
    (scrape,) = await engine.scrapes()
    assert 'labrats_reports_total{outcome="written"} 1.0' in scrape.text


async def test_links_to_the_homepage_of_the_repository_and_to_hosts_of_the_setting_stay(
    start_engine: EngineFactory, github: GitHubStandIn, claude_program: Path
) -> None:
    hosts = ("demo.example.org", "docs.example.com", "evil.example")
    links = [f"[{host}](https://{host}/x)" for host in hosts]
    issue, github.demo.homepage = github.demo.open_issue(), "https://demo.example.org/start"
    github.demo.git.commit({"agent.py": f"publish(comment={' '.join(links)!r})"})
    engine = start_reporting(
        start_engine,
        github,
        LABRATS_LINK_HOSTS="Docs.Example.com, ci.example.com",
        LABRATS_CLAUDE_PATH=str(claude_program),
    )
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "final"})
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (comment,) = github.comments_of(issue)
    assert [link in comment["body"] for link in links] == [True, True, False]


async def test_the_check_of_a_job_about_an_issue_is_on_its_commit(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    async with engine.admin() as admin:
        await set_up(admin, REPORT | {"check": {}})
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    head = github.demo.git.resolve(BRANCH)
    assert head
    (check,) = github.check_runs_of(github.demo, head)
    assert (check["status"], check["conclusion"], check["external_id"]) == ("completed", "success", job["id"])
    assert job["published"]["checkUrl"] == check["html_url"]


async def test_claude_code_works_from_a_label_to_a_pull_request(
    start_engine: EngineFactory, github: GitHubStandIn
) -> None:
    commands = (
        "printf 'on\\n' > flag.txt && git add flag.txt",
        "git commit --quiet --message 'Add a flag'",
        """mkdir -p .labrats && echo '{"title": "Add a flag", "comment": "I added it."}' > .labrats/publish.json""",
    )
    issue = github.demo.open_issue()
    with scripted_model(MessagesApi(), [*map(CLAUDE.shell, commands), Says("All done.")]) as server:
        settings = {"LABRATS_CLAUDE_PATH": str(CLAUDE.program), "ANTHROPIC_BASE_URL": server.url}
        engine = start_reporting(start_engine, github, **settings)
        async with engine.admin() as admin:
            await set_up(admin, REPORT)
            job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert job["status"] == "completed", job["failedReason"]
    (pull_request,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
    assert pull_request.pull
    assert github.demo.git.git("show", f"{pull_request.pull.head}:flag.txt") == "on"
    assert github.demo.git.git("log", "-1", "--format=%s|%an", pull_request.pull.head) == "Add a flag|Labrats"
    (comment,) = github.comments_of(issue)
    assert "I added it." in comment["body"]
    assert pull_request.url in comment["body"]


async def test_claude_code_reviews_a_pull_request(start_engine: EngineFactory, github: GitHubStandIn) -> None:
    lines = [f"line {number}\n" for number in range(1, 41)]
    github.demo.git.commit({"long.txt": "".join(lines)})
    lines[19] = "changed\n"
    github.demo.git.commit({"long.txt": "".join(lines), "new.txt": "one\ntwo\n"}, "fix")
    issue = github.demo.open_pull("fix")
    places = (("long.txt", 20), ("new.txt", 1), ("long.txt", 2))
    findings = [{"path": path, "line": line, "title": f"Look at {path}"} for path, line in places]
    command = f"mkdir -p .labrats && echo '{json.dumps({'findings': findings})}' > .labrats/publish.json"
    with scripted_model(MessagesApi(), [CLAUDE.shell(command), Says("Three findings.")]) as server:
        settings = {"LABRATS_CLAUDE_PATH": str(CLAUDE.program), "ANTHROPIC_BASE_URL": server.url}
        engine = start_reporting(start_engine, github, **settings)
        async with engine.admin() as admin:
            await set_up(admin, REVIEW, ["pull_request.opened"])
            await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
    assert issue.pull
    (review,) = issue.pull.reviews
    assert "`long.txt:2` **warning** Look at long.txt" in review["body"]
    assert [(each["path"], each["original_line"]) for each in issue.pull.comments] == [("long.txt", 20), ("new.txt", 1)]


async def test_each_token_has_the_least_rights(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    rights = {(call.method, call.template): call.actor.permissions for call in github.writes()}
    assert rights["POST", "/repos/{owner}/{repo}/issues/{issue_number}/comments"] == {"issues": "write"}
    assert rights["POST", "/repos/{owner}/{repo}/pulls"] == {"pull_requests": "write"}
    assert all(grant["repositories"] == ["demo"] for grant in github.access.grants)
    assert {"contents": "read"} in [grant["permissions"] for grant in github.access.grants]


async def test_a_review_has_its_findings_on_the_lines_of_the_diff(engine: LocalEngine, github: GitHubStandIn) -> None:
    findings = [
        {"path": "long.txt", "line": 20, "severity": "error", "title": "Wrong", "body": "No.", "suggestion": "right"},
        {"path": "new.txt", "startLine": 1, "line": 2, "title": "Both lines"},
        {"path": "long.txt", "line": 39, "title": "Far away"},
    ]
    lines = [f"line {number}\n" for number in range(1, 41)]
    github.demo.git.commit({"long.txt": "".join(lines), "agent.py": f"publish(findings={findings!r})"})
    lines[19] = "changed\n"
    github.demo.git.commit({"long.txt": "".join(lines), "new.txt": "one\ntwo\n"}, "fix")
    issue = github.demo.open_pull("fix")
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["pull_request.opened", "pull_request.synchronize"])
        job = await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
        assert issue.pull
        (review,) = issue.pull.reviews
        assert review["state"] == "CHANGES_REQUESTED"
        assert "`long.txt:39` **warning** Far away" in review["body"]
        assert [(each["path"], each["original_line"]) for each in issue.pull.comments] == [
            ("long.txt", 20),
            ("new.txt", 2),
        ]
        assert "```suggestion\nright\n```" in issue.pull.comments[0]["body"]
        (check,) = github.check_runs_of(github.demo, issue.pull.head_sha)
        assert (check["name"], check["status"], check["conclusion"]) == ("labrats/ai-developer", "completed", "failure")
        assert check["external_id"] == job["id"]
        assert job["published"]["reviewUrl"] == review["html_url"]

        # The same findings are not repeated after a push, and a thread whose finding is gone is resolved.
        fixed = [each for each in findings if each["title"] != "Wrong"]
        github.demo.git.commit({"agent.py": f"publish(findings={fixed!r})"}, "fix")
        again = a_pull_request_of(github, issue, "synchronize")
        job = await published(admin, await deliver(engine, "pull_request", again))
    assert job["published"]["refused"] == [], [(c.body, c.status) for c in github.calls if c.template == "/graphql"]
    assert len(issue.pull.comments) == 2
    assert issue.pull.resolved.keys() == {issue.pull.comments[0]["id"]}


async def test_a_running_job_is_reported_before_its_end(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": "import time\ntime.sleep(600)"})
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job_id = await deliver(engine, "issues", an_issue_of(github, issue))
        await until(lambda: any("is working on this." in each["body"] for each in github.comments_of(issue)))
        assert issue.labels == ["ai-working"]
        await admin.post(f"/api/jobs/{job_id}/cancel", {})
        job = await published(admin, job_id)
    assert job["status"] == "cancelled"
    (comment,) = github.comments_of(issue)
    assert "**ai-developer** was cancelled." in comment["body"]
    assert issue.labels == []


async def test_a_failed_job_is_reported_with_its_reason(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        payload = an_issue_of(github, issue)
        payload["repository"]["clone_url"] = github.demo.clone_url.replace("demo", "missing")
        job = await published(admin, await deliver(engine, "issues", payload))
    (comment,) = github.comments_of(issue)
    assert "**ai-developer** has failed." in comment["body"]
    assert job["failedReason"][:40] in visible(comment["body"])
    assert issue.labels == ["ai-failed"]


async def test_a_second_job_takes_over_the_sticky_comment(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": 'result = "first"'})
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky"})
        first = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
        github.demo.git.commit({"agent.py": 'result = "second"'})
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue, again=True)))
    (comment,) = github.comments_of(issue)
    assert "second" in comment["body"]
    assert f"- `{first['id']}` has finished" in comment["body"]


async def test_a_person_who_asked_in_a_comment_gets_a_new_one_at_the_end(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": 'result = "It works."'})
    asked = github.demo.comment(issue, "Does it work?")
    comment = {"id": asked["id"], "body": asked["body"], "user": {"id": 1}, "author_association": "OWNER"}
    payload = an_issue_of(github, issue, action="created", comment=comment)
    del payload["label"]
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky", "reactions": True}, ["issue_comment.created"])
        await published(admin, await deliver(engine, "issue_comment", payload))
    _, sticky, ending = github.comments_of(issue)
    assert "It works." in sticky["body"]
    assert visible(ending["body"]).strip() == f"**ai-developer** has finished. See {sticky['html_url']}\n\nIt works."
    assert [each["content"] for each in github.demo.reactions_to(asked)] == ["eyes", "+1"]
    assert issue.reactions == []


async def test_a_deleted_comment_is_written_again(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": "import time, os\nwhile not os.path.exists('/tmp/x'): time.sleep(600)"})
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky"})
        job_id = await deliver(engine, "issues", an_issue_of(github, issue))
        await until(lambda: bool(github.comments_of(issue)))
        github.comments_of(issue).clear()
        await admin.post(f"/api/jobs/{job_id}/cancel", {})
        await published(admin, job_id)
    (comment,) = github.comments_of(issue)
    assert "was cancelled" in comment["body"]


async def test_a_job_without_changes_says_so(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": 'result = "It works already."'})
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (comment,) = github.comments_of(issue)
    assert "**ai-developer** has finished and changed nothing." in comment["body"]
    assert job["published"]["pullRequestUrl"] is None
    assert job["published"]["refused"] == []


async def test_an_agent_proposes_only_labels_that_the_policy_allows(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    for name in ("bug", "deploy"):
        github.demo.label(name)
    github.demo.git.commit({"agent.py": 'publish(comment="A bug.", labels=["Bug", "deploy", "unknown"])'})
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky", "policy": {"labels": ["bug", "unknown"]}})
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert issue.labels == ["bug"]
    assert job["published"]["refused"] == ["labels: policy.labels does not allow deploy"]


@pytest.mark.parametrize("credentials", ["app", "person"])
async def test_an_external_contributors_agent_adds_no_label_as_a_person(
    engine: LocalEngine, github: GitHubStandIn, credentials: str
) -> None:
    """The event about the label would be that of a member, and start a trusted job."""
    issue = github.demo.open_issue()
    github.demo.label("bug")
    github.demo.git.commit({"agent.py": 'publish(comment="A bug.", labels=["bug"])'})
    github.access.add_person("ghp_test_token", "octo")
    engine.set_secret("person", "token", "ghp_test_token")
    report, everybody = {"comment": "sticky", "policy": {"labels": ["bug"]}}, ["OWNER", "NONE"]
    event = an_issue_of(github, issue, action="opened", sender={"id": 2, "login": "stranger", "type": "User"})
    async with engine.admin() as admin:
        await set_up(admin, report, ["issues.opened"], credentialsRef=credentials, allowedAssociations=everybody)
        job = await published(admin, await deliver(engine, "issues", event))
    assert issue.labels == (["bug"] if credentials == "app" else [])
    assert [reason[:29] for reason in job["published"]["refused"]] == (
        [] if credentials == "app" else ["labels: with a personal token"]
    )


async def test_events_that_the_engine_causes_as_a_person_start_no_job(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    """With a personal token, the sender of these events is the token's owner, a member."""
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    github.access.add_person("ghp_test_token", "octo")
    engine.set_secret("person", "token", "ghp_test_token")
    report = REPORT | {"labels": {"running": "ai", "done": "ai-done"}}
    async with engine.admin() as admin:
        await set_up(admin, report, ["issues.*", "push"], credentialsRef="person")
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue, label={"name": "go"})))
        pushed: dict[str, Any] = {
            "ref": f"refs/heads/{BRANCH}",
            "commits": [],
            "after": github.demo.git.resolve(BRANCH),
        }
        usual = {name: an_issue_of(github, issue)[name] for name in ("repository", "sender")}
        own = [
            ("issues", an_issue_of(github, issue, label={"name": "ai"})),
            ("issues", an_issue_of(github, issue, label={"name": "ai-done"})),
            ("issues", an_issue_of(github, issue, action="unlabeled", label={"name": "ai"})),
            ("push", pushed | usual),
        ]
        async with engine.client() as client:
            for event, payload in own:
                body = json_body(payload)
                answer = await client.post("/webhooks/github", content=body, headers=github_headers(event, body))
                assert answer.json()["ignored"].startswith("the engine itself has "), answer.text
        await deliver(engine, "issues", an_issue_of(github, issue, label={"name": "by a person"}))


async def test_a_fork_gets_the_patch_in_the_comment(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.access.installed = {"octo/demo"}
    fork = github.add_repository("fork/demo", fork_of=github.demo)
    fork.git.commit({"agent.py": COMMITTING}, "mend")
    issue = github.demo.open_pull("mend", source=fork)
    payload = a_pull_request_of(github, issue)
    payload["pull_request"]["head"]["repo"] = {"id": 200, "full_name": "fork/demo"}
    async with engine.admin() as admin:
        await set_up(admin, REPORT, ["pull_request.opened"], allowForks=True)
        job = await published(admin, await deliver(engine, "pull_request", payload))
    assert job["published"]["refused"] == ["nothing is pushed to the branch of a fork"]
    assert "+on" in github.comments_of(issue)[0]["body"]


@pytest.mark.parametrize(
    ("fault", "operation", "reason"),
    [
        (Fault.forbidden(), "POST /repos/{owner}/{repo}/pulls", "no pull request: GitHub refuses it with 403"),
        (Fault(403, "denied"), "POST git-receive-pack", "no pull request: git refuses the commits"),
    ],
)
async def test_changes_that_cannot_be_pushed_become_a_patch(
    engine: LocalEngine, github: GitHubStandIn, fault: Fault, operation: str, reason: str
) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    github.faults.plan_always(fault, operation)
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (refused,) = job["published"]["refused"]
    assert refused.startswith(reason)
    (comment,) = github.comments_of(issue)
    assert "+on" in comment["body"]
    assert reason in comment["body"]
    assert github.demo.git.resolve(f"refs/heads/labrats/ai-developer/{issue.number}") is None


async def test_an_app_that_may_not_push_offers_a_patch(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.access.permissions["contents"] = "read"
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (refused,) = job["published"]["refused"]
    assert refused.startswith("no pull request: GitHub refuses the App a token for the repository")
    assert "+on" in github.comments_of(issue)[0]["body"]


async def test_a_pull_request_that_opens_late_is_found_and_not_opened_again(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    late = Fault(422, "A pull request already exists for octo:labrats/ai-developer/1.", acts=True)
    github.faults.plan(late, "POST /repos/{owner}/{repo}/pulls")
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (pull_request,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
    assert (job["published"]["pullRequestUrl"], job["published"]["refused"]) == (pull_request.url, [])


async def test_the_work_on_a_merged_pull_request_goes_to_its_base(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": COMMITTING}, "fix")
    merged = github.demo.open_pull("fix")
    event = a_pull_request_of(github, merged)
    assert merged.pull
    merged.state, merged.pull.merged = "closed", True
    github.demo.git.git("update-ref", "refs/heads/main", merged.pull.head_sha)
    async with engine.admin() as admin:
        await set_up(admin, REPORT, ["pull_request.opened"])
        await published(admin, await deliver(engine, "pull_request", event))
    (ours,) = github.pulls_of(github.demo, f"labrats/ai-developer/{merged.number}")
    assert ours.pull
    assert ours.pull.base == "main"


async def test_protected_files_lead_to_a_draft_that_names_them(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    program = 'write("docs/AGENTS.md", "x")\ncommit("Change the rules")'
    github.demo.git.commit({"agent.py": program})
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky", "pullRequest": {"draft": False}})
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (pull_request,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
    assert pull_request.pull
    assert pull_request.pull.draft
    assert "- `docs/AGENTS.md`" in (pull_request.body or "")


async def test_a_policy_that_refuses_protected_files_pushes_nothing(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": 'write("AGENTS.md", "x")\ncommit("Change the rules")'})
    policy = {"protectedFiles": {"action": "refuse"}}
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky", "pullRequest": {}, "policy": policy})
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert job["published"]["refused"] == ["the changes concern protected files: AGENTS.md"]
    assert github.calls_of("POST git-receive-pack") == []


@pytest.mark.parametrize("sign", [False, True], ids=["pushed", "signed"])
async def test_a_restored_protected_file_is_refused_as_well(
    engine: LocalEngine, github: GitHubStandIn, sign: bool
) -> None:
    issue = github.demo.open_issue()
    program = 'write("AGENTS.md", "x")\ncommit("Change the rules")\nos.remove("AGENTS.md")\ncommit("Restore them")'
    github.demo.git.commit({"agent.py": program})
    policy = {"protectedFiles": {"action": "refuse"}}
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky", "pullRequest": {"signCommits": sign}, "policy": policy})
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert job["published"]["refused"] == ["the changes concern protected files: AGENTS.md"]
    assert github.calls_of("POST git-receive-pack") == []


async def test_a_pull_request_becomes_a_draft_before_protected_files_get_there(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    rules = 'write("AGENTS.md", "x")\n    commit("Change the rules")'
    github.demo.git.commit({"agent.py": f'if "rules" in prompt:\n    {rules}\nelse:\n    commit("Add it", a__txt="a")'})
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky", "pullRequest": {"draft": False}})
        first = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
        assert [each.pull.draft for each in github.pulls_of(github.demo, BRANCH) if each.pull] == [False]
        sent = await admin.post(f"/api/jobs/{first['id']}/messages", {"prompt": "Please change the rules."})
        job = await published(admin, sent.json()["jobId"])
    assert [each.pull.draft for each in github.pulls_of(github.demo, BRANCH) if each.pull] == [True]
    assert job["published"]["refused"] == ["the pull request is a draft until a person has reviewed AGENTS.md"]
    made = [call.template for call in github.calls if call.template in ("/graphql", "git-receive-pack")]
    assert made[-2:] == ["/graphql", "git-receive-pack"]


async def test_a_job_that_may_open_no_pull_request_offers_a_patch(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    async with engine.admin() as admin:
        await set_up(admin, REPORT | {"policy": {"maxPullRequests": 0}})
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
        too_many = {"policy": {"maxPullRequests": 2}}
        refused = await admin.http.patch("/api/agents/ai-developer", json={"report": too_many})
    assert job["published"]["refused"] == ["no pull request: policy.maxPullRequests is 0"]
    assert "+on" in github.comments_of(issue)[0]["body"]
    assert github.calls_of("POST git-receive-pack") == []
    assert refused.status_code == 422
    assert "maxPullRequests" in refused.text


async def test_a_branch_with_commits_of_a_person_is_left_alone(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    branch = f"labrats/ai-developer/{issue.number}"
    theirs = github.demo.git.commit({"theirs.txt": "theirs"}, branch)
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert github.demo.git.resolve(f"refs/heads/{branch}") == theirs
    (pull_request,) = github.pulls_of(github.demo, f"{branch}-{job['id']}")
    assert job["published"]["pullRequestUrl"] == pull_request.url


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Fault.forbidden(), "comment: GitHub refuses it with 403"), (Fault.gone(), "comment: GitHub refuses it with 410")],
)
async def test_a_comment_that_github_refuses_is_recorded(
    engine: LocalEngine, github: GitHubStandIn, fault: Fault, reason: str
) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": ""})
    github.faults.plan_always(fault, "POST /repos/{owner}/{repo}/issues/{issue_number}/comments")
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky"})
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert job["published"]["refused"][0].startswith(reason)


async def test_a_locked_conversation_is_recorded(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    issue.locked = True
    github.demo.git.commit({"agent.py": ""})
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky"})
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert "locked" in job["published"]["refused"][0]


async def test_a_secondary_limit_delays_the_report(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": ""})
    operation = "POST /repos/{owner}/{repo}/issues/{issue_number}/comments"
    github.faults.plan(Fault.secondary_limit(1), operation)
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "final"})
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    first, second = github.calls_of(operation)
    assert second.at - first.at >= 1
    assert len(github.comments_of(issue)) == 1


async def test_the_checked_value_of_the_agent_decides_its_check(engine: LocalEngine, github: GitHubStandIn) -> None:
    schema = {"type": "object", "properties": {"conclusion": {"enum": ["success", "failure"]}}}
    github.demo.git.commit({"agent.py": """result = '{"conclusion": "failure"}'"""}, "fix")
    issue = github.demo.open_pull("fix")
    async with engine.admin() as admin:
        await set_up(admin, {"check": {}}, ["pull_request.opened"])
        await admin.http.patch("/api/agents/ai-developer", json={"resultSchema": schema})
        job = await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
    assert issue.pull
    assert (job["status"], job["resultData"]) == ("completed", {"conclusion": "failure"})
    (check,) = github.check_runs_of(github.demo, issue.pull.head_sha)
    assert (check["conclusion"], check["output"]["title"]) == ("failure", "the agent's conclusion: failure")


async def test_a_personal_token_writes_a_status_instead_of_a_check(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": ""}, "fix")
    issue = github.demo.open_pull("fix")
    github.access.add_person("ghp_test_token", "octo")
    engine.set_secret("person", "token", "ghp_test_token")
    async with engine.admin() as admin:
        await set_up(admin, {"comment": "sticky", "check": {}}, ["pull_request.opened"], credentialsRef="person")
        job = await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
    assert issue.pull
    latest = github.demo.statuses[issue.pull.head_sha][0]
    assert (latest["context"], latest["state"]) == ("labrats/ai-developer", "success")
    assert job["published"]["refused"] == []
    assert len(github.comments_of(issue)) == 1


async def test_the_preview_mode_writes_nothing_and_shows_everything(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    github.demo.git.commit({"agent.py": COMMITTING})
    async with engine.admin() as admin:
        await set_up(admin, REPORT | {"mode": "preview"})
        job_id = await deliver(engine, "issues", an_issue_of(github, issue))
        await admin.wait(job_id)
        found = (await admin.get(f"/api/jobs/{job_id}/report")).json()
    assert [call.operation for call in github.writes()] == []
    assert found["published"] is None
    assert "I added the flag." in found["preview"]["comment"]
    assert found["preview"]["pullRequest"]["title"] == "[ai] Add a flag"
    shown = engine.run_labrats("published", job_id, "--url", engine.url)
    assert "as a preview only" in shown
    assert "I added the flag." in shown


async def test_a_submitted_job_reports_where_it_is_told(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    body: dict[str, Any] = {"source": "manual", "type": "task", "prompt": "Do it.", "config": {"provider": "mock"}}
    target = {"repository": "octo/demo", "issue": issue.number}
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        nothing = await admin.post("/api/jobs/submit", body | {"report": {"target": target}})
        assert nothing.status_code == 422
        assert "must set `comment`" in nothing.text
        answer = await admin.post("/api/jobs/submit", body | {"report": {"comment": "perJob", "target": target}})
        assert answer.status_code == 201, answer.text
        await published(admin, answer.json()["jobId"])
    assert "**task** has finished." in github.comments_of(issue)[0]["body"]
    job_id = engine.run_labrats(
        "submit", "-p", "Do it.", "--provider", "mock", "--report", f"octo/demo#{issue.number}", "--report-with",
        "comment=perJob", "--url", engine.url,
    ).strip()  # fmt: skip
    async with engine.admin() as admin:
        await published(admin, job_id)
    assert len(github.comments_of(issue)) == 2


async def test_only_administrators_may_ask_for_a_report(engine: LocalEngine) -> None:
    report = {"comment": "perJob", "target": {"repository": "octo/demo", "issue": 1}}
    async with engine.user() as user:
        body = {"source": "manual", "type": "task", "prompt": "Do it.", "report": report}
        answer = await user.post("/api/jobs/submit", body)
    assert answer.status_code == 403
    assert "report needs an API key with the scope `admin`" in answer.text


async def test_a_report_without_credentials_is_refused_with_the_reason(start_engine: EngineFactory) -> None:
    report = {"comment": "perJob", "target": {"repository": "octo/demo", "issue": 1}}
    engine = start_engine()
    async with engine.admin() as admin:
        body = {"source": "manual", "type": "task", "prompt": "Do it.", "report": report}
        answer = await admin.post("/api/jobs/submit", body)
    assert answer.status_code == 422
    assert "no WebhookSource of type `github` has a `credentialsRef`" in answer.text


async def test_seeded_agents_of_an_earlier_version_show_what_they_lack(start_engine: EngineFactory) -> None:
    engine = start_engine()
    assert "ai-developer is missing" in engine.run_labrats("agent", "seed", "--diff", "--url", engine.url)
    async with engine.admin() as admin:
        assert (await admin.post("/api/agents/seed", {})).status_code == 200
        assert engine.run_labrats("agent", "seed", "--diff", "--url", engine.url) == ""
        earlier = {"report": None, "instructions": ["conduct", "implement-issue"]}
        assert (await admin.http.patch("/api/agents/ai-developer", json=earlier)).status_code == 200
    shown = engine.run_labrats("agent", "seed", "--diff", "--url", engine.url).splitlines()
    assert [line.partition(" is ")[0] for line in shown] == ["ai-developer: instructions", "ai-developer: report"]
    assert "not set; the default is" in shown[1]


async def test_no_secret_of_a_job_is_published(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    program = """
token = os.environ["NPM_TOKEN"]
commit("Add " + token, token__txt=token)
publish(title=token, comment="It is " + token, body=token)
"""
    github.demo.git.commit({"agent.py": program})
    engine.set_secret("npm", "token", TOKEN)
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        env = {"NPM_TOKEN": {"secret": "npm", "key": "token"}}
        assert (await admin.http.patch("/api/agents/ai-developer", json={"env": env})).status_code == 200
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert job["published"]["pullRequestUrl"] is None
    assert "no commits that can be pushed" in job["published"]["refused"][0]
    (comment,) = github.comments_of(issue)
    assert "It is [redacted]" in comment["body"]
    assert "\n+[redacted]" in comment["body"]
    assert TOKEN not in json.dumps([call.body for call in github.writes()])
    assert github.calls_of("POST git-receive-pack") == []


async def test_commits_without_a_bundle_are_reported_although_no_file_differs(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    program = """
commit("Add the token", token__txt=os.environ["NPM_TOKEN"])
os.remove("token.txt")
commit("Remove the token")
"""
    github.demo.git.commit({"agent.py": program})
    engine.set_secret("npm", "token", TOKEN)
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        env = {"NPM_TOKEN": {"secret": "npm", "key": "token"}}
        assert (await admin.http.patch("/api/agents/ai-developer", json={"env": env})).status_code == 200
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert (job["outputs"]["filesChanged"], len(job["outputs"]["commits"])) == (0, 2)
    assert "no commits that can be pushed" in job["published"]["refused"][0]
    (comment,) = github.comments_of(issue)
    assert "changed nothing" not in comment["body"]


async def test_many_jobs_of_an_issue_share_one_sticky_comment(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    report = {"comment": "sticky", "target": {"repository": "octo/demo", "issue": issue.number}}
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        submitting = [admin.submit({"result": f"number {number}"}, report=report) for number in range(JOBS)]
        job_ids = await asyncio.gather(*submitting)
        jobs = [await published(admin, job_id) for job_id in job_ids]
    (comment,) = github.comments_of(issue)
    newest = max(jobs, key=lambda job: (job["createdAt"], job["id"]))
    assert newest["returnvalue"] in comment["body"]
    assert visible(comment["body"]).count("has finished") == JOBS

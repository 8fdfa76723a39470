"""An engine that reports to a stand-in for GitHub, with an agent that executes a program of the repository."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import Engine, LocalEngine, User
from tests.support.deliveries import SECRET, an_issue_event, github_headers, json_body
from tests.support.github import APP_ID, APP_KEY_PEM, GitHubStandIn, Issue
from tests.support.impatient_labrats import constants
from tests.support.waiting import DEADLINE_SECONDS

COMMITTING: Final = """
commit("Add a flag", flag__txt="on\\n")
publish(title="Add a flag", body="It was missing. Fixes #99", comment="I added the flag. @octo")
"""
REPORT: Final[dict[str, Any]] = {
    "comment": "sticky",
    "reactions": True,
    "labels": {"running": "ai-working", "failed": "ai-failed"},
    "pullRequest": {"titlePrefix": "[ai] ", "labels": ["ai"], "reviewers": ["reviewer"]},
}
SHORTER: Final[dict[str, float | str]] = {
    "labrats.github.report_rights.PASS_SECONDS": 0.5,
    "labrats.github.source_logins.PASS_SECONDS": 0.2,
    "labrats.github.polling.poller.PASS_SECONDS": 0.1,
    "labrats.github.polling.poller.POLL_SECONDS": 0.5,
    "labrats.github.requests.commands.WAIT_FOR_JOB_SECONDS": 0.2,
    "labrats.github.requests.new_heads.WAIT_FOR_JOB_SECONDS": 0.2,
    "labrats.github.requests.repairs.WAIT_FOR_CHECKS_SECONDS": 0.5,
    "labrats.github.requests.repairs.WAIT_FOR_JOB_SECONDS": 0.2,
    "labrats.github.requests.replies.WAIT_FOR_JOB_SECONDS": 0.2,
    "labrats.github.client.app._MIN_RETRY_SECONDS": 1,
    "labrats.github.client.repository.FIRST_DOUBT_SECONDS": 0.01,
    "labrats.github.client.repository.UNREACHABLE_SECONDS": 0.5,
}
"""Waits before further requests to GitHub, whose stand-in needs no rest, and before further looks at a job."""


def start_reporting(start_engine: EngineFactory, github: GitHubStandIn, **environment: str) -> LocalEngine:
    """Start an engine for which the stand-in is GitHub, with the credentials of an App."""
    engine = start_engine(
        LABRATS_GITHUB_API_URL=github.url,
        OUTBOUND_ALLOWED_CIDRS="127.0.0.0/8",
        ANTHROPIC_API_KEY="test-key-of-a-stand-in",
        LABRATS_PUBLIC_URL="https://labrats.example.com",
        LABRATS_SANDBOX="false",
        LABRATS_ALLOW_UNTRUSTED="true",
        LABRATS_REPORT_INTERVAL_SECONDS="0.1",
        **constants(SHORTER),
        **environment,
    )
    engine.set_secret("app", "appId", APP_ID)
    engine.set_secret("app", "privateKey", APP_KEY_PEM)
    return engine


def start_connectable(start_engine: EngineFactory, github: GitHubStandIn) -> LocalEngine:
    """Start an engine without credentials for GitHub, whose jobs run on the mock provider unless they say otherwise."""
    return start_engine(
        LABRATS_GITHUB_API_URL=github.url,
        OUTBOUND_ALLOWED_CIDRS="127.0.0.0/8",
        LABRATS_REPORT_INTERVAL_SECONDS="0.1",
        **constants(SHORTER),
    )


async def set_up(admin: User, report: dict[str, Any], events: list[str] | None = None, **source: Any) -> None:
    """Create a webhook source with credentials, and an agent with a report."""
    agent = {
        "name": "ai-developer",
        "eventTriggers": [{"source": "github", "events": events or ["issues.labeled"], "instruction": "Do it."}],
        "defaultProvider": "claude",
        "report": report,
    }
    with_credentials = {"name": "github", "type": "github", "secret": SECRET, "credentialsRef": "app"} | source
    for path, body in (("/api/agents", agent), ("/api/webhook-sources", with_credentials)):
        answer = await admin.post(path, body)
        assert answer.status_code == 201, answer.text


def an_issue_of(github: GitHubStandIn, issue: Issue, **fields: Any) -> dict[str, Any]:
    payload = an_issue_event(**fields)
    payload["issue"] |= {"number": issue.number, "title": issue.title}
    payload["repository"] |= {"clone_url": github.demo.clone_url, "html_url": github.demo.url}
    return payload


def a_pull_request_of(github: GitHubStandIn, issue: Issue, action: str = "opened") -> dict[str, Any]:
    pull = github.demo.refresh(issue)
    assert pull
    head = {"ref": pull.head, "sha": pull.head_sha, "repo": {"id": 100, "full_name": "octo/demo"}}
    event = an_issue_of(github, issue)
    event.pop("issue")
    event.pop("label")
    pull_request = {
        "number": issue.number,
        "title": issue.title,
        "state": "open",
        "user": {"id": 1, "login": "octo"},
        "author_association": "MEMBER",
        "head": head,
    }
    return event | {"action": action, "pull_request": pull_request}


async def deliver(engine: Engine, event: str, payload: dict[str, Any]) -> str:
    """Deliver an event and return the id of its job."""
    body = json_body(payload)
    async with engine.client() as client:
        answer = await client.post("/webhooks/github", content=body, headers=github_headers(event, body))
    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    return str(job["jobId"])


async def published(admin: User, job_id: str, seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
    """Wait until the report of the job's end is written, and return the job. seconds: between the two."""
    await admin.wait(job_id)
    async with asyncio.timeout(seconds):
        while True:
            job = await admin.job(job_id)
            if job["published"] and job["published"]["isComplete"]:
                return job
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)

"""The condition `Reports` of a webhook source: what its App lacks for reports."""

import asyncio
from typing import Any

import pytest

from labrats.controller.report_rights import PASS_SECONDS
from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import REPORT, set_up
from tests.support.github import Fault, GitHubStandIn
from tests.support.waiting import DEADLINE_SECONDS


async def condition(admin: User) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            source = (await admin.get("/api/webhook-sources/github")).json()
            found: list[dict[str, Any]] = [each for each in source["conditions"] if each["type"] == "Reports"]
            if found:
                return found[0]
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("lacking", "events", "reason", "message"),
    [
        ((), ["issues"], "Granted", "the App may do what reports and agents need"),
        (
            ("checks", "contents"),
            ["issues"],
            "PermissionsMissing",
            "the App lacks the permissions checks: write, contents: write, which reports and agents need",
        ),
        ((), [], "EventsMissing", "the App does not subscribe to the events issues, to which agents listen"),
    ],
)
async def test_the_source_says_what_its_app_lacks(
    engine: LocalEngine, github: GitHubStandIn, lacking: tuple[str, ...], events: list[str], reason: str, message: str
) -> None:
    for name in lacking:
        del github.access.permissions[name]
    github.access.events = events
    async with engine.admin() as admin:
        await set_up(admin, REPORT | {"check": {}})
        found = await condition(admin)
    assert (found["status"], found["reason"], found["message"]) == (str(reason == "Granted"), reason, message)


async def test_an_unreachable_github_is_asked_rarely(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.faults.plan_always(Fault(503), "GET /app")
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        found = await condition(admin)
        await asyncio.sleep(2 * PASS_SECONDS + 1)  # further passes ask nothing
    assert (found["status"], found["reason"]) == ("False", "Unreachable")
    assert len(github.calls_of("GET /app")) == 1


async def test_an_app_that_github_does_not_know_is_reported(engine: LocalEngine, github: GitHubStandIn) -> None:
    engine.set_secret("app", "appId", "1")
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        found = await condition(admin)
    assert (found["status"], found["reason"]) == ("False", "Refused")
    assert "GitHub does not know the App" in found["message"]

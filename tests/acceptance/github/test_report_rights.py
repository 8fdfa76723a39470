"""The condition `Reports` of a webhook source in the API. tests/github/test_report_rights.py has its other values."""

import asyncio
from typing import Any

from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import REPORT, set_up
from tests.support.github import GitHubStandIn
from tests.support.waiting import DEADLINE_SECONDS


async def condition(admin: User) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            source = (await admin.get("/api/webhook-sources/github")).json()
            found: list[dict[str, Any]] = [each for each in source["conditions"] if each["type"] == "Reports"]
            if found:
                return found[0]
            await asyncio.sleep(0.1)


async def test_the_source_says_what_its_app_lacks(engine: LocalEngine, github: GitHubStandIn) -> None:
    for name in ("checks", "contents"):
        del github.access.permissions[name]
    async with engine.admin() as admin:
        await set_up(admin, REPORT | {"check": {}})
        found = await condition(admin)
    lacking = "the App lacks the permissions checks: write, contents: write, which reports and agents need"
    assert (found["status"], found["reason"], found["message"]) == ("False", "PermissionsMissing", lacking)

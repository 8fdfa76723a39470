"""The condition `Reports` of a webhook source: what its App lacks for reports. Passes follow each other at once."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from labrats.github.client.app import GitHub
from labrats.github.report_rights import PASS_SECONDS, REPORTS, UNREACHABLE_SECONDS, ReportRights
from labrats.index.catalog import Catalog
from labrats.model.condition import Condition
from labrats.model.core_resources import Secret
from labrats.model.record import Metadata
from labrats.model.report import CheckReport, CommentMode, PullRequestReport, Report, StateLabels
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background
from tests.support.builders import a_trigger, an_agent
from tests.support.github import APP_ID, APP_KEY_PEM, Fault, GitHubStandIn

REPORT: Final = Report(
    comment=CommentMode.STICKY,
    reactions=True,
    labels=StateLabels(running="ai-working", failed="ai-failed"),
    pull_request=PullRequestReport(),
    check=CheckReport(),
)
CREDENTIALS: Final = {"appId": APP_ID, "privateKey": APP_KEY_PEM}


class Enough(Exception):
    """A clock's passes are used up."""


class PassClock(FakeClock):
    """A clock whose sleeps take no time. The one after the last pass raises Enough."""

    passes = 1

    async def sleep(self, seconds: float) -> None:
        self.step(seconds)
        self.passes -= 1
        if self.passes == 0:
            raise Enough


class Rights:
    """A source with an App and a report, whose condition is reviewed pass by pass."""

    def __init__(self, store: MemoryStore, clock: PassClock, rights: ReportRights) -> None:
        self._store, self._clock, self._rights = store, clock, rights

    async def after(self, passes: int) -> Condition:
        """Return the condition after further passes."""
        self._clock.passes = passes
        with pytest.raises(Enough):
            async with asyncio.timeout(30):
                await self._rights.run()
        source = await self._store.get(WebhookSource, "github")
        (condition,) = (each for each in source.status.conditions if each.type == REPORTS)
        return condition


@asynccontextmanager
async def reviewed(
    github: GitHubStandIn, credentials: Mapping[str, str] = CREDENTIALS, **source: Any
) -> AsyncIterator[Rights]:
    clock, catalog = PassClock(), Catalog()
    store = MemoryStore(clock)
    spec = WebhookSourceSpec(type="github", credentials_ref="app", **source)
    await store.create(Secret(metadata=Metadata(name="app"), data=dict(credentials)))
    await store.create(WebhookSource(metadata=Metadata(name="github"), spec=spec))
    await store.create(an_agent("ai-developer", a_trigger(), report=REPORT))
    async with run_in_background(catalog.follow(store)):
        yield Rights(store, clock, ReportRights(store, catalog, GitHub(github.url, clock), clock))


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
    github: GitHubStandIn, lacking: tuple[str, ...], events: list[str], reason: str, message: str
) -> None:
    for name in lacking:
        del github.access.permissions[name]
    github.access.events = events
    async with reviewed(github) as rights:
        found = await rights.after(1)
    assert (found.status, found.reason, found.message) == (str(reason == "Granted"), reason, message)


async def test_an_app_whose_events_are_read_needs_to_subscribe_to_none(github: GitHubStandIn) -> None:
    github.access.events = []
    async with reviewed(github, mode="poll", repositories=("octo/demo",)) as rights:
        found = await rights.after(1)
    assert (found.status, found.reason) == ("True", "Granted")


async def test_an_unreachable_github_is_asked_rarely(github: GitHubStandIn) -> None:
    github.faults.plan_always(Fault(503), "GET /app")
    passes = int(UNREACHABLE_SECONDS / PASS_SECONDS)
    async with reviewed(github) as rights:
        found = await rights.after(passes)
        assert (found.status, found.reason) == ("False", "Unreachable")
        assert len(github.calls_of("GET /app")) == 1
        await rights.after(1)
        assert len(github.calls_of("GET /app")) == 2


async def test_an_app_that_github_does_not_know_is_reported(github: GitHubStandIn) -> None:
    async with reviewed(github, CREDENTIALS | {"appId": "1"}) as rights:
        found = await rights.after(1)
    assert (found.status, found.reason) == ("False", "Refused")
    assert "GitHub does not know the App" in found.message

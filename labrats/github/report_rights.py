"""The condition `Reports` of webhook sources: whether their App may do what the reports and agents need."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from labrats.github.client.app import App
from labrats.github.source_loop import for_each_source
from labrats.index.catalog import Catalog
from labrats.index.source_conditions import app_credentials, store_condition
from labrats.model.agent import AiAgent
from labrats.model.condition import Condition, condition_factory
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.report import CommentMode, Report
from labrats.model.webhook_source import GITHUB, WebhookSource
from labrats.ports import Clock, Store

PASS_SECONDS: Final = 5.0
"""Interval of the passes over all sources."""

APP_SECONDS: Final = 300.0
"""Time for which the rights of an App count as known."""

UNREACHABLE_SECONDS: Final = 30.0
"""Time after which GitHub is asked again if it could not answer."""

REPORTS: Final = "Reports"
_LEVELS: Final = {"read": 1, "write": 2, "admin": 3}


class Apps(Protocol):
    """The part of labrats/github/client/app.py that describes an App. Errors are documented there."""

    async def app(self, credentials: Mapping[str, str]) -> App: ...


@dataclass(frozen=True)
class _Known:
    """The rights of an App, and the time at which they were read.

    reason, problem: why the rights are unknown, for programs and for people. due: time at which they are read again.
    """

    app: App | None
    at: datetime
    due: datetime
    reason: str = ""
    problem: str = ""


class ReportRights:
    """Maintains the condition of each source that has an App and a report."""

    def __init__(self, store: Store, catalog: Catalog, apps: Apps, clock: Clock) -> None:
        self._store, self._catalog, self._apps, self._clock = store, catalog, apps, clock
        self._known: dict[tuple[str, str], _Known] = {}

    async def run(self) -> None:
        """Check all sources periodically, until cancelled."""
        await for_each_source(self._catalog, self._clock, PASS_SECONDS, self._review, "check of rights")

    async def _review(self, source: WebhookSource) -> None:
        await store_condition(self._store, source, REPORTS, await self._condition(source))

    async def _condition(self, source: WebhookSource) -> Condition | None:
        """Return the condition of a source; None if it has no App, or nothing is reported."""
        needed = dict(needed_rights(self._catalog.agents, source))
        if not needed or (credentials := await app_credentials(self._store, source)) is None:
            return None
        known = await self._rights(source, credentials)
        report = condition_factory(known.at.replace(microsecond=0))
        if known.app is None:
            return report(REPORTS, False, known.reason, f"the rights of the App are unknown: {known.problem}")
        granted = known.app.permissions
        lacking = [
            f"{name}: {level}"
            for name, level in sorted(needed.items())
            if _LEVELS.get(granted.get(name, ""), 0) < _LEVELS[level]
        ]
        if lacking:
            message = f"the App lacks the permissions {', '.join(lacking)}, which reports and agents need"
            return report(REPORTS, False, "PermissionsMissing", message)
        unheard = sorted(events_of(self._catalog.agents) - set(known.app.events))
        if unheard and not source.spec.polls:
            message = f"the App does not subscribe to the events {', '.join(unheard)}, to which agents listen"
            return report(REPORTS, False, "EventsMissing", message)
        return report(REPORTS, True, "Granted", "the App may do what reports and agents need")

    async def _rights(self, source: WebhookSource, credentials: Mapping[str, str]) -> _Known:
        key, now = (source.name, source.spec.credentials_ref or ""), self._clock.now()
        known = self._known.get(key)
        if known is None or now >= known.due:
            later = now + timedelta(seconds=APP_SECONDS)
            try:
                known = _Known(await self._apps.app(credentials), now, later)
            except GiveUp as error:
                known = _Known(None, now, later, "Refused", str(error))
            except RetryLater as error:
                known = _Known(None, now, now + timedelta(seconds=UNREACHABLE_SECONDS), "Unreachable", str(error))
            self._known[key] = known
        return known


def needed_rights(agents: Iterable[AiAgent], source: WebhookSource | None = None) -> Iterator[tuple[str, str]]:
    """Yield the permissions that the reports of a source's jobs need, as GitHub names them. A later one is no less."""
    triggers = [(agent, each) for agent in agents for each in agent.spec.event_triggers if each.source == GITHUB]
    layers = [source.spec.report, *(each.report for each in source.spec.repo_overrides.values())] if source else []
    layers += [layer for agent, trigger in triggers for layer in (agent.spec.report, trigger.report)]
    if any(trigger.ci_loop for _, trigger in triggers):
        yield from (("actions", "read"), ("checks", "read"))
    for report in filter(None, layers):
        yield from _rights_for(report)


def _rights_for(report: Report) -> Iterator[tuple[str, str]]:
    if report.comment not in (None, CommentMode.NONE) or report.labels or report.reactions:
        yield from (("issues", "write"), ("pull_requests", "write"))
    if report.check and report.check.enabled:
        yield ("checks", "write")
    if report.review and report.review.enabled:
        yield ("pull_requests", "write")
    if report.pull_request and report.pull_request.enabled:
        yield from (("contents", "write"), ("pull_requests", "write"))


def events_of(agents: Iterable[AiAgent]) -> set[str]:
    """Return the events of GitHub, without actions and globs, to which enabled triggers listen."""
    triggers = (each for agent in agents if agent.spec.enabled for each in agent.spec.event_triggers)
    names = {
        name.partition(".")[0] for each in triggers if each.enabled and each.source == GITHUB for name in each.events
    }
    return {name for name in names if name.isidentifier()}

"""The reader of all webhook sources in the mode `poll`. One process runs it, for all agents."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.github.client.access import GitHubAccess, NoAccess
from labrats.github.client.repository import MayPass, RefusedByGitHub
from labrats.github.polling.reader import OVERLAP, Reading, RepositoryReader
from labrats.github.report_rights import events_of
from labrats.github.source_loop import for_each_source
from labrats.index.catalog import Catalog
from labrats.index.source_conditions import with_conditions
from labrats.intake.forge import EventTaker
from labrats.intake.polled_events import fingerprint_of_polled
from labrats.model.condition import Condition, condition_factory
from labrats.model.errors import LabratsError, NotFound, RetryLater
from labrats.model.report import ReportTarget
from labrats.model.webhook_source import GITHUB, PollCursor, WebhookSource
from labrats.ports import Clock, Store, compare_and_set

log = structlog.get_logger()

POLL_SECONDS: Final = 60.0
"""Interval of the readings of one repository."""

PASS_SECONDS: Final = 1.0
"""Interval at which the reader looks for repositories that are due."""

OPEN_FOR: Final = timedelta(minutes=10)
"""Time after which a repository is looked up again, which may have another name or other credentials by then."""

YOUNG: Final = timedelta(minutes=5)
"""Age up to which the first reading of a source begins at its creation. Later it begins at that reading."""

POLLING: Final = "Polling"
_SEEN: Final = 1000
_SHOWN: Final = 3
_FINGERPRINT_CHARACTERS: Final = 16

_ADVICE: Final[Mapping[int, str]] = {
    0: "check the Secret in `credentialsRef`, and that the App is installed for the repository",
    401: "store valid credentials in the Secret that `credentialsRef` names",
    403: "give the App the permissions that it lacks, and accept them in the settings of its installation",
    404: "install the App for the repository, or remove the repository from `repositories`",
    410: "remove the repository from `repositories`, or turn on its issues",
}


@dataclass
class _State:
    """A repository of a source while this process reads it.

    due:     time of its next reading.
    cursor:  how far this process has read it.
    problem: of the last reading.
    """

    due: datetime
    reader: RepositoryReader | None = None
    opened_at: datetime | None = None
    cursor: PollCursor | None = None
    problem: str | None = None
    is_refused: bool = False


@dataclass
class Poller:
    """Reads the repositories of each source one after the other. An error of one does not stop the others."""

    store: Store
    catalog: Catalog
    access: GitHubAccess
    polled: EventTaker
    clock: Clock
    _states: dict[tuple[str, str], _State] = field(default_factory=dict)

    async def run(self) -> None:
        """Read periodically, until cancelled."""
        await for_each_source(self.catalog, self.clock, PASS_SECONDS, self._read_source, "polling")

    async def _read_source(self, source: WebhookSource) -> None:
        """Read the repositories that are due, and store how far they are read, in one write."""
        if not (source.spec.polls and source.spec.enabled and source.spec.type == GITHUB):
            return
        key, now = source.metadata.uid, self.clock.now()
        states = {name: self._states.setdefault((key, name.lower()), _State(now)) for name in source.spec.repositories}
        if not (due := {name: state for name, state in states.items() if state.due <= now}):
            return
        stored = await self.store.get(WebhookSource, source.name)
        readings = []
        for name, state in due.items():
            state.due = now + timedelta(seconds=POLL_SECONDS)  # also after a bug
            readings.append(await self._read(stored, name, state))
        await self._store(source, states, [reading for reading in readings if reading])

    async def _read(self, source: WebhookSource, name: str, state: _State) -> Reading | None:
        """Read one repository, and take its events. Return None after an error, which the state describes then."""
        cursor = state.cursor or source.status.polled.get(name.lower())
        try:
            reader = await self._reader(source, name, state)
            age = self.clock.now() - (source.metadata.created_at or self.clock.now())
            age = max(timedelta(0), age if age < YOUNG else timedelta(0))
            login = source.status.login
            reading = await reader.read(cursor.since if cursor else None, age, events_of(self.catalog.agents), login)
            state.cursor = await self._take(source, cursor, reading)
        except (LabratsError, NoAccess) as error:
            state.reader = None  # what it knows may not have been taken: everything is read again
            state.problem, state.is_refused = _problem_of(error)
            if isinstance(error, RetryLater):
                again = self.clock.now() + timedelta(seconds=error.delay_seconds)
                state.due = min(state.due, again) if isinstance(error, MayPass) else max(state.due, again)
            log.warning("repository not read", source=source.name, repository=name, reason=str(error))
            return None
        state.problem = None
        state.due = max(state.due, self.clock.now() + timedelta(seconds=reading.wait_seconds))
        return reading

    async def _reader(self, source: WebhookSource, name: str, state: _State) -> RepositoryReader:
        """Return the reader of a repository. Raises NoAccess, RetryLater."""
        now = self.clock.now()
        if state.reader is None or state.opened_at is None or now - state.opened_at > OPEN_FOR:
            access = await self.access.open(ReportTarget(repository=name, source=source.name), f"poll {name}")
            if state.reader is None:
                state.reader = RepositoryReader(access.repository)
            state.reader.repository, state.opened_at = access.repository, now
        return state.reader

    async def _take(self, source: WebhookSource, cursor: PollCursor | None, reading: Reading) -> PollCursor:
        """Take the events that are new, and return the new cursor. Raises RetryLater."""
        cursor = cursor or PollCursor(since=reading.start)
        since = max(reading.at - OVERLAP, cursor.since)
        seen = dict.fromkeys(cursor.seen)
        kept: list[str] = []
        for each in reading.events:
            fingerprint = fingerprint_of_polled(source, each.event, each.id)
            short = fingerprint[:_FINGERPRINT_CHARACTERS]
            if short not in seen:
                await self.polled.take(source, each.event, fingerprint)
            if each.at >= since:
                kept.append(short)
        return PollCursor(since=since, seen=tuple(kept[-_SEEN:]), skipped=cursor.skipped + reading.skipped)

    async def _store(self, source: WebhookSource, states: Mapping[str, _State], readings: Sequence[Reading]) -> None:
        """Store how far the repositories are read, and the condition of all. Raises RetryLater."""
        now = self.clock.now().replace(microsecond=0)
        names = {each.lower() for each in states}
        cursors = {name.lower(): state.cursor for name, state in states.items() if state.cursor}
        next_at = min(state.due for state in states.values()).replace(microsecond=0)

        def change(stored: WebhookSource) -> WebhookSource:
            status = stored.status
            polled = {name: known for name, known in status.polled.items() if name in names} | cursors
            skipped = sum(each.skipped for each in polled.values())
            condition = _condition(now, states, skipped)
            return replace(
                stored,
                status=replace(
                    status,
                    polled=polled,
                    last_polled_at=now if readings else status.last_polled_at,
                    next_poll_at=next_at,
                    rate_remaining=readings[-1].remaining if readings else status.rate_remaining,
                    conditions=with_conditions(status.conditions, [condition]),
                ),
            )

        with suppress(NotFound):  # the source was deleted
            await compare_and_set(self.store, lambda: self.store.get(WebhookSource, source.name), change)


def _condition(now: datetime, states: Mapping[str, _State], skipped: int) -> Condition:
    report = condition_factory(now)
    failing = {name: state for name, state in states.items() if state.problem}
    if not failing:
        if skipped:
            message = f"all repositories are read; events older than 24 hours, which started nothing: {skipped}"
            return report(POLLING, True, "EventsSkipped", message)
        return report(POLLING, True, "UpToDate", "all repositories are read")
    shown = "; ".join(f"{name}: {state.problem}" for name, state in list(failing.items())[:_SHOWN])
    more = f"; and {len(failing) - _SHOWN} more" if len(failing) > _SHOWN else ""
    is_refused = any(state.is_refused for state in failing.values())
    return report(POLLING, False, "Refused" if is_refused else "Unreachable", f"{shown}{more}")


def _problem_of(error: Exception) -> tuple[str, bool]:
    """Return the problem with the next step, and whether only a person can solve it."""
    refusal = error.refusal if isinstance(error, MayPass) else error
    if isinstance(refusal, RefusedByGitHub):
        return f"{refusal}; {_ADVICE.get(refusal.status, _ADVICE[0])}", True
    if isinstance(refusal, NoAccess):
        return str(refusal), True
    return f"{refusal}; it is read again soon", False

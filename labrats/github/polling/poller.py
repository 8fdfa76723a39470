"""The reader of all webhook sources in the mode `poll`. One process runs it, for all agents."""

from collections.abc import Mapping
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
    """A repository of a source while this process reads it. due: time of its next reading. problem: of the last one."""

    due: datetime
    reader: RepositoryReader | None = None
    opened_at: datetime | None = None
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
        await self.catalog.synced.wait()
        while True:
            for source in self.catalog.webhook_sources:
                if source.spec.polls and source.spec.enabled and source.spec.type == GITHUB:
                    try:
                        await self._read_source(source)
                    except LabratsError as error:
                        log.warning("polling postponed", source=source.name, reason=str(error))
                    except Exception:  # a bug that one source triggers must not end the engine
                        log.exception("polling postponed", source=source.name)
            await self.clock.sleep(PASS_SECONDS)

    async def _read_source(self, source: WebhookSource) -> None:
        """Read the repositories that are due, and store how far they are read."""
        key, now = source.metadata.uid, self.clock.now()
        names = source.spec.repositories
        states = {name: self._states.setdefault((key, name.lower()), _State(now)) for name in names}
        for name, state in states.items():
            if state.due <= self.clock.now():
                await self._read(source, name, state, states)

    async def _read(self, source: WebhookSource, name: str, state: _State, states: Mapping[str, _State]) -> None:
        """Read one repository: its events are taken, and then its cursor is stored."""
        delay, reading, cursor = POLL_SECONDS, None, None
        state.due = self.clock.now() + timedelta(seconds=delay)  # also after a bug
        try:
            stored = await self.store.get(WebhookSource, source.name)
            cursor = stored.status.polled.get(name.lower())
            reader = await self._reader(source, name, state)
            age = self.clock.now() - (source.metadata.created_at or self.clock.now())
            age = max(timedelta(0), age if age < YOUNG else timedelta(0))
            reading = await reader.read(
                cursor.since if cursor else None, age, events_of(self.catalog), stored.status.login
            )
            cursor = await self._take(source, cursor, reading)
            state.problem, delay = None, max(POLL_SECONDS, reading.wait_seconds)
        except NotFound:
            return  # the source was deleted
        except (LabratsError, NoAccess) as error:
            reading, state.reader = None, None  # what it knows may not have been taken: everything is read again
            state.problem, state.is_refused = _problem_of(error)
            delay = min(POLL_SECONDS, error.delay_seconds) if isinstance(error, MayPass) else POLL_SECONDS
            if isinstance(error, RetryLater) and not isinstance(error, MayPass):
                delay = max(POLL_SECONDS, error.delay_seconds)
            log.warning("repository not read", source=source.name, repository=name, reason=str(error))
        state.due = self.clock.now() + timedelta(seconds=delay)
        await self._store(source, name, cursor if reading else None, reading, states)

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

    async def _store(
        self,
        source: WebhookSource,
        name: str,
        cursor: PollCursor | None,
        reading: Reading | None,
        states: Mapping[str, _State],
    ) -> None:
        """Store how far a repository is read, and the condition of all. Raises RetryLater."""
        now = self.clock.now().replace(microsecond=0)
        names = {each.lower() for each in source.spec.repositories}
        next_at = min(state.due for state in states.values()).replace(microsecond=0)

        def change(stored: WebhookSource) -> WebhookSource:
            status = stored.status
            polled = {each: known for each, known in status.polled.items() if each in names}
            if cursor:
                polled[name.lower()] = cursor
            skipped = sum(each.skipped for each in polled.values())
            condition = _condition(now, states, skipped)
            return replace(
                stored,
                status=replace(
                    status,
                    polled=polled,
                    last_polled_at=now if reading else status.last_polled_at,
                    next_poll_at=next_at,
                    rate_remaining=reading.remaining if reading else status.rate_remaining,
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

"""The events of webhook sources: each starts agents, or becomes requests from its thread, however it came here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from labrats.index.catalog import Catalog
from labrats.intake.admission import Admission
from labrats.intake.deliveries import Delivery, store_fingerprint, stored_fingerprint
from labrats.intake.event_authorization import reason_to_ignore
from labrats.intake.event_requests import event_requests
from labrats.intake.event_starts import release_starts, reserve_starts, thread_of
from labrats.intake.events import IncomingEvent, why_no_agent
from labrats.intake.forge import Forge, ThreadEvent
from labrats.intake.job_names import NamesOfAgent
from labrats.intake.thread_requests import add_request
from labrats.model.errors import Invalid, NoSandbox
from labrats.model.job import Job
from labrats.model.webhook_source import (
    COMMAND,
    GITHUB,
    IGNORED,
    LONGEST_NOTE,
    STARTED,
    UNMATCHED,
    DeliveryRecord,
    WebhookSource,
)
from labrats.ports import Clock, Store

MOST_JOBS: Final = 10
"""Jobs that the record of a delivery names."""

_NO_SANDBOX: Final = (
    "No agent was started: the engine's machine has no working sandbox, and only its administrators may run agents "
    "without one. An administrator can install bubblewrap, or allow this with `LABRATS_SANDBOX=false`."
)

_TOO_MANY: Final = (
    "Not every agent was started: events may start {} jobs for an issue or pull request within an hour. Agents may be "
    "starting each other. An administrator can change the limit, `LABRATS_EVENT_JOBS_PER_THREAD`."
)


@dataclass(frozen=True)
class Result:
    """The result of an event. jobs: by the names of their agents. ignored: why it starts no agent, as a sentence."""

    outcome: str
    jobs: Mapping[str, Job] = field(default_factory=dict)
    ignored: str | None = None
    command: str | None = None


def record_of(at: datetime, event: IncomingEvent | None, result: Result) -> DeliveryRecord:
    """Return the record of an event for the status of its source."""
    name, repo = (event.name, event.text("repository", "full_name")) if event else (None, None)
    reason = f"it has the command `{result.command}`" if result.command else result.ignored
    return DeliveryRecord(
        at=at,
        outcome=result.outcome,
        event=name and name[:LONGEST_NOTE],
        repo=repo and repo[:LONGEST_NOTE],
        reason=reason and reason[:LONGEST_NOTE],
        jobs=tuple(job.id for job in result.jobs.values())[:MOST_JOBS],
    )


@dataclass(frozen=True)
class EventIntake:
    """Takes events. jobs_per_thread: see LABRATS_EVENT_JOBS_PER_THREAD.

    names_for: returns the names of the jobs of an event with a fingerprint, always the same.
    """

    store: Store
    catalog: Catalog
    forge: Forge
    admission: Admission
    clock: Clock
    jobs_per_thread: int
    names_for: Callable[[str], NamesOfAgent]

    async def take(self, delivery: Delivery) -> Result:
        """Store the jobs or the requests of an event. Raises LabratsError."""
        source, event = delivery.source, delivery.event
        thread_event = self.forge.thread_event(event, source, self.catalog, delivery.fingerprint)
        if thread_event and not thread_event.is_reply:
            return await self._add_requests(source, thread_event)
        if source.spec.type == GITHUB and (reason := await self._reason_to_ignore(delivery)):
            if thread_event:  # a comment alone does not show whether its pull request is from a fork
                return await self._add_requests(source, thread_event)
            return Result(IGNORED, ignored=reason)
        requests = await event_requests(event, self.catalog, delivery.owner, source)
        first_fingerprint = await stored_fingerprint(self.store, delivery)
        wanted = len(requests)
        requests = requests[: await self._reserve(delivery, first_fingerprint, wanted)]
        try:
            jobs = await self.admission.admit_all(requests, self.names_for(first_fingerprint))
        except Invalid as error:
            if thread := _thread_with_limit(source, event):
                await release_starts(self.store, source, thread, first_fingerprint)
            if not isinstance(error, NoSandbox):
                raise
            return await self._refuse_without_sandbox(source, event, error)
        if jobs:
            await store_fingerprint(self.store, delivery, next(iter(jobs.values())))
            return Result(STARTED, jobs)
        if thread_event:
            return await self._add_requests(source, thread_event)
        if wanted:
            return Result(IGNORED, ignored=self._too_many())
        return Result(UNMATCHED, ignored=why_no_agent(event, self.catalog.agents))

    async def _reason_to_ignore(self, delivery: Delivery) -> str | None:
        """Return why an event of GitHub starts no agent, as a sentence; None if it may start some."""
        source, event = delivery.source, delivery.event
        if (reason := reason_to_ignore(event, source.spec)) or source.spec.credentials_ref is None:
            return reason
        if not self.forge.may_be_own(event):
            return None
        stored = await self.store.get(WebhookSource, source.name)  # the catalog may be older than the write
        return self.forge.reason_of_own_event(event, stored)

    async def _reserve(self, delivery: Delivery, fingerprint: str, wanted: int) -> int:
        """Return how many of the wanted jobs the event may start. If these are fewer, a comment says so."""
        source, event, most = delivery.source, delivery.event, self.jobs_per_thread
        if not wanted or (thread := _thread_with_limit(source, event)) is None:
            return wanted
        granted = await reserve_starts(self.store, source, thread, fingerprint, wanted, most, self.clock.now())
        notice = self.forge.notice(event, source, f"too-many-jobs {thread}", _TOO_MANY.format(most))
        if granted < wanted and notice:
            await add_request(self.store, source, notice)
        return granted

    def _too_many(self) -> str:
        most = self.jobs_per_thread
        reason = f"events have started {most} jobs for this issue or pull request within an hour"
        return f"{reason} (LABRATS_EVENT_JOBS_PER_THREAD)"

    async def _refuse_without_sandbox(self, source: WebhookSource, event: IncomingEvent, error: NoSandbox) -> Result:
        """Say in the thread of the event why it starts no agent."""
        if notice := self.forge.notice(event, source, "no-sandbox", _NO_SANDBOX):
            await add_request(self.store, source, notice)
        return Result(IGNORED, ignored=f"no agent may run: {error}")

    async def _add_requests(self, source: WebhookSource, thread_event: ThreadEvent) -> Result:
        """Store the requests of an event in a thread."""
        for request in thread_event.requests:
            await add_request(self.store, source, request)
        if thread_event.command:
            return Result(COMMAND, command=thread_event.command)
        return Result(UNMATCHED if thread_event.requests else IGNORED, ignored=thread_event.note)


def _thread_with_limit(source: WebhookSource, event: IncomingEvent) -> str | None:
    """Return the thread of an event, if the number of jobs that events start for it is limited."""
    return thread_of(event) if source.spec.type == GITHUB else None

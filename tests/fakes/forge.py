"""An in-memory forge, which comments on jobs and reads commands in comments."""

import asyncio
from datetime import timedelta
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.intake.events import IncomingEvent
from labrats.intake.forge import Forge, ForgeWork, ThreadEvent
from labrats.intake.polled_events import fingerprint_of_polled
from labrats.model.errors import Conflict
from labrats.model.job import Job
from labrats.model.report import Published, ReportTarget
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Clock, Runner, Store


class NoTokens:
    """Tokens for repositories that need none."""

    async def provide(self, job: Job) -> None:
        """Do nothing."""


class MemoryForge(Forge):
    """A forge whose comments are in `comments`, by job. events: what happens there, for the mode `poll`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.comments: dict[str, list[str]] = {}
        self.events: list[IncomingEvent] = []

    def tokens(self, store: Store) -> NoTokens:
        return NoTokens()

    def thread_event(
        self, event: IncomingEvent, source: WebhookSource, catalog: Catalog, fingerprint: str
    ) -> ThreadEvent | None:
        text = event.text("comment", "body") or ""
        if source.spec.type != "github" or not text.startswith("/labrats cancel"):
            return None
        if event.text("comment", "author_association") not in source.spec.allowed_associations:
            return ThreadEvent((), "the author may start no agents")
        return ThreadEvent([self._request(event, fingerprint, ThreadAction.CANCEL)])

    def may_be_own(self, event: IncomingEvent) -> bool:
        return False

    def reason_of_own_event(self, event: IncomingEvent, source: WebhookSource) -> str | None:
        return None

    def notice(self, event: IncomingEvent, source: WebhookSource, reason: str, text: str) -> ThreadRequest | None:
        if source.spec.credentials_ref is None:
            return None
        identity = f"{reason} {event.text('repository', 'full_name')} {self._clock.now():%Y-%m-%d}"
        request = self._request(event, sha256(identity.encode()).hexdigest(), ThreadAction.HELP)
        return replace(request, answer=ThreadAnswer(text=text))

    async def preview(self, runner: Runner, job: Job) -> dict[str, Any] | None:
        return {"comment": f"{job.spec.type}: {job.phase}"} if job.spec.report and job.spec.report.target else None

    async def serve(self, work: ForgeWork) -> None:
        read = len(self.events)
        while True:
            for event in self.events[read:]:
                for source in work.catalog.webhook_sources:
                    if source.spec.polls:
                        await work.polled.take(source, event, fingerprint_of_polled(source, event))
            read = len(self.events)
            await asyncio.sleep(0.01)

    async def publish(self, store: Store, runner: Runner, listed_after: timedelta | None = None) -> None:
        while True:
            for job in await store.list(Job):
                if job.ended and not job.is_published:
                    await self._publish(store, job)
            await asyncio.sleep(0.01)

    async def _publish(self, store: Store, job: Job) -> None:
        if job.id not in self.comments:
            self.comments[job.id] = [f"{job.spec.type} has ended"]
        published = Published(
            comment_url=f"memory:{job.id}", attempts=job.status.attempts, finished_at=job.status.finished_at
        )
        try:
            await store.update(replace(job, status=replace(job.status, published=published)))
        except Conflict:  # another writer was faster: the next round looks again
            return

    def _request(self, event: IncomingEvent, identity: str, action: ThreadAction) -> ThreadRequest:
        number, comment = event.find("issue", "number"), event.find("comment", "id")
        target = ReportTarget(
            repository=event.text("repository", "full_name") or "",
            issue=number if isinstance(number, int) else None,
            comment=comment if isinstance(comment, int) else None,
        )
        return ThreadRequest(
            id=f"request-{identity[:32]}", action=action, event=event.name, target=target,
            received_at=self._clock.now(), url=None,
        )  # fmt: skip

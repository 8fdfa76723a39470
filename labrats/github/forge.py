"""GitHub as the forge of the engine."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from labrats.github.client.access import GitHubAccess
from labrats.github.client.app import GitHub
from labrats.github.client.repository import github_client
from labrats.github.client.repository_tokens import RepositoryTokens
from labrats.github.events.notices import notice_of
from labrats.github.events.own_events import may_be_own, reason_of_own_event
from labrats.github.events.thread_events import thread_event_of
from labrats.github.polling.poller import Poller
from labrats.github.publisher.answers import Answers
from labrats.github.publisher.creations import LISTED_AFTER
from labrats.github.publisher.publisher import Publisher
from labrats.github.redelivery import Redelivery
from labrats.github.report_rights import ReportRights
from labrats.github.reports.preview import preview_of
from labrats.github.reports.reported_job import reported_job
from labrats.github.requests.loop import ThreadRequests
from labrats.github.requests.thread_jobs import ThreadJobs
from labrats.github.setup import GitHubSetup
from labrats.github.source_logins import SourceLogins
from labrats.index.catalog import Catalog
from labrats.intake.events import IncomingEvent
from labrats.intake.forge import Forge, ForgeWork, ThreadEvent
from labrats.metrics import Metrics
from labrats.model.job import Job
from labrats.model.thread_requests import ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Clock, Runner, Store
from labrats.settings import EngineSettings


@dataclass(frozen=True)
class GitHubForge(Forge):
    """GitHub, or a GitHub Enterprise Server."""

    settings: EngineSettings
    clock: Clock
    metrics: Metrics

    def tokens(self, store: Store) -> RepositoryTokens:
        return RepositoryTokens(store, self._app, labelled_only=self.settings.labelled_credentials)

    def setup(self) -> GitHubSetup:
        return GitHubSetup(self._app)

    def thread_event(
        self, event: IncomingEvent, source: WebhookSource, catalog: Catalog, fingerprint: str
    ) -> ThreadEvent | None:
        return thread_event_of(event, source, catalog, fingerprint, self.clock.now())

    def may_be_own(self, event: IncomingEvent) -> bool:
        return may_be_own(event)

    def reason_of_own_event(self, event: IncomingEvent, source: WebhookSource) -> str | None:
        return reason_of_own_event(event, source, self.clock.now())

    def notice(self, event: IncomingEvent, source: WebhookSource, reason: str, text: str) -> ThreadRequest | None:
        return notice_of(event, source, reason, text, self.clock.now())

    async def preview(self, runner: Runner, job: Job) -> dict[str, Any] | None:
        report = job.spec.report
        if not (report and report.target):
            return None
        url = job.status.published.pull_request_url if job.status.published else None
        reported = await reported_job(runner, job, self.settings, pull_request_url=url)
        return preview_of(reported, report, report.target)

    async def serve(self, work: ForgeWork) -> None:
        store, catalog, app, clock = work.store, work.catalog, self._app, self.clock
        async with github_client(self.settings.github_api_url) as client, asyncio.TaskGroup() as loops:
            access = GitHubAccess(store, app, client, clock, labelled_only=self.settings.labelled_credentials)
            thread_jobs = ThreadJobs(
                store, work.runner, catalog, work.job_index, work.admission, access, work.stored_jobs, clock
            )
            loops.create_task(ThreadRequests(thread_jobs).run(), name="thread-requests")
            loops.create_task(SourceLogins(store, catalog, access, clock).run(), name="source-logins")
            loops.create_task(Poller(store, catalog, access, work.polled, clock).run(), name="polling")
            loops.create_task(Redelivery(store, catalog, app, clock).run(), name="redelivery")
            loops.create_task(ReportRights(store, catalog, app, clock).run(), name="report-rights")

    async def publish(self, store: Store, runner: Runner, listed_after: timedelta | None = None) -> None:
        listed_after = LISTED_AFTER if listed_after is None else listed_after
        async with github_client(self.settings.github_api_url) as client, asyncio.TaskGroup() as loops:
            labelled_only = self.settings.labelled_credentials
            access = GitHubAccess(store, self._app, client, self.clock, labelled_only=labelled_only)
            publisher = Publisher(store, runner, access, self.clock, self.settings, self.metrics, listed_after)
            loops.create_task(publisher.run(), name="reports")
            loops.create_task(Answers(store, access, self.clock, listed_after).run(), name="answers")

    @cached_property
    def _app(self) -> GitHub:
        """The client that all loops share, and so its pauses."""
        return GitHub(self.settings.github_api_url, self.clock)

"""The services that routes use."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final
from weakref import WeakValueDictionary

from labrats.api.activities import Activities
from labrats.api.auth.authentication import Authenticator
from labrats.api.auth.key_uses import KeyUses
from labrats.api.auth.keys import ApiKeyIndex
from labrats.api.auth.oidc import OpenIdProvider
from labrats.api.auth.rate_limit import AuthRateLimit
from labrats.api.auth.sessions import Sessions
from labrats.api.bulk_actions import INTERRUPTED_SECONDS, BulkActions
from labrats.api.change_feed import ChangeFeed
from labrats.api.http.caller_bodies import CallerBodies
from labrats.api.http.fair_lock import FairLock
from labrats.api.http.idempotency import Intent
from labrats.api.http.idempotency_cache import IdempotencyCache
from labrats.api.http.large_answer import LargeAnswers
from labrats.api.http.signed_body import UnverifiedBodies
from labrats.api.job_items import JobItems
from labrats.api.model_file_scans import ModelFileScans
from labrats.api.prometheus import PrometheusClient
from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.delivery_log import DeliveryLog
from labrats.intake.event_intake import EventIntake
from labrats.intake.forge import Forge, ForgeSetup
from labrats.intake.immediate_starts import ImmediateStarts
from labrats.intake.signing_secrets import SigningSecrets
from labrats.intake.stored_jobs import StoredJobs
from labrats.metrics import Metrics
from labrats.ports import Clock, ControllerLease, Runner, Store
from labrats.settings import EngineSettings

LARGE_PAGES_AT_ONCE: Final = 4
"""Large pages of events that are created at once, each for another caller."""


@dataclass(frozen=True)
class Services:
    """The parts of a running engine that requests use. `stopping` is set when open streams should end."""

    store: Store
    runner: Runner
    clock: Clock
    settings: EngineSettings
    job_index: JobIndex
    catalog: Catalog
    api_keys: ApiKeyIndex
    sessions: Sessions
    attachments: Attachments
    workspace_uploads: Uploads
    pdf_uploads: Uploads
    metrics: Metrics
    signing_secrets: SigningSecrets
    forge: Forge
    forge_setup: ForgeSetup
    immediate_starts: ImmediateStarts = field(default_factory=ImmediateStarts)
    """Connects `admission` with the controller of this process."""
    openid_provider: OpenIdProvider | None = None
    """The OpenID provider where users sign in, if one is configured."""
    prometheus: PrometheusClient | None = None
    """The Prometheus that scrapes this engine, if one is configured."""
    read_controller_lease: Callable[[], Awaitable[ControllerLease]] | None = None
    """Read the lease of the controller; None where this engine drives jobs by itself."""
    model_file_scans: ModelFileScans | None = None
    """Scans of local models' files; None on a cluster without a volume for them."""
    key_uses: KeyUses = field(default_factory=KeyUses)
    idempotency_cache: IdempotencyCache = field(default_factory=IdempotencyCache)
    auth_rate_limit: AuthRateLimit = field(default_factory=AuthRateLimit)
    upload_places: WeakValueDictionary[str, asyncio.Semaphore] = field(default_factory=WeakValueDictionary)
    """Limits the uploads that are received at the same time, by the id of their caller."""
    stream_lock: FairLock = field(default_factory=FairLock)
    """Shared by the live streams of logs and events, of which there may be hundreds."""
    search_places: WeakValueDictionary[str, asyncio.Semaphore] = field(default_factory=WeakValueDictionary)
    """Limits the searches in logs that read at the same time, by the id of their caller."""
    caller_bodies: CallerBodies = field(default_factory=CallerBodies)
    large_answers: LargeAnswers = field(default_factory=LargeAnswers)
    large_pages: LargeAnswers = field(default_factory=partial(LargeAnswers, LARGE_PAGES_AT_ONCE))
    unverified_bodies: UnverifiedBodies = field(default_factory=UnverifiedBodies)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @cached_property
    def admission(self) -> Admission:
        return Admission(
            self.store,
            self.catalog,
            self.job_index,
            self.attachments,
            self.workspace_uploads,
            self.metrics,
            self.settings,
            isolation=self.runner.isolation,
            network_problem=self.runner.network_problem,
            untrusted_network_problem=self.runner.untrusted_network_problem,
            immediate_starts=self.immediate_starts,
        )

    @cached_property
    def event_intake(self) -> EventIntake:
        return EventIntake(
            self.store,
            self.catalog,
            self.forge,
            self.admission,
            self.clock,
            self.settings.event_jobs_per_thread,
            lambda fingerprint: Intent(fingerprint, fingerprint).job_names,
        )

    @cached_property
    def activities(self) -> Activities:
        return Activities(self.runner, self.job_index)

    @cached_property
    def job_items(self) -> JobItems:
        return JobItems(self.store, self.activities)

    @cached_property
    def stored_jobs(self) -> StoredJobs:
        settings = self.settings
        return StoredJobs(
            self.store,
            settings.uploads,
            self.clock,
            labelled_only=settings.labelled_credentials,
            has_receivers=settings.backend == "kubernetes",
        )

    @cached_property
    def deliveries(self) -> DeliveryLog:
        return DeliveryLog(stores_payloads=self.settings.backend == "embedded")

    @cached_property
    def bulk_actions(self) -> BulkActions:
        others_may_run = self.settings.backend == "kubernetes"
        return BulkActions(self.store, self.clock, self.metrics, INTERRUPTED_SECONDS if others_may_run else 0)

    @cached_property
    def change_feed(self) -> ChangeFeed:
        return ChangeFeed(self.job_index, self.job_items, self.activities, self.catalog, self.api_keys)

    @cached_property
    def authenticator(self) -> Authenticator:
        return Authenticator(
            self.api_keys, self.key_uses, self.sessions, self.auth_rate_limit, self.clock, self.settings.public_url
        )

    @property
    def watches(self) -> Mapping[str, asyncio.Event]:
        """Events that must be set before the engine is ready, by the name of the watch that sets them."""
        watches = {"catalog": self.catalog.synced}
        if self.settings.needs_jobs:
            watches["jobs"] = self.job_index.synced
        if self.settings.answers_requests:
            watches |= {"keys": self.api_keys.synced, "sessions": self.sessions.synced}
        return watches

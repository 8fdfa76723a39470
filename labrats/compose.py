"""The engine wired together: stores, runners, services and loops. The only module that names a backend.

Imports stand inside functions: a command that needs no engine, or only one backend, loads no more than it uses.
"""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from labrats.model.errors import LabratsError, RetryLater

if TYPE_CHECKING:
    from labrats.api.auth.oidc import OpenIdProvider
    from labrats.api.auth.sessions import Signer
    from labrats.api.services import Services
    from labrats.backends.embedded.data_backup import DataFolders
    from labrats.backends.embedded.migration import Progress
    from labrats.backends.embedded.store import EmbeddedStore
    from labrats.controller.credential_labels import CredentialLabels
    from labrats.intake.signing_secrets import SigningSecrets
    from labrats.metrics import Metrics
    from labrats.model.record import Resource
    from labrats.ports import ModelFiles, Runner, Store
    from labrats.settings import EngineSettings

T = TypeVar("T")
R = TypeVar("R", bound="Resource")

DATABASE: Final = "labrats.db"
"""The database's name in the data folder."""


@dataclass(frozen=True)
class Engine:
    """A wired engine: the services behind its API, and the coroutine function that drives jobs until cancelled."""

    services: "Services"
    drive: Callable[[], Coroutine[Any, Any, None]]


def open_engine(settings: "EngineSettings", kept_open: Sequence[int] = ()) -> AbstractAsyncContextManager[Engine]:
    """Open the engine, or its part, on the backend that the settings name. kept_open: see LocalRunnerSettings."""
    if settings.backend == "kubernetes":
        return open_cluster_engine(settings)
    return open_local_engine(settings, kept_open)


def open_store(settings: "EngineSettings") -> "AbstractAsyncContextManager[Store]":
    """Open only the store of the backend that the settings name."""
    return open_cluster_store() if settings.backend == "kubernetes" else open_local_store(settings)


def cluster_network(settings: "EngineSettings") -> tuple[str | None, bool | None]:
    """Return what the leader's checks found; see `EngineCommands.cluster_network`."""
    from labrats.backends.kubernetes.egress import OPEN_CHECK, is_enforced, rules_problem
    from labrats.settings import KubernetesSettings

    checks = settings.data_dir
    return rules_problem(KubernetesSettings().egress_proxy, checks), is_enforced(checks / OPEN_CHECK)


def has_data(settings: "EngineSettings") -> bool:
    """Return whether an engine has stored data in the data folder. A cluster always has a store."""
    return settings.backend == "kubernetes" or (settings.data_dir / DATABASE).exists()


def data_folders(settings: "EngineSettings") -> "DataFolders":
    """Return the folders of an engine on one machine whose files a backup has. Raises LabratsError for a cluster."""
    from labrats.backends.embedded.data_backup import DataFolders

    if settings.backend == "kubernetes":
        raise LabratsError("this is for an engine on one machine; docs/kubernetes.md says how to back up a cluster")
    return DataFolders(settings.data_dir, settings.uploads, settings.pdf_uploads)


async def migrate(settings: "EngineSettings", progress: "Progress") -> None:
    """Migrate the stored data if an earlier version of Labrats wrote it. Raises LabratsError."""
    from labrats.backends.embedded.database import open_for_writing

    def run() -> None:
        open_for_writing(settings.data_dir / DATABASE, migrate=progress).close()

    await asyncio.to_thread(run)


def needs_migration(settings: "EngineSettings") -> bool:
    """Return whether an earlier version of Labrats wrote the stored data, so that a migration takes a while."""
    if settings.backend == "kubernetes":
        return False
    from labrats.backends.embedded.database import needs_migration

    return needs_migration(settings.data_dir / DATABASE)


def keeps_open_network(settings: "EngineSettings") -> bool:
    """Return whether the data folder is older than the default `public` for the network of agents."""
    from contextlib import closing

    from labrats.backends.embedded.database import open_for_reading, schema_created_with
    from labrats.backends.embedded.sandbox_choice import FIRST_WITH_PUBLIC

    database = settings.data_dir / DATABASE
    if not database.exists():
        return False
    with closing(open_for_reading(database)) as connection:
        return schema_created_with(connection) < FIRST_WITH_PUBLIC


async def stored(kind: type[R], settings: "EngineSettings") -> Sequence[R]:
    """Return the resources in a data folder, without migrating it; none without data, or of an earlier version.

    An engine of that version may use it.
    """
    if not (settings.data_dir / DATABASE).exists() or needs_migration(settings):
        return []
    async with open_local_store(settings) as store:
        return await store.list(kind)


@asynccontextmanager
async def open_local_engine(settings: "EngineSettings", kept_open: Sequence[int]) -> AsyncIterator[Engine]:
    """Open the engine of one machine: SQLite and local processes."""
    from labrats.backends.embedded.model_files import LocalModelFiles
    from labrats.backends.embedded.runner import LocalRunner
    from labrats.backends.embedded.settings import runner_settings
    from labrats.controller.agent_status import drop_missing_instructions
    from labrats.controller.source_status import LOCAL_PASS_SECONDS, OwnReceiver, SourceStatusReconciler
    from labrats.files.model_folder import model_folder
    from labrats.metrics import Metrics
    from labrats.ports import SystemClock

    async with (
        open_local_store(settings) as store,
        LocalRunner(store, runner_settings(settings, store.schema_created_with, store.identity, kept_open)) as runner,
    ):
        model_files = LocalModelFiles(model_folder(settings), SystemClock())
        services = await create_services(settings, store, runner, Metrics(), model_files)

        async def drive() -> None:
            async with asyncio.TaskGroup() as loops:
                await drop_missing_instructions(store, services.catalog)
                _report_unserved_sources(services, runner)
                loops.create_task(drive_jobs(services, store, runner), name="jobs")
                loops.create_task(publish_reports(services, store, runner), name="publisher")
                reconciler = SourceStatusReconciler(store, services.clock, OwnReceiver(), LOCAL_PASS_SECONDS)
                loops.create_task(reconciler.run(), name="source-status")
                loops.create_task(model_files.run(), name="model-files")

        try:
            yield Engine(services, drive)
        finally:
            services.job_index.close()


@asynccontextmanager
async def open_cluster_engine(settings: "EngineSettings") -> AsyncIterator[Engine]:
    """Open the engine of a cluster. It answers requests at once, and drives jobs or publishes reports while it leads.

    Requests to the API server are sent first: their answers arrive while the API's modules are imported.
    """
    from labrats.backends.kubernetes import settings as configured
    from labrats.backends.kubernetes.batch_client import BatchClient
    from labrats.backends.kubernetes.client import ApiClient
    from labrats.backends.kubernetes.fence import Fence
    from labrats.backends.kubernetes.leader import PUBLISHER_LEASE, Election, read_lease
    from labrats.backends.kubernetes.network_check import check_network, check_rules
    from labrats.backends.kubernetes.publisher_rights import PublisherRights
    from labrats.backends.kubernetes.receiver_reconciler import ReceiverReconciler
    from labrats.backends.kubernetes.runner import KubernetesRunner
    from labrats.backends.kubernetes.store import KubernetesStore
    from labrats.backends.kubernetes.text_archive import TextArchive
    from labrats.backends.kubernetes.text_archiver import PASS_SECONDS, TextArchiver
    from labrats.controller.cleanup_passes import repeat
    from labrats.controller.source_status import SourceStatusReconciler
    from labrats.metrics import Metrics
    from labrats.model.job import Job
    from labrats.settings import KubernetesSettings

    kubernetes = KubernetesSettings()
    runner_settings = configured.runner_settings(settings, kubernetes)
    namespace, metrics = runner_settings.namespace, Metrics()
    archive = TextArchive(settings.data_dir / "texts")
    async with ApiClient.open() as client, KubernetesStore.open(client, namespace, texts=archive) as own_store:
        loading = asyncio.create_task(asyncio.to_thread(import_module, "labrats.api.app"))
        fence = Fence(client, namespace, metrics)
        identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        election = Election(client, namespace, identity, prepare=fence.check)
        if settings.drives_jobs:
            await election.try_acquire()  # before the watches start, so that a first leader lists each kind once
        if settings.needs_jobs:
            own_store.begin_watch(Job)
        await loading
        model_files = configured.model_files(settings, kubernetes, client)
        own_runner = KubernetesRunner(client, own_store, runner_settings, supervises=False)
        services = await retry_until_reachable(
            partial(create_services, settings, own_store, own_runner, metrics, model_files)
        )
        services = replace(services, read_controller_lease=partial(read_lease, client, namespace))

        async def lead(epoch: int) -> None:
            leading = client.writing_as(partial(fence.manager, epoch))
            async with own_store.as_leader(leading, election.leader_since) as store, asyncio.TaskGroup() as loops:
                loops.create_task(fence.check_periodically(epoch), name="fence")
                runner = KubernetesRunner(leading, store, runner_settings, epoch=epoch)
                loops.create_task(runner.run(), name="runner")
                loops.create_task(drive_jobs(services, store, runner, store.history_bytes), name="drive")
                if receivers := configured.receiver_settings(kubernetes):
                    receiver = ReceiverReconciler(leading, receivers)
                    labels = credential_labels(store, settings)
                    full_queue = services.admission.full_queue
                    reconciler = SourceStatusReconciler(
                        store, services.clock, receiver, labels=labels, full_queue=full_queue
                    )
                    loops.create_task(reconciler.run(), name="source-status")
                if runner_settings.pods.data_claim:  # otherwise replicas have no folder in common
                    archiver = TextArchiver(store, archive, services.job_index, services.clock)
                    loops.create_task(repeat(archiver.make_pass, PASS_SECONDS, services.clock), name="archive texts")
                rights = PublisherRights(leading, namespace, store)
                loops.create_task(rights.run(), name="publisher-rights")
                if model_files := configured.model_files(settings, kubernetes, leading):
                    loops.create_task(model_files.run(), name="model-files")
                jobs, checks = BatchClient(leading, namespace), runner_settings.network_checks
                network_check = configured.network_check(settings, kubernetes, epoch)
                loops.create_task(check_network(jobs, network_check, metrics, checks), name="network-check")
                if network_check and runner_settings.egress_proxy:
                    loops.create_task(check_rules(jobs, network_check, checks), name="check-of-rules")

        publisher = Election(client, namespace, identity, lease=PUBLISHER_LEASE)

        async def drive() -> None:
            async with asyncio.TaskGroup() as elections:
                if settings.drives_jobs:
                    elections.create_task(election.run(lead), name="leader")
                if settings.publishes_reports:
                    publish = partial(publish_reports, services, own_store, own_runner)
                    elections.create_task(publisher.run(lambda _epoch: publish()), name="publisher")

        yield Engine(services, drive)


def _report_unserved_sources(services: "Services", runner: "Runner") -> None:
    """Log an error if events start no agents here. The catalog must have been read."""
    import structlog

    sources = [source.name for source in services.catalog.webhook_sources if source.spec.enabled]
    if sources and (reason := runner.isolation.no_sandbox):
        advice = "install bubblewrap and allow user namespaces, or set LABRATS_SANDBOX=false"
        structlog.get_logger().error("events start no agents", sources=sources, reason=reason, advice=advice)


async def drive_jobs(
    services: "Services", store: "Store", runner: "Runner", history_bytes: Callable[[], Awaitable[int]] | None = None
) -> None:
    """Drive jobs until cancelled: reconcile, call back, follow chains, delete old data, and update statuses.

    history_bytes: returns the bytes of all jobs where they are bound.
    """
    from labrats.controller.agent_status import AgentStatusReconciler
    from labrats.controller.applied_jobs import AppliedJobs
    from labrats.controller.callbacks import Callbacks
    from labrats.controller.chains import Chains
    from labrats.controller.disk_limits import DiskLimits
    from labrats.controller.found_secrets import FoundSecrets
    from labrats.controller.history_bound import HistoryBound
    from labrats.controller.model_status import ModelStatusReconciler
    from labrats.controller.reconcile import Controller
    from labrats.controller.retention import Retention
    from labrats.intake.codex_logins import CodexLogins
    from labrats.intake.forge import ForgeWork
    from labrats.intake.polled_events import PolledEvents
    from labrats.net.client import OutboundClient

    clock, settings = services.clock, services.settings
    await services.job_index.synced.wait()  # other readers of all jobs would delay the first answer
    async with asyncio.TaskGroup() as loops:
        catalog, metrics, stored_jobs = services.catalog, services.metrics, services.stored_jobs
        leading = replace(services, store=store, runner=runner)
        admission = leading.admission
        applied_jobs = AppliedJobs(catalog, admission, clock)
        tokens = services.forge.tokens(store)
        # Not on a cluster: there the API also runs in other processes, and must not write as the leader.
        immediate_starts = services.immediate_starts if settings.backend == "embedded" else None
        logins = CodexLogins(store, settings.codex_token_url, clock, labelled_only=settings.labelled_credentials)
        controller = Controller(store, runner, applied_jobs, clock, settings, metrics, tokens, immediate_starts, logins)
        loops.create_task(controller.run(), name="controller")
        client = OutboundClient(settings.outbound_allowed_cidrs, settings.callback_allowed_hosts)
        callbacks = Callbacks(store, client, clock, settings.callback_signing_keys, metrics)
        loops.create_task(callbacks.run(), name="callbacks")
        chains = Chains(store, runner, catalog, admission, stored_jobs, clock, settings.max_chain_depth)
        loops.create_task(chains.run(), name="chains")
        loops.create_task(AgentStatusReconciler(store, catalog, clock).run(), name="agent-status")
        polled = PolledEvents(leading.event_intake, services.deliveries, metrics)
        if not settings.receives_webhooks:
            loops.create_task(services.deliveries.run(store, clock), name="polled-events")
        work = ForgeWork(store, runner, catalog, services.job_index, admission, stored_jobs, polled)
        loops.create_task(services.forge.serve(work), name="forge")
        labels = credential_labels(store, settings) if settings.backend == "kubernetes" else None
        loops.create_task(ModelStatusReconciler(store, clock, labels).run(), name="model-status")
        loops.create_task(FoundSecrets(store, runner).run(), name="found-secrets")
        bound = HistoryBound(history_bytes, settings.history_mib * 2**20, metrics) if history_bytes else None
        retention = Retention(store, runner, services.job_index, services.attachments, clock, settings, bound)
        loops.create_task(retention.run(), name="retention")
        disk_limits = DiskLimits(store, runner, services.job_index, clock, settings)
        loops.create_task(disk_limits.run(), name="disk-limits")


async def publish_reports(
    services: "Services", store: "Store", runner: "Runner", listed_after: timedelta | None = None
) -> None:
    """Write the reports of jobs to GitHub until cancelled.

    listed_after: time after which GitHub's lists certainly show what was created; by default LISTED_AFTER.
    """

    if services.settings.needs_jobs:
        await services.job_index.synced.wait()  # another reader of all jobs would delay the first answer
    await services.forge.publish(store, runner, listed_after)


async def create_services(
    settings: "EngineSettings",
    store: "Store",
    runner: "Runner",
    metrics: "Metrics",
    model_files: "ModelFiles | None" = None,
) -> "Services":
    """Create the services behind the API.

    Only an engine with the role `all` creates an admin key: of several replicas, each would create its own.
    """
    import structlog

    from labrats.api.auth.admin_key import ensure_admin_key
    from labrats.api.auth.keys import ApiKeyIndex
    from labrats.api.auth.sessions import Sessions, Signer, new_secret, signing_secret
    from labrats.api.model_file_scans import ModelFileScans
    from labrats.api.prometheus import PrometheusClient
    from labrats.api.services import Services
    from labrats.files.attachments import Attachments
    from labrats.files.uploads import Uploads
    from labrats.github.forge import GitHubForge
    from labrats.index.catalog import Catalog
    from labrats.index.jobs import JobIndex
    from labrats.intake.unmet_settings import unmet_settings
    from labrats.ports import SystemClock

    effect = "jobs to which it applies are refused, or fail"
    for setting, reason in unmet_settings(settings, runner.isolation, runner.network_problem(settings.network)):
        structlog.get_logger().warning("setting not met", setting=setting, reason=reason, effect=effect)
    if settings.role == "all":
        await ensure_admin_key(store, settings.admin_key_file)
    # An engine that only drives jobs signs nobody in, and on a cluster has no permission to create the Secret.
    secret = await signing_secret(store, settings.auth_jwt_secret) if settings.answers_requests else new_secret()
    signer = Signer(secret)
    clock = SystemClock()
    catalog, job_index = Catalog(), JobIndex(settings.data_dir / "index.db" if settings.backend == "embedded" else None)
    forge = GitHubForge(settings, clock, metrics)
    return Services(
        store=store,
        runner=runner,
        clock=clock,
        settings=settings,
        job_index=job_index,
        catalog=catalog,
        api_keys=ApiKeyIndex([key.get_secret_value() for key in settings.submit_api_keys]),
        sessions=Sessions(signer, timedelta(hours=settings.session_hours)),
        openid_provider=openid_provider(settings, signer),
        prometheus=PrometheusClient(settings.prometheus_url) if settings.prometheus_url else None,
        attachments=Attachments(settings.uploads),
        workspace_uploads=Uploads(settings.uploads, free_bytes=settings.bytes_for_uploads),
        pdf_uploads=Uploads(settings.pdf_uploads, stored_as="document.pdf", free_bytes=settings.bytes_for_uploads),
        model_file_scans=ModelFileScans(model_files, clock) if model_files else None,
        metrics=metrics,
        signing_secrets=signing_secrets(settings, store),
        forge=forge,
        forge_setup=forge.setup(),
    )


def signing_secrets(settings: "EngineSettings", store: "Store") -> "SigningSecrets":
    """Return access to the signing secrets of webhook sources: a receiver reads only its mounted secret."""
    from labrats.intake.signing_secrets import MountedSecret, StoredSecrets

    if settings.webhook_source and settings.webhook_secret_file:
        return MountedSecret(settings.webhook_source, settings.webhook_secret_file)
    return StoredSecrets(store)


def openid_provider(settings: "EngineSettings", signer: "Signer") -> "OpenIdProvider | None":
    """Return the OpenID provider at which users sign in; None unless one is configured."""
    from labrats.api.auth.oidc import ClientRegistration, OpenIdProvider, connection
    from labrats.ports import SystemClock

    if not (settings.oidc_issuer and settings.oidc_client_id):
        return None
    registration = ClientRegistration(
        settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret, settings.oidc_admin_groups
    )
    return OpenIdProvider(registration, signer, SystemClock(), connection())


def credential_labels(store: "Store", settings: "EngineSettings") -> "CredentialLabels":
    from labrats.controller.credential_labels import CredentialLabels

    return CredentialLabels(store, required=settings.labelled_credentials)


def open_local_store(settings: "EngineSettings") -> "AbstractAsyncContextManager[EmbeddedStore]":
    from labrats.backends.embedded.store import EmbeddedStore

    return EmbeddedStore.open(settings.data_dir / DATABASE)


@asynccontextmanager
async def open_cluster_store() -> "AsyncIterator[Store]":
    from labrats.backends.kubernetes.client import ApiClient
    from labrats.backends.kubernetes.store import KubernetesStore
    from labrats.settings import KubernetesSettings

    async with ApiClient.open() as client, KubernetesStore.open(client, KubernetesSettings().namespace) as store:
        yield store


async def retry_until_reachable(action: "Callable[[], Awaitable[T]]") -> "T":
    """Return the result of `action`, repeated while the store is unreachable. Exiting would cause a restart loop."""
    import structlog

    while True:
        try:
            return await action()
        except RetryLater as error:
            structlog.get_logger().warning("start delayed", reason=str(error))
            await asyncio.sleep(error.delay_seconds)

"""The engine put together: the only module that names a backend. Imports what is heavy only when an engine runs."""

import asyncio
import fcntl
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from labrats.model.errors import LabratsError, RetryLater

if TYPE_CHECKING:
    from labrats.api.auth.oidc import Provider
    from labrats.api.auth.sessions import Signer
    from labrats.api.services import Services
    from labrats.backends.embedded.store import EmbeddedStore
    from labrats.controller.credential_labels import CredentialLabels
    from labrats.intake.signing_secrets import SigningSecrets
    from labrats.metrics import Metrics
    from labrats.model.errors import Problem
    from labrats.ports import ModelFiles, Runner, Store
    from labrats.settings import EngineSettings

T = TypeVar("T")

DATABASE: Final = "labrats.db"

DESCRIPTORS_KEPT: Final = 512
"""File descriptors that connections leave for all else: the database, attempts, files that are read."""

OnReady = Callable[[str, str | None], None]
"""Told the engine's URL, and the one-time login link where there is one."""

Drive = Callable[[], Coroutine[Any, Any, None]]
"""What takes jobs to their ends, until cancelled."""


def main() -> None:
    """The `labrats` command."""
    from labrats.cli.app import build_app, run

    sys.exit(run(build_app(Commands())))


class Commands:
    """What the command line can have an engine do: see EngineCommands in labrats/cli/engine.py."""

    def serve(
        self,
        host: str | None,
        port: int | None,
        data_dir: Path | None,
        on_ready: OnReady,
        backend: str | None,
        role: str | None,
        sandbox: str | None,
    ) -> None:
        # From here on much is loaded that stays, code and jobs: the collector would go through it again and again.
        gc.set_threshold(50_000, 20, 20)
        import uvloop

        settings = read_settings(host=host, port=port, data_dir=data_dir, backend=backend, role=role, sandbox=sandbox)
        refuse_unprotected(settings)
        refuse_part_of_one_machine(settings)
        os.umask(0o077)
        open_standard_streams()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with (
            only_engine_of(settings.data_dir) if settings.backend == "embedded" else nullcontext(),
            listen(settings.host, settings.port) as listener,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(serve(settings, listener, on_ready))

    def open_store(self, data_dir: Path | None) -> "AbstractAsyncContextManager[Store]":
        settings = read_settings(data_dir=data_dir)
        return open_cluster_store() if settings.backend == "kubernetes" else open_local_store(settings)

    def create_api_key(
        self, name: str, scopes: Sequence[str], expires_at: datetime | None, data_dir: Path | None
    ) -> str:
        from labrats.api.auth.keys import key_secret, new_key

        key = new_key()

        async def store_key() -> None:
            async with self.open_store(data_dir) as store:
                await store.create(key_secret(name, key, scopes, expires_at))

        asyncio.run(store_key())
        return key

    async def login_link(self, data_dir: Path | None, url: str) -> str:
        from labrats.api.auth.login_links import make_link
        from labrats.ports import SystemClock

        async with self.open_store(data_dir) as store:
            return await make_link(store, url, SystemClock().now())

    def manifests(self, namespace: str, image: str, executor_image: str, *, labelled_credentials: bool) -> str:
        from labrats.manifests.install import installation

        return installation(namespace, image, executor_image, labelled_credentials=labelled_credentials)

    def custom_resources(self) -> str:
        from labrats.manifests.install import custom_resources

        return custom_resources()

    def problems_in(self, kind: str, name: str, spec: dict[str, Any]) -> "Sequence[Problem]":
        from labrats.api.spec_validation import problems_in

        return problems_in(kind, name, spec)

    def settings(self) -> "EngineSettings":
        return read_settings()


async def serve(settings: "EngineSettings", listener: socket.socket, on_ready: OnReady) -> None:
    """Run the engine, or its part, until SIGINT or SIGTERM. If one loop dies, all stop and its error surfaces."""
    from labrats.logs import configure_logs
    from labrats.processes import raise_descriptor_limit

    configure_logs(settings.log_level, settings.log_format)
    descriptors = raise_descriptor_limit()
    open_engine = open_cluster_engine if settings.backend == "kubernetes" else open_local_engine
    async with open_engine(settings) as (services, drive), asyncio.TaskGroup() as loops:
        from labrats.api.app import create_app
        from labrats.api.http.server import Patience, Server

        patience = Patience(connections=max(descriptors // 2, descriptors - DESCRIPTORS_KEPT))
        server = Server(create_app(services), patience, settings.trusted_proxies)
        background = [
            loops.create_task(services.catalog.follow(services.store), name="catalog"),
            loops.create_task(announce(services, server, listener, on_ready), name="announce"),
        ]
        if settings.needs_jobs:
            background.append(loops.create_task(services.job_index.follow(services.store), name="cache"))
        if settings.receives_webhooks:
            background.append(
                loops.create_task(services.deliveries.run(services.store, services.clock), name="deliveries")
            )
        if settings.answers_requests:
            background.append(loops.create_task(services.api_keys.follow(services.store), name="keys"))
            background.append(loops.create_task(services.sessions.follow(services.store), name="sessions"))
        if settings.drives_jobs:
            background.append(loops.create_task(drive(), name="drive"))
        _stop_on_signals(services, server)
        await server.serve([listener])
        for task in background:
            task.cancel()


async def drive_jobs(services: "Services", store: "Store", runner: "Runner") -> None:
    """Take jobs to their ends, tell their callers, follow chains, forget jobs in time, review agents and models,
    and have missed webhooks sent again, until cancelled.
    """
    from labrats.controller.agent_status import AgentStatusReconciler
    from labrats.controller.applied_jobs import AppliedJobs
    from labrats.controller.callbacks import Callbacks
    from labrats.controller.chains import Chains
    from labrats.controller.model_status import ModelStatusReconciler
    from labrats.controller.reconcile import Controller
    from labrats.controller.redelivery import Redelivery
    from labrats.controller.retention import Retention
    from labrats.intake.admission import Admission
    from labrats.intake.repository_tokens import RepositoryTokens
    from labrats.net.client import OutboundClient
    from labrats.net.github import GitHub

    clock, settings = services.clock, services.settings
    await services.job_index.synced.wait()  # so that what reads all jobs as well does not delay the first answer
    async with asyncio.TaskGroup() as loops:
        intake = Admission(store, services.catalog, services.attachments, services.metrics, settings.executor_images)
        applied_jobs = AppliedJobs(store, services.catalog, intake, services.workspace_uploads, clock, settings)
        github = GitHub(settings.github_api_url, clock)
        tokens = RepositoryTokens(store, github, labelled_only=settings.labelled_credentials)
        controller = Controller(store, runner, applied_jobs, clock, settings, services.metrics, tokens)
        loops.create_task(controller.run(), name="controller")
        client = OutboundClient(settings.outbound_allowed_cidrs, settings.callback_allowed_hosts)
        callbacks = Callbacks(store, client, clock, settings.callback_signing_keys, services.metrics)
        loops.create_task(callbacks.run(), name="callbacks")
        chains = Chains(store, runner, services.catalog, intake, settings.max_chain_depth)
        loops.create_task(chains.run(), name="chains")
        loops.create_task(AgentStatusReconciler(store, services.catalog, clock).run(), name="agent-status")
        labels = credential_labels(store, settings) if settings.backend == "kubernetes" else None
        loops.create_task(ModelStatusReconciler(store, clock, labels).run(), name="model-status")
        missed = Redelivery(store, services.catalog, github, clock)
        loops.create_task(missed.run(), name="redelivery")
        retention = Retention(store, runner, services.job_index, services.attachments, clock, settings)
        loops.create_task(retention.run(), name="retention")


@asynccontextmanager
async def open_local_engine(settings: "EngineSettings") -> "AsyncIterator[tuple[Services, Drive]]":
    """The engine on this machine, SQLite and processes, and what drives its jobs."""
    from labrats.backends.embedded.model_files import LocalModelFiles
    from labrats.backends.embedded.runner import LocalRunner
    from labrats.backends.embedded.settings import runner_settings
    from labrats.controller.source_status import LOCAL_PASS_SECONDS, OwnReceiver, SourceStatusReconciler
    from labrats.files.model_folder import model_folder
    from labrats.metrics import Metrics
    from labrats.ports import SystemClock

    async with (
        open_local_store(settings) as store,
        LocalRunner(store, runner_settings(settings, store.schema_created_with)) as runner,
    ):
        model_files = LocalModelFiles(model_folder(settings), SystemClock())
        services = await assemble(settings, store, runner, Metrics(), model_files)

        async def drive() -> None:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(drive_jobs(services, store, runner), name="jobs")
                reconciler = SourceStatusReconciler(store, services.clock, OwnReceiver(), LOCAL_PASS_SECONDS)
                loops.create_task(reconciler.run(), name="source-status")
                loops.create_task(model_files.run(), name="model-files")

        yield services, drive


@asynccontextmanager
async def open_cluster_engine(settings: "EngineSettings") -> "AsyncIterator[tuple[Services, Drive]]":
    """The engine on a cluster. It answers requests at once, and drives jobs whenever it leads.

    What it needs from the API server is asked for first, and comes while the API is loaded, which takes as long.
    """
    from labrats.backends.kubernetes import settings as configured
    from labrats.backends.kubernetes.batch_client import BatchClient
    from labrats.backends.kubernetes.client import ApiClient
    from labrats.backends.kubernetes.fence import Fence
    from labrats.backends.kubernetes.leader import Election
    from labrats.backends.kubernetes.network_check import check_network
    from labrats.backends.kubernetes.receiver_reconciler import ReceiverReconciler
    from labrats.backends.kubernetes.runner import KubernetesRunner
    from labrats.backends.kubernetes.store import KubernetesStore
    from labrats.controller.source_status import SourceStatusReconciler
    from labrats.metrics import Metrics
    from labrats.model.job import Job

    runner_settings = configured.runner_settings(settings)
    namespace, metrics = runner_settings.namespace, Metrics()
    async with ApiClient.open() as client, KubernetesStore.open(client, namespace) as own_store:
        loading = asyncio.create_task(asyncio.to_thread(import_module, "labrats.api.app"))
        fence = Fence(client, namespace, metrics)
        identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        election = Election(client, namespace, identity, prepare=fence.look)
        if settings.drives_jobs:
            await election.try_at_once()  # before the watches begin, so that whoever leads from the start lists once
        if settings.needs_jobs:
            own_store.begin_watch(Job)
        await loading
        model_files = configured.model_files(settings, client)
        own_runner = KubernetesRunner(client, own_store, runner_settings)
        services = await insist(partial(assemble, settings, own_store, own_runner, metrics, model_files))

        async def lead(epoch: int) -> None:
            leading = client.writing_as(partial(fence.manager, epoch))
            async with own_store.led(leading, election.leads_since) as store, asyncio.TaskGroup() as loops:
                loops.create_task(fence.keep_looking(epoch), name="fence")
                runner = KubernetesRunner(leading, store, runner_settings)
                loops.create_task(runner.run(), name="runner")
                loops.create_task(drive_jobs(services, store, runner), name="drive")
                if receivers := configured.receiver_settings():
                    keeper = ReceiverReconciler(leading, receivers)
                    labels = credential_labels(store, settings)
                    reconciler = SourceStatusReconciler(store, services.clock, keeper, labels=labels)
                    loops.create_task(reconciler.run(), name="source-status")
                if model_files := configured.model_files(settings, leading):
                    loops.create_task(model_files.run(), name="model-files")
                if network_check := configured.network_check(settings, epoch):
                    jobs = BatchClient(leading, namespace)
                    loops.create_task(check_network(jobs, network_check, metrics), name="network-check")

        yield services, partial(election.run, lead)


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


async def insist(action: "Callable[[], Awaitable[T]]") -> "T":
    """What `action` returns once the store is within reach: an engine that ended instead would be started in a loop."""
    import structlog

    while True:
        try:
            return await action()
        except RetryLater as error:
            structlog.get_logger().warning("the engine cannot start yet", reason=str(error))
            await asyncio.sleep(error.delay_seconds)


async def assemble(
    settings: "EngineSettings",
    store: "Store",
    runner: "Runner",
    metrics: "Metrics",
    model_files: "ModelFiles | None" = None,
) -> "Services":
    """The parts that requests reach.

    An engine that is all there is has an admin key. Where there are several, no one of them makes a key by itself.
    """
    from labrats.api.auth.admin_key import ensure_admin_key
    from labrats.api.auth.keys import KeyRing
    from labrats.api.auth.sessions import Sessions, Signer, new_secret, signing_secret
    from labrats.api.model_file_scans import ModelFileScans
    from labrats.api.prometheus import Prometheus
    from labrats.api.services import Services
    from labrats.files.attachments import Attachments
    from labrats.files.uploads import Uploads
    from labrats.index.catalog import Catalog
    from labrats.index.jobs import JobIndex
    from labrats.intake.admission import Admission
    from labrats.ports import SystemClock

    if settings.role == "all":
        await ensure_admin_key(store, settings.admin_key_file)
    # An engine that only drives jobs signs nobody in, and on a cluster has no right to make the secret.
    secret = await signing_secret(store, settings.auth_jwt_secret) if settings.answers_requests else new_secret()
    signer = Signer(secret)
    clock = SystemClock()
    catalog, attachments = Catalog(), Attachments(settings.uploads)
    return Services(
        store=store,
        runner=runner,
        clock=clock,
        settings=settings,
        job_index=JobIndex(),
        catalog=catalog,
        admission=Admission(store, catalog, attachments, metrics, settings.executor_images),
        api_keys=KeyRing([key.get_secret_value() for key in settings.submit_api_keys]),
        sessions=Sessions(signer, timedelta(hours=settings.session_hours)),
        openid_provider=openid_provider(settings, signer),
        prometheus=Prometheus(settings.prometheus_url) if settings.prometheus_url else None,
        attachments=attachments,
        workspace_uploads=Uploads(settings.uploads),
        pdf_uploads=Uploads(settings.pdf_uploads, stored_as="document.pdf"),
        model_file_scans=ModelFileScans(model_files, clock) if model_files else None,
        metrics=metrics,
        signing_secrets=signing_secrets(settings, store),
    )


def signing_secrets(settings: "EngineSettings", store: "Store") -> "SigningSecrets":
    """Where the secrets of webhook sources are: for a receiver, the one that is mounted."""
    from labrats.intake.signing_secrets import MountedSecret, StoredSecrets

    if settings.webhook_source and settings.webhook_secret_file:
        return MountedSecret(settings.webhook_source, settings.webhook_secret_file)
    return StoredSecrets(store)


def openid_provider(settings: "EngineSettings", signer: "Signer") -> "Provider | None":
    """Where users sign in, if that is configured."""
    from labrats.api.auth.oidc import Issuer, Provider, connection
    from labrats.ports import SystemClock

    if not (settings.oidc_issuer and settings.oidc_client_id):
        return None
    issuer = Issuer(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)
    return Provider(issuer, signer, SystemClock(), connection())


def read_settings(**options: Any) -> "EngineSettings":
    """The settings of the environment, and over them the `options` that are not None."""
    from labrats.settings import EngineSettings

    return EngineSettings(**{name: value for name, value in options.items() if value is not None})


def open_standard_streams() -> None:
    """Open what is closed of standard input, output and error, or the next file opened would be taken for it."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, descriptor)
            if opened != descriptor:
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def refuse_unprotected(settings: "EngineSettings") -> None:
    """Raises LabratsError for an address beyond loopback that nobody asked to be reachable."""
    if not settings.listens_on_loopback and not settings.oidc_issuer and not settings.allow_public:
        raise LabratsError(
            f"{settings.host} is reachable from other machines, and no OIDC_ISSUER says who may sign in there; "
            "LABRATS_ALLOW_PUBLIC=true says that this is meant"
        )


def refuse_part_of_one_machine(settings: "EngineSettings") -> None:
    """Raises LabratsError for a part of an engine whose other parts could not be anywhere else."""
    if settings.backend == "embedded" and settings.role != "all":
        raise LabratsError(
            f"on one machine the engine runs as a whole: the role {settings.role!r} is for the backend `kubernetes`"
        )


@contextmanager
def only_engine_of(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this process. Raises LabratsError when another engine has it."""
    with open(data_dir / "engine.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another engine is running on {data_dir}; choose another folder with --data-dir"
            raise LabratsError(message) from error
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError, before anything else of the engine is touched."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


async def announce(services: "Services", server: Any, listener: socket.socket, on_ready: OnReady) -> None:
    """Say that the engine is up, once requests are answered from complete caches."""
    import structlog

    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    login_link = await first_login_link(services, url)  # beforehand: whoever finds the engine ready finds it printed
    for synced in services.watches.values():
        await synced.wait()
    await server.listening.wait()
    structlog.get_logger().info("engine ready", url=url, data=str(services.settings.data_dir))
    try:
        on_ready(url, login_link)
    except OSError as error:
        structlog.get_logger().warning("greeting was not printed", reason=error.strerror)
    gc.collect()
    gc.freeze()  # what is here by now stays


async def first_login_link(services: "Services", url: str) -> str | None:
    """The link by which the owner of this machine's engine signs in for the first time."""
    from labrats.api.auth.login_links import make_link

    settings = services.settings
    if settings.backend != "embedded" or settings.oidc_issuer:
        return None
    return await make_link(services.store, settings.public_url or url, services.clock.now())


def _stop_on_signals(services: "Services", server: Any) -> None:
    def stop() -> None:
        services.stopping.set()  # open streams end; their readers resume at the next engine
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)

"""The engine put together: the only module that names a backend. Imports what is heavy only when an engine runs."""

import asyncio
import fcntl
import gc
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from labrats.model.errors import Conflict, LabratsError, RetryLater

if TYPE_CHECKING:
    from labrats.api.engine import Engine
    from labrats.api.oidc import Provider
    from labrats.api.sessions import Signer
    from labrats.backends.embedded.runner import LocalRunnerSettings
    from labrats.backends.kubernetes.canary import Canary
    from labrats.backends.kubernetes.client import ApiClient
    from labrats.backends.kubernetes.jobs_api import JobsApi
    from labrats.backends.kubernetes.model_files import ClusterModelFiles
    from labrats.backends.kubernetes.receivers import ReceiverSettings
    from labrats.backends.kubernetes.runner import KubernetesRunnerSettings
    from labrats.intake.signing_secrets import SigningSecrets
    from labrats.model.errors import Problem
    from labrats.model.protocol import Sandbox
    from labrats.ports import ModelFiles, Runner, Store
    from labrats.settings import EngineSettings

T = TypeVar("T")

DATABASE: Final = "labrats.db"
SHARED_FOLDERS: Final = ("/home", "/root", "/tmp", "/var/tmp")  # noqa: S108, nothing is written there
"""Where other things of the machine's users lie than programs: no confined agent sees them."""

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
        sandbox: bool | None,
    ) -> None:
        import uvloop

        settings = read_settings(host=host, port=port, data_dir=data_dir, backend=backend, role=role, sandbox=sandbox)
        refuse_unprotected(settings)
        refuse_part_of_one_machine(settings)
        os.umask(0o077)
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
        from labrats.api.keys import key_secret, new_key

        key = new_key()

        async def store_key() -> None:
            async with self.open_store(data_dir) as store:
                await store.create(key_secret(name, key, scopes, expires_at))

        asyncio.run(store_key())
        return key

    async def login_link(self, data_dir: Path | None, url: str) -> str:
        from labrats.api.login_links import make_link
        from labrats.ports import SystemClock

        async with self.open_store(data_dir) as store:
            return await make_link(store, url, SystemClock().now())

    def manifests(self, namespace: str, image: str, executor_image: str) -> str:
        from labrats.manifests.install import installation

        return installation(namespace, image, executor_image)

    def custom_resources(self) -> str:
        from labrats.manifests.install import custom_resources

        return custom_resources()

    def problems_in(self, kind: str, name: str, spec: dict[str, Any]) -> "Sequence[Problem]":
        from labrats.api.kinds import problems_in

        return problems_in(kind, name, spec)

    def settings(self) -> "EngineSettings":
        return read_settings()


async def serve(settings: "EngineSettings", listener: socket.socket, on_ready: OnReady) -> None:
    """Run the engine, or its part, until SIGINT or SIGTERM. If one loop dies, all stop and its error surfaces."""
    from labrats.api.app import create_app
    from labrats.api.server import Server
    from labrats.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    open_engine = open_cluster_engine if settings.backend == "kubernetes" else open_local_engine
    async with open_engine(settings) as (engine, drive), asyncio.TaskGroup() as loops:
        server = Server(create_app(engine), trusted_proxies=settings.trusted_proxies)
        background = [
            loops.create_task(engine.catalog.follow(engine.store), name="catalog"),
            loops.create_task(announce(engine, server, listener, on_ready), name="announce"),
        ]
        if settings.needs_jobs:
            background.append(loops.create_task(engine.cache.follow(engine.store), name="cache"))
        if settings.receives_webhooks:
            background.append(loops.create_task(engine.deliveries.run(engine.store, engine.clock), name="deliveries"))
        if settings.answers_requests:
            background.append(loops.create_task(engine.keys.follow(engine.store), name="keys"))
            background.append(loops.create_task(engine.sessions.follow(engine.store), name="sessions"))
        if settings.drives_jobs:
            background.append(loops.create_task(drive(), name="drive"))
        _stop_on_signals(engine, server)
        await server.serve([listener])
        for task in background:
            task.cancel()


async def drive_jobs(engine: "Engine", store: "Store", runner: "Runner") -> None:
    """Take jobs to their ends, tell their callers, follow chains, forget jobs in time, review agents and models,
    and have missed webhooks sent again, until cancelled.
    """
    from labrats.controller.agent_reviews import AgentReviews
    from labrats.controller.callbacks import Callbacks
    from labrats.controller.chains import Chains
    from labrats.controller.hand_made import HandMadeJobs
    from labrats.controller.missed_deliveries import MissedDeliveries
    from labrats.controller.model_reviews import ModelReviews
    from labrats.controller.reconcile import Controller
    from labrats.controller.retention import Retention
    from labrats.github import GitHub
    from labrats.intake.intake import Intake
    from labrats.intake.repository_tokens import RepositoryTokens
    from labrats.outbound_client import OutboundClient

    clock, settings = engine.clock, engine.settings
    await engine.cache.synced.wait()  # so that what reads all jobs as well does not delay the first answer
    async with asyncio.TaskGroup() as loops:
        intake = Intake(store, engine.catalog, engine.attachments, engine.metrics)
        hand_made = HandMadeJobs(store, engine.catalog, intake, engine.workspace_uploads, clock, settings)
        github = GitHub(settings.github_api_url, clock)
        tokens = RepositoryTokens(store, github)
        controller = Controller(store, runner, hand_made, clock, settings, engine.metrics, tokens)
        loops.create_task(controller.run(), name="controller")
        client = OutboundClient(settings.outbound_allowed_cidrs, settings.callback_allowed_hosts)
        callbacks = Callbacks(store, client, clock, settings.callback_signing_keys, engine.metrics)
        loops.create_task(callbacks.run(), name="callbacks")
        chains = Chains(store, runner, engine.catalog, intake, settings.max_chain_depth)
        loops.create_task(chains.run(), name="chains")
        loops.create_task(AgentReviews(store, engine.catalog, clock).run(), name="agent-reviews")
        loops.create_task(ModelReviews(store, clock).run(), name="model-reviews")
        missed = MissedDeliveries(store, engine.catalog, github, clock)
        loops.create_task(missed.run(), name="missed-deliveries")
        retention = Retention(store, runner, engine.cache, engine.attachments, clock, settings)
        loops.create_task(retention.run(), name="retention")


@asynccontextmanager
async def open_local_engine(settings: "EngineSettings") -> "AsyncIterator[tuple[Engine, Drive]]":
    """The engine on this machine, SQLite and processes, and what drives its jobs."""
    from labrats.backends.embedded.model_files import LocalModelFiles
    from labrats.backends.embedded.runner import LocalRunner
    from labrats.controller.source_reviews import LOCAL_PASS_SECONDS, OwnReceiver, SourceReviews
    from labrats.model_files import model_folder
    from labrats.ports import SystemClock

    async with open_local_store(settings) as store, LocalRunner(store, local_runner_settings(settings)) as runner:
        model_files = LocalModelFiles(model_folder(settings), SystemClock())
        engine = await assemble(settings, store, runner, model_files)

        async def drive() -> None:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(drive_jobs(engine, store, runner), name="jobs")
                reviews = SourceReviews(store, engine.clock, OwnReceiver(), LOCAL_PASS_SECONDS)
                loops.create_task(reviews.run(), name="source-reviews")
                loops.create_task(model_files.run(), name="model-files")

        yield engine, drive


@asynccontextmanager
async def open_cluster_engine(settings: "EngineSettings") -> "AsyncIterator[tuple[Engine, Drive]]":
    """The engine on a cluster. It answers requests at once, and drives jobs whenever it leads."""
    import structlog

    from labrats.backends.kubernetes.client import ApiClient
    from labrats.backends.kubernetes.fence import field_manager, former_leaders_are_fenced
    from labrats.backends.kubernetes.jobs_api import JobsApi
    from labrats.backends.kubernetes.leader import Election
    from labrats.backends.kubernetes.receiver_keeper import ReceiverKeeper
    from labrats.backends.kubernetes.runner import KubernetesRunner
    from labrats.backends.kubernetes.store import KubernetesStore
    from labrats.controller.source_reviews import SourceReviews

    runner_settings = cluster_runner_settings(settings)
    namespace = runner_settings.namespace
    async with ApiClient.open() as client, KubernetesStore.open(client, namespace) as own_store:
        model_files = cluster_model_files(settings, client)
        own_runner = KubernetesRunner(client, own_store, runner_settings)
        engine = await insist(partial(assemble, settings, own_store, own_runner, model_files))

        async def see_to_the_fence(epoch: int) -> None:
            fenced = await former_leaders_are_fenced(client, namespace, epoch)
            engine.metrics.degraded.labels("leader-fence").set(not fenced)
            if not fenced:
                structlog.get_logger().warning(
                    "degraded: former leaders are not kept from writing, since the admission policy is missing"
                )

        identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        election = Election(client, namespace, identity, prepare=see_to_the_fence)

        async def lead(epoch: int) -> None:
            leading = client.writing_as(field_manager(epoch))
            async with own_store.led(leading, election.leads_since) as store, asyncio.TaskGroup() as loops:
                runner = KubernetesRunner(leading, store, runner_settings)
                loops.create_task(runner.run(), name="runner")
                loops.create_task(drive_jobs(engine, store, runner), name="drive")
                if receivers := receiver_settings():
                    keeper = ReceiverKeeper(leading, receivers)
                    loops.create_task(SourceReviews(store, engine.clock, keeper).run(), name="source-reviews")
                if model_files := cluster_model_files(settings, leading):
                    loops.create_task(model_files.run(), name="model-files")
                if canary := canary_of(settings, epoch):
                    loops.create_task(look_at_network(engine, JobsApi(leading, namespace), canary), name="canary")

        if settings.drives_jobs:
            await election.try_at_once()  # before the watches begin, so that whoever leads from the start lists once
        yield engine, partial(election.run, lead)


async def look_at_network(engine: "Engine", jobs: "JobsApi", canary: "Canary") -> None:
    """Say so where jobs' pods reach what they should not."""
    import structlog

    from labrats.backends.kubernetes.canary import network_is_closed

    match await network_is_closed(jobs, canary):
        case True:
            engine.metrics.degraded.labels("network-policy").set(False)
        case False:
            engine.metrics.degraded.labels("network-policy").set(True)
            structlog.get_logger().warning(
                "degraded: jobs can reach the cluster's network, since nothing enforces its NetworkPolicies"
            )
        case None:
            structlog.get_logger().warning("whether jobs are kept from the cluster's network could not be told")


def open_local_store(settings: "EngineSettings") -> "AbstractAsyncContextManager[Store]":
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
    settings: "EngineSettings", store: "Store", runner: "Runner", model_files: "ModelFiles | None" = None
) -> "Engine":
    """The parts that requests reach.

    An engine that is all there is has an admin key. Where there are several, no one of them makes a key by itself.
    """
    from labrats.api.engine import Engine
    from labrats.api.keys import KeyRing
    from labrats.api.prometheus import Prometheus
    from labrats.api.scanned_models import ScannedModels
    from labrats.api.sessions import Sessions, Signer, new_secret, signing_secret
    from labrats.attachments import Attachments
    from labrats.cache import JobCache
    from labrats.catalog import Catalog
    from labrats.intake.intake import Intake
    from labrats.metrics import Metrics
    from labrats.ports import SystemClock
    from labrats.uploads import Uploads

    if settings.role == "all":
        await ensure_admin_key(store, settings.admin_key_file)
    # An engine that only drives jobs signs nobody in, and on a cluster has no right to make the secret.
    secret = await signing_secret(store, settings.auth_jwt_secret) if settings.answers_requests else new_secret()
    signer = Signer(secret)
    clock = SystemClock()
    catalog, attachments, metrics = Catalog(), Attachments(settings.uploads), Metrics()
    return Engine(
        store=store,
        runner=runner,
        clock=clock,
        settings=settings,
        cache=JobCache(),
        catalog=catalog,
        intake=Intake(store, catalog, attachments, metrics),
        keys=KeyRing([key.get_secret_value() for key in settings.submit_api_keys]),
        sessions=Sessions(signer, timedelta(hours=settings.session_hours)),
        provider=openid_provider(settings, signer),
        prometheus=Prometheus(settings.prometheus_url) if settings.prometheus_url else None,
        attachments=attachments,
        workspace_uploads=Uploads(settings.uploads),
        pdf_uploads=Uploads(settings.pdf_uploads, stored_as="document.pdf"),
        models=ScannedModels(model_files, clock) if model_files else None,
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
    from labrats.api.oidc import Issuer, Provider, connection
    from labrats.ports import SystemClock

    if not (settings.oidc_issuer and settings.oidc_client_id):
        return None
    issuer = Issuer(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)
    return Provider(issuer, signer, SystemClock(), connection())


def read_settings(**options: Any) -> "EngineSettings":
    """The settings of the environment, and over them the `options` that are not None."""
    from labrats.settings import EngineSettings

    return EngineSettings(**{name: value for name, value in options.items() if value is not None})


def local_runner_settings(settings: "EngineSettings") -> "LocalRunnerSettings":
    from labrats.backends.embedded.folders import Folders
    from labrats.backends.embedded.runner import LocalRunnerSettings

    programs = {
        "claude": settings.claude_path or shutil.which("claude"),
        "codex": settings.codex_path or shutil.which("codex"),
    }
    return LocalRunnerSettings(
        folders=Folders(settings.data_dir / "attempts", settings.workspaces),
        uploads=settings.uploads,
        environment=dict(os.environ),
        programs={provider: program for provider, program in programs.items() if program},
        git_addresses=settings.outbound_allowed_cidrs,
        repo_roots=settings.local_repo_roots,
        cli_login=settings.claude_use_login,
        idle_seconds=settings.agent_idle_seconds,
        sandbox=sandbox_of(settings),
        allow_untrusted=settings.allow_untrusted,
    )


def sandbox_of(settings: "EngineSettings") -> "Sandbox | None":
    """How agents are confined, where the settings say so. Raises LabratsError when that cannot be done here."""
    from labrats.model.protocol import Sandbox

    if not settings.sandbox:
        return None
    advice = "install bubblewrap (0.8 or newer), and let users have namespaces; or start without --sandbox"
    if (program := shutil.which("bwrap")) is None:
        raise LabratsError(f"there is no bwrap on PATH to confine agents with; {advice}")
    command = [program, "--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode != 0:
        raise LabratsError(f"agents cannot be confined here, bwrap says: {tried.stderr.strip()}; {advice}")
    own = (settings.data_dir, settings.workspaces, settings.uploads, Path.home())
    return Sandbox(program=program, hidden=tuple(str(folder) for folder in (*own, *map(Path, SHARED_FOLDERS))))


def cluster_runner_settings(settings: "EngineSettings") -> "KubernetesRunnerSettings":
    from labrats.backends.kubernetes.pod import PodSettings
    from labrats.backends.kubernetes.runner import KubernetesRunnerSettings
    from labrats.settings import KubernetesSettings

    kubernetes = KubernetesSettings()
    pods = PodSettings(
        image=kubernetes.executor_image,
        resources=kubernetes.executor_resources,
        scratch_size=kubernetes.executor_scratch,
        uploads_claim=kubernetes.uploads_claim,
        pod_fields=kubernetes.executor_pod,
        git_addresses=settings.outbound_allowed_cidrs,
        idle_seconds=settings.agent_idle_seconds,
        grace_seconds=settings.stop_grace_seconds,
        start_timeout_seconds=kubernetes.start_timeout_seconds,
        kept_seconds=round(kubernetes.finished_job_hours * 3600),
    )
    return KubernetesRunnerSettings(kubernetes.namespace, settings.data_dir / "attempts", pods)


SHARED_WITH_RECEIVERS: Final = (
    "LABRATS_EXECUTOR_IMAGE",
    "LABRATS_LOG_FORMAT",
    "LABRATS_LOG_LEVEL",
    "LABRATS_TRUSTED_PROXIES",
    "OUTBOUND_ALLOWED_CIDRS",
)
"""The settings, none of them secret, that a receiver has from the leader that provides it."""


def receiver_settings() -> "ReceiverSettings | None":
    """How webhook sources get receivers, where there is an image to run."""
    from labrats.backends.kubernetes.receivers import ReceiverSettings
    from labrats.settings import KubernetesSettings

    kubernetes = KubernetesSettings()
    if not kubernetes.receiver_image:
        return None
    return ReceiverSettings(
        namespace=kubernetes.namespace,
        image=kubernetes.receiver_image,
        account=kubernetes.receiver_account,
        pod_fields=kubernetes.receiver_pod,
        environment={name: os.environ[name] for name in SHARED_WITH_RECEIVERS if name in os.environ},
    )


def cluster_model_files(settings: "EngineSettings", client: "ApiClient") -> "ClusterModelFiles | None":
    """What deals with models' files, where there is a volume for them."""
    from labrats.backends.kubernetes.model_files import ClusterModelFiles, ModelPodSettings
    from labrats.settings import KubernetesSettings

    kubernetes = KubernetesSettings()
    if not (kubernetes.models_claim and kubernetes.engine_image):
        return None
    environment = {
        "OUTBOUND_ALLOWED_CIDRS": ",".join(settings.outbound_allowed_cidrs),
        "LABRATS_MAX_MODEL_FILE_GIB": str(settings.max_model_file_gib),
    }
    pods = ModelPodSettings(kubernetes.engine_image, kubernetes.models_claim, environment, kubernetes.executor_pod)
    return ClusterModelFiles(client, kubernetes.namespace, pods)


def canary_of(settings: "EngineSettings", epoch: int) -> "Canary | None":
    """What tries the network for the leader of that epoch, where there is an image to do it with."""
    from labrats.backends.kubernetes.canary import Canary
    from labrats.settings import KubernetesSettings

    kubernetes = KubernetesSettings()
    if not (kubernetes.canary_image and kubernetes.pod_ip):
        return None
    name = f"labrats-canary-{epoch}"
    return Canary(name, kubernetes.canary_image, kubernetes.pod_ip, settings.port, kubernetes.executor_pod)


def refuse_unprotected(settings: "EngineSettings") -> None:
    """Raises LabratsError for an address beyond loopback that nobody asked to be reachable."""
    try:
        loopback = settings.host == "localhost" or ip_address(settings.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not settings.oidc_issuer and not settings.allow_public:
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


async def ensure_admin_key(store: "Store", path: Path) -> None:
    """See to it that the file at `path`, which only its owner can read, holds a valid admin key.

    The file is written first: a crash in between leaves a key that is not valid yet, and is made so at the next start.
    """
    from labrats.api.keys import ADMIN, SUBMIT, key_secret, new_key

    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{new_key()}\n")
    except FileExistsError:
        pass
    secret = key_secret(ADMIN, path.read_text().strip(), (SUBMIT, ADMIN))
    try:
        await store.create(secret)
    except Conflict:
        known = await store.get(type(secret), secret.name)
        if known.data["hash"] != secret.data["hash"]:  # the file was replaced, or lost and made anew
            await store.delete(type(secret), secret.name)
            await store.create(secret)


async def announce(engine: "Engine", server: Any, listener: socket.socket, on_ready: OnReady) -> None:
    """Say that the engine is up, once requests are answered from complete caches."""
    import structlog

    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    login_link = await first_login_link(engine, url)  # beforehand: whoever finds the engine ready finds it printed
    for synced in engine.watches.values():
        await synced.wait()
    await server.listening.wait()
    structlog.get_logger().info("engine ready", url=url, data=str(engine.settings.data_dir))
    on_ready(url, login_link)
    # What has been loaded by now stays: the collector need not look at it again, and garbage is rare afterwards.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def first_login_link(engine: "Engine", url: str) -> str | None:
    """The link by which the owner of this machine's engine signs in for the first time."""
    from labrats.api.login_links import make_link

    settings = engine.settings
    if settings.backend != "embedded" or settings.oidc_issuer:
        return None
    return await make_link(engine.store, settings.public_url or url, engine.clock.now())


def _stop_on_signals(engine: "Engine", server: Any) -> None:
    def stop() -> None:
        engine.stopping.set()  # open streams end; their readers resume at the next engine
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)

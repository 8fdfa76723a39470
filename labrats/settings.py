"""Every knob of the engine. Read from the environment by main.py, and handed on as they are."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from labrats.model.protocol import IDLE_SECONDS
from labrats.net.address_policy import parse_networks
from labrats.net.webhook_signature import signing_key

Words = Annotated[tuple[str, ...], NoDecode]
Paths = Annotated[tuple[Path, ...], NoDecode]
"""Several values in one variable, separated by commas."""


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/labrats`, or `~/.local/share/labrats`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "labrats"


_SWITCH_WORDS: Final = (
    dict.fromkeys(("1", "yes", "on", "t", "y"), "true")
    | dict.fromkeys(("0", "no", "off", "f", "n"), "false")
    | {"true": "true", "false": "false"}
)


class EngineSettings(BaseSettings):
    """The settings of the engine, each with a default that works on one machine with nothing else."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, populate_by_name=True)

    backend: str = Field(default="embedded", pattern="^(embedded|kubernetes)$", validation_alias="LABRATS_BACKEND")
    """Where jobs are kept and run: embedded (this machine alone), or kubernetes (the cluster that is configured)."""
    role: str = Field(default="all", pattern="^(all|api|controller|webhook-receiver)$", validation_alias="LABRATS_ROLE")
    """What of the engine this process is: all of it, or, on a cluster, one of several that answer requests (api), or
    one of several of which one at a time drives jobs (controller), or what receives for one WebhookSource
    (webhook-receiver)."""
    host: str = Field(default="127.0.0.1", validation_alias="LABRATS_HOST")
    """The address to listen on. Beyond loopback only with an OIDC_ISSUER, or LABRATS_ALLOW_PUBLIC=true."""
    port: int = Field(default=3001, ge=0, le=65535, validation_alias="PORT")
    """The port to listen on; 0 takes a free one."""
    allow_public: bool = Field(default=False, validation_alias="LABRATS_ALLOW_PUBLIC")
    """Listen beyond loopback although no issuer says who may sign in."""
    public_url: str | None = Field(
        default=None, pattern=r"^https?://[^\s/?#@]+$", validation_alias="LABRATS_PUBLIC_URL"
    )
    """How browsers reach the engine, such as https://labrats.example.com. Default: as their requests say."""
    allowed_hosts: Words = Field(default=(), validation_alias="LABRATS_ALLOWED_HOSTS")
    """Names, separated by commas, by which an engine on loopback may be called, beside loopback's own and that of
    LABRATS_PUBLIC_URL: what a proxy passes on as Host."""
    trusted_proxies: Words = Field(default=("127.0.0.1", "::1"), validation_alias="LABRATS_TRUSTED_PROXIES")
    """Addresses or CIDR networks, separated by commas, whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    data_dir: Path = Field(default_factory=default_data_dir, validation_alias="LABRATS_DATA_DIR")
    """Where everything is kept: the database, attempts, workspaces, uploads, the admin key."""
    workspace_dir: Path | None = Field(default=None, validation_alias="WORKSPACE_DIR")
    """Where agents' workspaces are made, and PDFs are kept in `uploads`. Default: `workspaces` in the data folder."""
    uploads_dir: Path | None = Field(default=None, validation_alias="UPLOADS_DIR")
    """Where files for workspaces are kept. Default: `uploads` in the data folder."""
    models_dir: Path | None = Field(default=None, validation_alias="LABRATS_MODELS_DIR")
    """Where the files of local models are kept, by provider. Default: `models` in the data folder."""
    max_model_file_gib: float = Field(default=200, gt=0, validation_alias="LABRATS_MAX_MODEL_FILE_GIB")
    """The largest file that is downloaded for a local model."""
    submit_api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(default=(), validation_alias="SUBMIT_API_KEYS")
    """API keys that may submit jobs, separated by commas, beside the stored ones."""
    oidc_issuer: str | None = Field(default=None, pattern=r"^https?://[^\s?#]+$", validation_alias="OIDC_ISSUER")
    """The OpenID provider where users sign in, as it calls itself: https://auth.example.com."""
    oidc_client_id: str | None = Field(default=None, min_length=1, validation_alias="OIDC_CLIENT_ID")
    """How the provider knows the engine."""
    oidc_client_secret: SecretStr | None = Field(default=None, min_length=1, validation_alias="OIDC_CLIENT_SECRET")
    """What the engine proves itself to the provider with; none for a public client."""
    auth_jwt_secret: SecretStr | None = Field(default=None, min_length=32, validation_alias="AUTH_JWT_SECRET")
    """What the dashboard's sessions are signed with. Default: made once, and kept in the store."""
    session_hours: float = Field(default=12, gt=0, validation_alias="LABRATS_SESSION_HOURS")
    """How long a user stays signed in."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", validation_alias="LABRATS_LOG_LEVEL")
    """The least urgent messages that are logged: debug, info, warning or error."""
    log_format: str = Field(default="auto", pattern="^(auto|console|json)$", validation_alias="LABRATS_LOG_FORMAT")
    """How messages are logged: console, json, or auto (console on a terminal, json elsewhere)."""

    prometheus_url: str | None = Field(
        default=None, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", validation_alias="PROMETHEUS_URL"
    )
    """The Prometheus that scrapes this engine, asked for /api/stats/timeseries. Default: the jobs that are kept."""

    default_model_slots: int = Field(default=4, ge=0, validation_alias="DEFAULT_MODEL_SLOTS")
    """Attempts at once of a provider and model for which there is no AiModel."""
    priority_aging_seconds: float = Field(default=600, gt=0, validation_alias="PRIORITY_AGING_SECONDS")
    """A waiting job gains one level of priority each time it has waited this long."""
    stop_grace_seconds: float = Field(default=10, ge=0, validation_alias="LABRATS_STOP_GRACE_SECONDS")
    """From the polite request to end until an attempt's processes are killed."""
    retry_backoff_seconds: float = Field(default=1, gt=0, validation_alias="LABRATS_RETRY_BACKOFF_SECONDS")
    """The wait before a second attempt by `maxAttempts`; doubled for each further one, at most 5 minutes."""
    model_pause_seconds: float = Field(default=30, gt=0, validation_alias="LABRATS_MODEL_PAUSE_SECONDS")
    """How long a model is left alone after a rate limit or overload whose end its provider does not say; doubled while
    it lasts, at most 5 minutes. Its jobs wait meanwhile, up to their deadlines."""
    max_chain_depth: int = Field(default=10, ge=0, validation_alias="MAX_CHAIN_DEPTH")
    """How many agents may follow the first one of a chain."""
    workspace_retention_hours: float = Field(default=24, ge=0, validation_alias="LABRATS_WORKSPACE_RETENTION_HOURS")
    """How long the workspace of an ended job is kept for inspection."""
    job_retention_days: float = Field(default=30, gt=0, validation_alias="LABRATS_JOB_RETENTION_DAYS")
    """How long an ended job and its log are kept."""
    github_api_url: str = Field(
        default="https://api.github.com", pattern=r"^https?://[^\s?#@]+$", validation_alias="LABRATS_GITHUB_API_URL"
    )
    """Where tokens for repositories are asked for. For GitHub Enterprise: https://HOST/api/v3."""
    webhook_source: str | None = Field(default=None, validation_alias="LABRATS_WEBHOOK_SOURCE")
    """The WebhookSource that a webhook-receiver receives for."""
    webhook_path: str | None = Field(default=None, validation_alias="LABRATS_WEBHOOK_PATH")
    """Where it receives. Default: /webhooks/ and the source's name."""
    webhook_secret_file: Path | None = Field(default=None, validation_alias="LABRATS_WEBHOOK_SECRET_FILE")
    """The file with the source's secret."""
    max_waiting_jobs: int = Field(default=100_000, gt=0, validation_alias="LABRATS_MAX_WAITING_JOBS")
    """Submissions beyond this many waiting jobs are answered 429."""

    outbound_allowed_cidrs: Words = Field(default=(), validation_alias="OUTBOUND_ALLOWED_CIDRS")
    """Networks, as CIDR separated by commas, that callbacks, git and model files may reach beside public ones."""
    callback_allowed_hosts: Words = Field(default=(), validation_alias="CALLBACK_ALLOWED_HOSTS")
    """Hosts that callbacks may reach wherever they are, separated by commas; one with a port is open at that port."""
    callback_signing_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), validation_alias="CALLBACK_SIGNING_SECRET"
    )
    """What callbacks are signed with, as Standard Webhooks has it: `whsec_` and base64, or any other text. Several,
    separated by commas, while receivers change from one to the next. Default: callbacks are not signed."""
    local_repo_roots: Words = Field(default=(), validation_alias="LOCAL_REPO_ROOTS")
    """Folders, separated by commas, below which `workspaceSetup.gitRepo` may be a path on this machine."""
    git_ssh_key: Path | None = Field(default=None, validation_alias="LABRATS_GIT_SSH_KEY")
    """The private key, without a passphrase, for repositories that are cloned by ssh. Default: none; the keys of the
    engine's user are not used."""
    git_ssh_known_hosts: Path | None = Field(default=None, validation_alias="LABRATS_GIT_SSH_KNOWN_HOSTS")
    """The known_hosts file that ssh holds servers to. Default: the machine's own, and any key of an unknown server."""

    executor_images: Words = Field(default=(), validation_alias="LABRATS_EXECUTOR_IMAGES")
    """On Kubernetes, the images that a job may name in `config.executorImage`, separated by commas. Default: any."""
    labelled_credentials: bool = Field(default=False, validation_alias="LABRATS_LABELLED_CREDENTIALS")
    """On Kubernetes, give jobs only the Secrets with the label labrats.work/type=job-credentials."""

    claude_path: str | None = Field(default=None, validation_alias="LABRATS_CLAUDE_PATH")
    """The Claude Code program. Default: `claude` on PATH."""
    codex_path: str | None = Field(default=None, validation_alias="LABRATS_CODEX_PATH")
    """The Codex program. Default: `codex` on PATH."""
    sandbox: str | None = Field(default=None, pattern="^(auto|true|false)$", validation_alias="LABRATS_SANDBOX")
    """Run agents in a sandbox (bubblewrap), where they see the system's programs, their workspace and nothing else:
    true (refuse to start where that does not work), auto (run without it there, with a warning) or false. Default:
    auto; false for a data folder that an earlier version created."""
    sandbox_read_paths: Paths = Field(default=(), validation_alias="LABRATS_SANDBOX_READ_PATHS")
    """Files and folders, separated by commas, that agents in the sandbox may read as well: toolchains in a home folder,
    scripts of MCP servers."""
    allow_untrusted: bool = Field(default=False, validation_alias="LABRATS_ALLOW_UNTRUSTED")
    """Run jobs of external contributors, whom a webhook source admits, although agents run without a sandbox."""
    claude_use_login: bool = Field(default=False, validation_alias="LABRATS_CLAUDE_USE_LOGIN")
    """Let jobs without other credentials use this user's own Claude Code login."""
    max_output_mib: int = Field(default=256, gt=0, le=65536, validation_alias="LABRATS_MAX_OUTPUT_MIB")
    """Bound on the log lines and events of an attempt; beyond it the job fails with the code output_limit."""
    agent_idle_seconds: float = Field(default=IDLE_SECONDS, gt=0, validation_alias="LABRATS_AGENT_IDLE_SECONDS")
    """Limit on the silence of a model that an attempt waits for, whatever the provider. A tool may take longer."""

    @field_validator(
        "submit_api_keys",
        "callback_signing_secrets",
        "outbound_allowed_cidrs",
        "allowed_hosts",
        "callback_allowed_hosts",
        "local_repo_roots",
        "sandbox_read_paths",
        "executor_images",
        "trusted_proxies",
        mode="before",
    )
    @classmethod
    def _split_words(cls, value: Any) -> Any:
        return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value

    @field_validator("outbound_allowed_cidrs", "trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parse_networks(value)
        return value

    @field_validator("sandbox", mode="before")
    @classmethod
    def _name_switch(cls, value: Any) -> Any:
        """Take the words for a switch that the setting took before it had three values."""
        word = str(value).lower()
        if value in (None, ""):
            return None
        if word not in _SWITCH_WORDS and word != "auto":
            raise ValueError(f"must be auto, true or false, and not {value!r}")
        return _SWITCH_WORDS.get(word, word)

    @field_validator("sandbox_read_paths")
    @classmethod
    def _check_read_paths(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        paths = tuple(path.expanduser() for path in value)
        for path in paths:
            if not path.is_absolute():
                raise ValueError(f"{str(path)!r} is not an absolute path")
        return paths

    @field_validator("allowed_hosts", "callback_allowed_hosts")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower() for host in value)

    @field_validator("callback_signing_secrets")
    @classmethod
    def _check_signing_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            signing_key(secret.get_secret_value())
        return value

    @field_validator("data_dir", "workspace_dir", "uploads_dir", "models_dir", "git_ssh_key", "git_ssh_known_hosts")
    @classmethod
    def _make_absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None

    @property
    def listens_on_loopback(self) -> bool:
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def answers_requests(self) -> bool:
        return self.role in ("all", "api")

    @property
    def needs_jobs(self) -> bool:
        """Whether it has to know all jobs. A receiver, which has no right to, only adds to them."""
        return self.role != "webhook-receiver"

    @property
    def receives_webhooks(self) -> bool:
        return self.role != "controller"

    @property
    def drives_jobs(self) -> bool:
        return self.role in ("all", "controller")

    @model_validator(mode="after")
    def _check_receiver(self) -> Self:
        if self.role == "webhook-receiver" and not (self.webhook_source and self.webhook_secret_file):
            raise ValueError("a webhook-receiver needs LABRATS_WEBHOOK_SOURCE and LABRATS_WEBHOOK_SECRET_FILE")
        return self

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("OIDC_ISSUER needs OIDC_CLIENT_ID, the name by which the provider knows the engine")
        return self

    @property
    def callback_signing_keys(self) -> list[bytes]:
        return [signing_key(secret.get_secret_value()) for secret in self.callback_signing_secrets]

    @property
    def own_secrets(self) -> tuple[str, ...]:
        """All secrets among the settings."""
        named = (self.oidc_client_secret, self.auth_jwt_secret)
        secrets = (*self.submit_api_keys, *self.callback_signing_secrets, *filter(None, named))
        return tuple(secret.get_secret_value() for secret in secrets)

    @property
    def workspaces(self) -> Path:
        return self.workspace_dir or self.data_dir / "workspaces"

    @property
    def uploads(self) -> Path:
        return self.uploads_dir or self.data_dir / "uploads"

    @property
    def pdf_uploads(self) -> Path:
        return self.workspaces / "uploads"

    @property
    def models(self) -> Path:
        return self.models_dir or self.data_dir / "models"

    @property
    def max_output_bytes(self) -> int:
        return self.max_output_mib * 2**20

    @property
    def max_model_file_bytes(self) -> int:
        return round(self.max_model_file_gib * 2**30)

    @property
    def admin_key_file(self) -> Path:
        return self.data_dir / "admin.key"


_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def default_namespace() -> str:
    """That of the pod this runs in, or else `default`."""
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else "default"


class PodExtras(BaseModel, frozen=True, extra="forbid"):
    """Additions to pods that the engine makes, as Kubernetes writes them. Its own labels and annotations win."""

    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = Field(default=(), alias="volumeMounts")
    ingress_annotations: dict[str, str] = Field(default={}, alias="ingressAnnotations")


class KubernetesSettings(BaseSettings):
    """What the engine needs to know besides, where its backend is a cluster."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, populate_by_name=True)

    namespace: str = Field(default_factory=default_namespace, validation_alias="LABRATS_NAMESPACE")
    """Where jobs, their prompts and secrets, and their pods are. Default: the engine's own namespace."""
    executor_image: str = Field(min_length=1, validation_alias="LABRATS_EXECUTOR_IMAGE")
    """What attempts run, unless a job names another image."""
    executor_resources: dict[str, dict[str, str]] = Field(
        default={
            "requests": {"cpu": "250m", "memory": "512Mi"},
            "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "12Gi"},
        },
        validation_alias="LABRATS_EXECUTOR_RESOURCES",
    )
    """What an attempt's container asks for and may use: JSON, as in a pod."""
    executor_scratch: str = Field(default="10Gi", validation_alias="LABRATS_EXECUTOR_SCRATCH")
    """How much an attempt's workspace and temporary files may take."""
    executor_pod: dict[str, Any] = Field(default={}, validation_alias="LABRATS_EXECUTOR_POD")
    """Further fields of attempts' pods, such as nodeSelector or runtimeClassName: JSON, as in a pod's spec."""
    executor_extras: PodExtras = Field(default=PodExtras(), validation_alias="LABRATS_EXECUTOR_EXTRAS")
    """Annotations, labels, volumes and volumeMounts that attempts' pods have besides: JSON."""
    uploads_claim: str | None = Field(default=None, validation_alias="LABRATS_UPLOADS_CLAIM")
    """The PersistentVolumeClaim that is mounted where uploads are kept, for attempts to read from."""
    data_claim: str | None = Field(default=None, validation_alias="LABRATS_DATA_CLAIM")
    """The PersistentVolumeClaim that is mounted as the data folder, where a pod claims its attempt. Default: none,
    and an attempt of which the cluster starts two pods is lost."""
    models_claim: str | None = Field(default=None, validation_alias="LABRATS_MODELS_CLAIM")
    """The PersistentVolumeClaim of the files of local models. Default: none, and no files are downloaded."""
    engine_image: str | None = Field(default=None, validation_alias="LABRATS_ENGINE_IMAGE")
    """The engine's own image, which the pods that download and delete such files run."""
    start_timeout_seconds: float = Field(default=300, gt=0, validation_alias="LABRATS_START_TIMEOUT_SECONDS")
    """How long an attempt may wait for a node, its image and its volumes."""
    finished_job_hours: float = Field(default=24, gt=0, validation_alias="LABRATS_FINISHED_JOB_HOURS")
    """How long an attempt's Job stays when it has ended: as long may the engine be away without losing an outcome."""
    canary_image: str | None = Field(default=None, validation_alias="LABRATS_CANARY_IMAGE")
    """The engine's image, with which a leader tries whether jobs' pods reach what they should not. Default: none."""
    receiver_image: str | None = Field(default=None, validation_alias="LABRATS_RECEIVER_IMAGE")
    """The engine's image, which a leader has receive for each WebhookSource. Default: none, and no receivers."""
    receiver_account: str = Field(default="labrats-webhook-receiver", validation_alias="LABRATS_RECEIVER_ACCOUNT")
    """The ServiceAccount of these receivers."""
    receiver_pod: dict[str, Any] = Field(default={}, validation_alias="LABRATS_RECEIVER_POD")
    """Further fields of their pods: JSON, as in a pod's spec."""
    receiver_extras: PodExtras = Field(default=PodExtras(), validation_alias="LABRATS_RECEIVER_EXTRAS")
    """Annotations, labels, volumes, volumeMounts and ingressAnnotations that they have besides: JSON."""
    receiver_resources: dict[str, dict[str, str | int | float]] = Field(
        default={"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
        validation_alias="LABRATS_RECEIVER_RESOURCES",
    )
    """Requests and limits of a receiver's container: JSON, as in a pod."""
    pod_ip: str | None = Field(default=None, validation_alias="LABRATS_POD_IP")
    """The address of the pod this runs in, which jobs' pods should not reach."""

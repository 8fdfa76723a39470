"""All settings of the engine. main.py reads them once from the environment and passes them on unchanged."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from labrats.model.codex_login import RENEWAL_VARIABLE
from labrats.model.isolation import Isolation
from labrats.model.network import Network, read_network
from labrats.model.protocol import ATTEMPT_VARIABLE, IDLE_SECONDS, ResourceLimits
from labrats.model.sizes import default_kept_free, read_size
from labrats.net.address_policy import parse_networks
from labrats.net.webhook_signature import signing_key

Words = Annotated[tuple[str, ...], NoDecode]
Paths = Annotated[tuple[Path, ...], NoDecode]
"""Comma-separated values of one variable."""


def default_data_dir() -> Path:
    """Return `$XDG_DATA_HOME/labrats`, or `~/.local/share/labrats`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "labrats"


def _lower_case(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _url(pattern: str, words: str) -> AfterValidator:
    """Return a check that a setting is a URL, described by `words`."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check)


def _without_slash(value: Any) -> Any:
    """Return a URL without a slash at its end, with which people write a host."""
    return value.removesuffix("/") if isinstance(value, str) else value


Backend = Annotated[Literal["embedded", "kubernetes"], BeforeValidator(_lower_case)]
Role = Annotated[Literal["all", "api", "controller", "publisher", "webhook-receiver"], BeforeValidator(_lower_case)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower_case)]
LogFormat = Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower_case)]
PublicUrl = Annotated[
    str,
    BeforeValidator(_without_slash),
    _url(r"https?://[^\s/?#@]+", "a URL without a path, such as https://labrats.example.com"),
]
Issuer = Annotated[str, _url(r"https?://[^\s?#]+", "a URL without a query, such as https://auth.example.com")]
GithubUrl = Annotated[
    str,
    BeforeValidator(_without_slash),
    _url(r"https?://[^\s?#@]+", "the URL of an API, such as https://github.example.com/api/v3"),
]
PrometheusUrl = Annotated[
    str, _url(r"https?://[^\s/?#@]+(/[^\s?#]*)?", "a URL without a query, such as http://127.0.0.1:9090")
]

_YEAR_SECONDS: Final = 31_536_000
_CENTURY_HOURS: Final = 876_000
_CENTURY_DAYS: Final = 36_500
"""Limits on times, which dates and timers can represent. A century stands for "for ever"."""

MIN_API_KEY_LENGTH: Final = 16
"""Characters of a key below which it can be guessed."""

_OWN_FOLDERS: Final = (Path("/dev"), Path("/proc"))
"""Folders of which a sandbox has its own."""

_TOO_MUCH: Final = (Path("/"), Path("/sys"))
"""Folders that have such a folder in them, or much else that is not for agents."""

_BOOLEAN_WORDS: Final = (
    dict.fromkeys(("1", "yes", "on", "t", "y"), "true")
    | dict.fromkeys(("0", "no", "off", "f", "n"), "false")
    | {"true": "true", "false": "false"}
)


class EngineSettings(BaseSettings):
    """The settings of the engine. Every default works on a single machine without further services."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    backend: Backend = Field(default="embedded", validation_alias="LABRATS_BACKEND")
    """The backend that stores and runs jobs: embedded (this machine), or kubernetes (the configured cluster)."""
    role: Role = Field(default="all", validation_alias="LABRATS_ROLE")
    """The part of the engine that this process runs. all: everything. On a cluster also api: one of several that
    answer requests; controller: one of several of which one at a time drives jobs; publisher: the one that writes to
    GitHub; webhook-receiver: the receiver of one WebhookSource."""
    host: str = Field(default="127.0.0.1", validation_alias="LABRATS_HOST")
    """The address to listen on. One beyond loopback needs OIDC_ISSUER or LABRATS_ALLOW_PUBLIC=true."""
    port: int = Field(default=3001, ge=0, le=65535, validation_alias="PORT")
    """The port to listen on; 0 chooses a free one."""
    allow_public: bool = Field(default=False, validation_alias="LABRATS_ALLOW_PUBLIC")
    """Allow listening beyond loopback without an OIDC_ISSUER."""
    public_url: PublicUrl | None = Field(default=None, validation_alias="LABRATS_PUBLIC_URL")
    """The URL at which browsers reach the engine, such as https://labrats.example.com. Default: the Host header of
    each request."""
    allowed_hosts: Words = Field(default=(), validation_alias="LABRATS_ALLOWED_HOSTS")
    """Further host names, separated by commas, that an engine on loopback accepts in the Host header, in addition to
    loopback's names and that of LABRATS_PUBLIC_URL."""
    trusted_proxies: Words = Field(default=("127.0.0.1", "::1"), validation_alias="LABRATS_TRUSTED_PROXIES")
    """Addresses or CIDR networks, separated by commas, whose X-Forwarded-For and X-Forwarded-Proto are trusted."""
    data_dir: Path = Field(default_factory=default_data_dir, validation_alias="LABRATS_DATA_DIR")
    """The data folder: the database, attempts, workspaces, uploads and the admin key."""
    workspace_dir: Path | None = Field(default=None, validation_alias="WORKSPACE_DIR")
    """The folder of agents' workspaces, and of PDFs in `uploads`. Default: `workspaces` in the data folder."""
    uploads_dir: Path | None = Field(default=None, validation_alias="UPLOADS_DIR")
    """The folder of uploaded workspace files. Default: `uploads` in the data folder."""
    models_dir: Path | None = Field(default=None, validation_alias="LABRATS_MODELS_DIR")
    """The folder of local models' files, by provider. Default: `models` in the data folder."""
    max_model_file_gib: float = Field(default=200, gt=0, le=1_000_000, validation_alias="LABRATS_MAX_MODEL_FILE_GIB")
    """The limit on the size of a file that is downloaded for a local model."""
    submit_api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(default=(), validation_alias="SUBMIT_API_KEYS")
    """API keys that may submit jobs, separated by commas, in addition to the stored ones."""
    oidc_issuer: Issuer | None = Field(default=None, validation_alias="OIDC_ISSUER")
    """The OpenID provider where users sign in, exactly as it names itself: https://auth.example.com."""
    oidc_client_id: str | None = Field(default=None, min_length=1, validation_alias="OIDC_CLIENT_ID")
    """The engine's client id at the OpenID provider."""
    oidc_client_secret: SecretStr | None = Field(default=None, min_length=1, validation_alias="OIDC_CLIENT_SECRET")
    """The engine's client secret at the OpenID provider; none for a public client."""
    oidc_admin_groups: Words = Field(default=(), validation_alias="OIDC_ADMIN_GROUPS")
    """The groups whose members have all permissions, separated by commas; other users only read. Default: all users."""
    auth_jwt_secret: SecretStr | None = Field(default=None, min_length=32, validation_alias="AUTH_JWT_SECRET")
    """The secret that signs the dashboard's sessions. Default: generated once and stored."""
    session_hours: float = Field(default=12, gt=0, le=_CENTURY_HOURS, validation_alias="LABRATS_SESSION_HOURS")
    """The time until a user has to sign in again."""
    log_level: LogLevel = Field(default="info", validation_alias="LABRATS_LOG_LEVEL")
    """The lowest level that is logged: debug, info, warning or error."""
    log_format: LogFormat = Field(default="auto", validation_alias="LABRATS_LOG_FORMAT")
    """The format of the log: console, json, or auto (console on a terminal, json elsewhere)."""

    prometheus_url: PrometheusUrl | None = Field(default=None, validation_alias="PROMETHEUS_URL")
    """The Prometheus that scrapes this engine, queried for /api/stats/timeseries. Default: the retained jobs."""

    default_model_slots: int = Field(default=4, ge=0, validation_alias="DEFAULT_MODEL_SLOTS")
    """The slots of a provider and model without an AiModel."""
    priority_aging_seconds: float = Field(default=600, gt=0, validation_alias="PRIORITY_AGING_SECONDS")
    """The waiting time after which a job gains one level of priority, repeatedly."""
    stop_grace_seconds: float = Field(default=10, ge=0, le=_YEAR_SECONDS, validation_alias="LABRATS_STOP_GRACE_SECONDS")
    """The time between asking an attempt to end and killing its processes."""
    retry_backoff_seconds: float = Field(
        default=1, gt=0, le=_YEAR_SECONDS, validation_alias="LABRATS_RETRY_BACKOFF_SECONDS"
    )
    """The pause before a second attempt by `maxAttempts`; doubled for each further one, at most 5 minutes."""
    model_pause_seconds: float = Field(
        default=30, gt=0, le=_YEAR_SECONDS, validation_alias="LABRATS_MODEL_PAUSE_SECONDS"
    )
    """The pause of a model after a rate limit or overload without a retry time from its provider; doubled while it
    lasts, at most 5 minutes. Jobs of the model wait meanwhile, up to their deadlines."""
    event_jobs_per_thread: int = Field(default=10, ge=1, validation_alias="LABRATS_EVENT_JOBS_PER_THREAD")
    """The maximum number of jobs that events start for one issue or pull request within an hour."""
    max_chain_depth: int = Field(default=10, ge=0, validation_alias="MAX_CHAIN_DEPTH")
    """The maximum number of agents after the first one of a chain."""
    workspace_retention_hours: float = Field(
        default=24, ge=0, le=_CENTURY_HOURS, validation_alias="LABRATS_WORKSPACE_RETENTION_HOURS"
    )
    """The time for which the workspace of an ended job is retained for inspection."""
    job_retention_days: float = Field(default=30, gt=0, le=_CENTURY_DAYS, validation_alias="LABRATS_JOB_RETENTION_DAYS")
    """The time for which an ended job and its log are retained, at most 36500 days (a century)."""
    history_mib: int = Field(default=256, gt=0, validation_alias="LABRATS_HISTORY_MIB")
    """On a cluster, the bound on all stored jobs, in MiB of etcd. Beyond it, the oldest ended jobs are deleted before
    LABRATS_JOB_RETENTION_DAYS."""
    github_api_url: GithubUrl = Field(default="https://api.github.com", validation_alias="LABRATS_GITHUB_API_URL")
    """The GitHub API that issues tokens for repositories. For GitHub Enterprise: https://HOST/api/v3."""
    codex_token_url: GithubUrl = Field(default="https://auth.openai.com/oauth/token", validation_alias=RENEWAL_VARIABLE)
    """The server that renews the logins of Codex, for tests and gateways. Codex reads the same variable."""
    publisher_scratch: Annotated[int, NoDecode] | None = Field(
        default=None, validation_alias="LABRATS_PUBLISHER_SCRATCH"
    )
    """The space for the repositories from which commits are pushed to GitHub, such as 1Gi. They may use three quarters
    of it together; the commits of a larger repository are not pushed. Default: half of the free disk."""
    report_interval_seconds: float = Field(
        default=5, gt=0, le=_YEAR_SECONDS, validation_alias="LABRATS_REPORT_INTERVAL_SECONDS"
    )
    """The shortest time between two edits of what a job reports on GitHub."""
    link_hosts: Words = Field(default=(), validation_alias="LABRATS_LINK_HOSTS")
    """Hosts, separated by commas, to which texts of agents on GitHub may link and whose images they may show, besides
    GitHub, the engine and the homepage of the repository."""
    webhook_source: str | None = Field(default=None, validation_alias="LABRATS_WEBHOOK_SOURCE")
    """The WebhookSource of a webhook-receiver."""
    webhook_path: str | None = Field(default=None, validation_alias="LABRATS_WEBHOOK_PATH")
    """The path at which a webhook-receiver accepts deliveries. Default: /webhooks/ and the source's name."""
    webhook_secret_file: Path | None = Field(default=None, validation_alias="LABRATS_WEBHOOK_SECRET_FILE")
    """The file with the signing secret of a webhook-receiver's source."""
    max_waiting_jobs: int = Field(default=100_000, gt=0, validation_alias="LABRATS_MAX_WAITING_JOBS")
    """The limit on waiting jobs; further submissions are answered 429."""
    max_waiting_jobs_per_owner: int | None = Field(
        default=None, gt=0, validation_alias="LABRATS_MAX_WAITING_JOBS_PER_OWNER"
    )
    """The limit on waiting jobs of one owner: an API key, a user or a webhook source. Further submissions of this owner
    are answered 429, while others are accepted. Default: none."""

    outbound_allowed_cidrs: Words = Field(default=(), validation_alias="OUTBOUND_ALLOWED_CIDRS")
    """Networks in CIDR notation, separated by commas, that callbacks, git and model files may reach in addition to
    public addresses."""
    callback_allowed_hosts: Words = Field(default=(), validation_alias="CALLBACK_ALLOWED_HOSTS")
    """Hosts, separated by commas, that callbacks may reach whatever their address; with a port, only at that port."""
    callback_signing_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), validation_alias="CALLBACK_SIGNING_SECRET"
    )
    """The secrets that sign callbacks by Standard Webhooks: `whsec_` and base64, or any other text. Several, separated
    by commas, while receivers change from one to the next. Default: callbacks are not signed."""
    local_repo_roots: Words = Field(default=(), validation_alias="LOCAL_REPO_ROOTS")
    """Folders, separated by commas, that contain the repositories which `workspaceSetup.gitRepo` may name by path."""
    git_ssh_key: Path | None = Field(default=None, validation_alias="LABRATS_GIT_SSH_KEY")
    """The private key, without a passphrase, for cloning over ssh. Default: none; the keys of the engine's user are
    not used."""
    git_ssh_known_hosts: Path | None = Field(default=None, validation_alias="LABRATS_GIT_SSH_KNOWN_HOSTS")
    """The known_hosts file for ssh. Default: the machine's own file; the key of an unknown server is accepted."""

    cache_gib: float = Field(default=10, ge=0, le=100_000, validation_alias="LABRATS_CACHE_GIB")
    """The limit, in GiB, on the folders that jobs share by `workspaceSetup.cache`. The least recently used ones are
    deleted. 0: no folder is stored. On Kubernetes they are on the engine's volume, by default none."""

    executor_images: Words = Field(default=(), validation_alias="LABRATS_EXECUTOR_IMAGES")
    """On Kubernetes, the images that a job may name in `config.executorImage`, separated by commas. Default: any."""
    labelled_credentials: bool = Field(default=False, validation_alias="LABRATS_LABELLED_CREDENTIALS")
    """On Kubernetes, restrict jobs to Secrets with the label labrats.work/type=job-credentials."""

    write_secrets: bool | None = Field(default=None, validation_alias="LABRATS_WRITE_SECRETS")
    """Let administrators write Secrets of jobs through the API. Default: true on one machine, false on Kubernetes."""

    claude_path: str | None = Field(default=None, validation_alias="LABRATS_CLAUDE_PATH")
    """The Claude Code program. Default: `claude` on PATH."""
    codex_path: str | None = Field(default=None, validation_alias="LABRATS_CODEX_PATH")
    """The Codex program. Default: `codex` on PATH."""
    sandbox: Literal["auto", "true", "false"] | None = Field(default=None, validation_alias="LABRATS_SANDBOX")
    """Run agents in a sandbox (bubblewrap) that shows them the system's programs and their workspace only: true (refuse
    to start without one), auto (warn and run without one where it does not work) or false. Default: auto; false for a
    data folder that an earlier version created."""
    isolation: Isolation | None = Field(default=None, validation_alias="LABRATS_ISOLATION")
    """The isolation of agents, unless their job or agent names another one: process, sandbox, container or vm. A
    stronger level takes the place of one that this engine does not have; it refuses to start without either. Default:
    as LABRATS_SANDBOX says on one machine, and container on Kubernetes."""
    untrusted_isolation: Isolation | None = Field(default=None, validation_alias="LABRATS_UNTRUSTED_ISOLATION")
    """The minimum isolation of jobs that external contributors cause: process, sandbox, container or vm. Default:
    sandbox, or process if LABRATS_ALLOW_UNTRUSTED is true."""
    sandbox_ptrace: bool = Field(default=False, validation_alias="LABRATS_SANDBOX_PTRACE")
    """Allow the processes of an agent in the sandbox to trace each other, which debuggers and strace need."""
    network: Annotated[Network, NoDecode] | None = Field(default=None, validation_alias="LABRATS_NETWORK")
    """The hosts that agents and their tools may reach, unless their job or agent says otherwise: open (all), public
    (all with public addresses, by a proxy), none (only the server of their model), or host names and presets with
    commas between them, such as npm,*.example.com. All but open need the sandbox. Default: public in the sandbox; open
    without it, on a cluster, and for a data folder that an earlier version created."""
    sandbox_read_paths: Paths = Field(default=(), validation_alias="LABRATS_SANDBOX_READ_PATHS")
    """Files and folders, separated by commas, that agents in the sandbox may also read: toolchains in a home folder,
    scripts of MCP servers."""
    allow_untrusted: bool = Field(default=False, validation_alias="LABRATS_ALLOW_UNTRUSTED")
    """Run jobs of external contributors that a webhook source admits, although agents run without a sandbox or, on
    Kubernetes, without enforced NetworkPolicies. Same as LABRATS_UNTRUSTED_ISOLATION=process."""
    agent_memory: Annotated[int, NoDecode] | None = Field(default=None, validation_alias="LABRATS_AGENT_MEMORY")
    """The limit on the memory of all processes of an attempt together, such as 4Gi; beyond it the job fails with the
    code out_of_memory. It is measured ten times a second. Default: none."""
    agent_processes: int | None = Field(default=None, gt=0, validation_alias="LABRATS_AGENT_PROCESSES")
    """The limit on the number of processes of an attempt, and on 32 times as many threads, also measured; beyond it the
    job fails with the code process_limit. Default: none."""
    agent_cpus: int | None = Field(default=None, gt=0, validation_alias="LABRATS_AGENT_CPUS")
    """The number of processors that all agents of this machine share; the engine and other programs have the others for
    themselves. An agent outside of the sandbox can ignore it. Default: all processors. On Kubernetes, pods have
    limits of their own."""
    workspace_gib: float | None = Field(default=None, gt=0, le=1_000_000, validation_alias="LABRATS_WORKSPACE_GIB")
    """The limit on the workspace of an attempt, with the agent's home and temporary files; beyond it the job fails with
    the code disk_limit. It is measured about once a second. Default: none."""
    workspaces_gib: float | None = Field(default=None, gt=0, le=1_000_000, validation_alias="LABRATS_WORKSPACES_GIB")
    """The limit on all workspaces together, on one machine. Beyond it, those of ended jobs are deleted, the oldest
    first; patches, commits and logs stay. Default: none."""
    free_gib: float | None = Field(default=None, ge=0, le=1_000_000, validation_alias="LABRATS_FREE_GIB")
    """Free space to keep on the volume with the data folder. With less, the outputs of ended jobs are deleted (logs,
    results, patches and commits, on Kubernetes also stored sessions), the oldest first; the jobs stay.
    Uploads are refused before that. Default: 1 GiB, or 5 % of a volume of less than 20 GiB."""
    claude_use_login: bool = Field(default=False, validation_alias="LABRATS_CLAUDE_USE_LOGIN")
    """Let jobs without other credentials use the Claude Code login of the engine's user."""
    max_output_mib: int = Field(default=256, gt=0, le=65536, validation_alias="LABRATS_MAX_OUTPUT_MIB")
    """The limit on the log lines and events of an attempt; beyond it the job fails with the code output_limit."""
    agent_idle_seconds: float = Field(
        default=IDLE_SECONDS, gt=0, le=_YEAR_SECONDS, validation_alias="LABRATS_AGENT_IDLE_SECONDS"
    )
    """The limit on the silence of a model while an attempt waits for it, for every provider. A tool may take longer."""

    @field_validator(
        "submit_api_keys",
        "oidc_admin_groups",
        "callback_signing_secrets",
        "outbound_allowed_cidrs",
        "allowed_hosts",
        "callback_allowed_hosts",
        "link_hosts",
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

    @field_validator("agent_memory", "publisher_scratch", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> Any:
        return read_size(value) if isinstance(value, str) else value

    @field_validator(
        "agent_memory",
        "publisher_scratch",
        "max_waiting_jobs_per_owner",
        "agent_processes",
        "agent_cpus",
        "workspace_gib",
        "workspaces_gib",
        "free_gib",
        "workspace_dir",
        "uploads_dir",
        "models_dir",
        "git_ssh_key",
        "git_ssh_known_hosts",
        mode="before",
    )
    @classmethod
    def _read_empty(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("data_dir", mode="before")
    @classmethod
    def _require_name(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("must be the path of a folder; without the setting it is `data`")
        return value

    @field_validator("network", mode="before")
    @classmethod
    def _read_network(cls, value: Any) -> Any:
        return read_network(value) if isinstance(value, str) else value

    @field_validator("sandbox", mode="before")
    @classmethod
    def _parse_sandbox(cls, value: Any) -> Any:
        """Accept the words for a boolean, which were valid before the setting had three values."""
        word = str(value).lower()
        if value in (None, ""):
            return None
        if word not in _BOOLEAN_WORDS and word != "auto":
            raise ValueError(f"must be auto, true or false instead of {value!r}")
        return _BOOLEAN_WORDS.get(word, word)

    @field_validator("sandbox_read_paths")
    @classmethod
    def _check_read_paths(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        paths = tuple(path.expanduser() for path in value)
        for path in paths:
            if not path.is_absolute():
                raise ValueError(f"must be absolute paths; {str(path)!r} is not")
            place = path.resolve()
            if place in _TOO_MUCH or any(place.is_relative_to(folder) for folder in _OWN_FOLDERS):
                raise ValueError(f"must be files and folders of programs, such as ~/.cargo; {str(path)!r} is not")
        return paths

    @field_validator("allowed_hosts", "callback_allowed_hosts", "link_hosts")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower() for host in value)

    @field_validator("callback_signing_secrets")
    @classmethod
    def _check_signing_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            signing_key(secret.get_secret_value())
        return value

    @field_validator("local_repo_roots")
    @classmethod
    def _make_all_absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Path(folder).expanduser().absolute()) for folder in value)

    @field_validator("data_dir", "workspace_dir", "uploads_dir", "models_dir", "git_ssh_key", "git_ssh_known_hosts")
    @classmethod
    def _make_absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None

    @property
    def program_paths(self) -> Mapping[str, str | None]:
        """The path of each agent program, by provider; None for the one on PATH."""
        return {"claude": self.claude_path, "codex": self.codex_path}

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
        """True if this process needs the index of all jobs. A receiver only creates jobs, and may not read them."""
        return self.role not in ("publisher", "webhook-receiver")

    @property
    def receives_webhooks(self) -> bool:
        return self.role not in ("controller", "publisher")

    @property
    def drives_jobs(self) -> bool:
        return self.role in ("all", "controller")

    @property
    def publishes_reports(self) -> bool:
        return self.role in ("all", "publisher")

    @model_validator(mode="after")
    def _check_receiver(self) -> Self:
        if self.role == "webhook-receiver" and not (self.webhook_source and self.webhook_secret_file):
            raise ValueError("a webhook-receiver needs LABRATS_WEBHOOK_SOURCE and LABRATS_WEBHOOK_SECRET_FILE")
        return self

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        # The publisher has no confidential settings, and the client id may be among them.
        if self.answers_requests and self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("OIDC_ISSUER needs OIDC_CLIENT_ID, the engine's client id at the provider")
        return self

    def kept_free_bytes(self, total: int) -> int:
        """Return how much of a volume is kept free. total: the size of the volume with the data folder, in bytes."""
        return default_kept_free(total) if self.free_gib is None else round(self.free_gib * 2**30)

    def bytes_for_uploads(self, folder: Path) -> int:
        """Return how many bytes uploads may still use of the volume with `folder`.

        Uploads stop before outputs of jobs are deleted for space: otherwise an upload could push out an output.
        """
        volume = shutil.disk_usage(folder)
        is_for_data = folder.stat().st_dev == self.data_dir.stat().st_dev
        kept = self.kept_free_bytes(volume.total) if is_for_data else default_kept_free(volume.total)
        return volume.free - kept - default_kept_free(volume.total)

    @property
    def writes_secrets(self) -> bool:
        """True if administrators may write Secrets through the API."""
        return self.backend == "embedded" if self.write_secrets is None else self.write_secrets

    @property
    def agent_limits(self) -> ResourceLimits:
        """The limits on the processes of an attempt."""
        return ResourceLimits(
            memory_bytes=self.agent_memory,
            processes=self.agent_processes,
            disk_bytes=None if self.workspace_gib is None else round(self.workspace_gib * 2**30),
            cpus=self.agent_cpus if self.backend == "embedded" else None,
        )

    @property
    def isolation_of_untrusted(self) -> Isolation:
        """The minimum isolation of jobs that external contributors cause."""
        return self.untrusted_isolation or (Isolation.PROCESS if self.allow_untrusted else Isolation.SANDBOX)

    @property
    def callback_signing_keys(self) -> list[bytes]:
        return [signing_key(secret.get_secret_value()) for secret in self.callback_signing_secrets]

    @property
    def own_secrets(self) -> tuple[str, ...]:
        """All secret values among the settings."""
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
    """Return the namespace of the engine's pod; `default` outside a pod."""
    return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.exists() else "default"


class PodExtras(BaseModel, frozen=True, extra="forbid"):
    """Additions to the pods that the engine creates, as in a manifest. The engine's own labels and annotations win."""

    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = Field(default=(), alias="volumeMounts")
    ingress_annotations: dict[str, str] = Field(default={}, alias="ingressAnnotations")


class KubernetesSettings(BaseSettings):
    """The additional settings of an engine on a cluster."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False)

    namespace: str = Field(default_factory=default_namespace, validation_alias="LABRATS_NAMESPACE")
    """The namespace of jobs, their prompts, secrets and pods. Default: the engine's own namespace."""
    executor_image: str = Field(min_length=1, validation_alias="LABRATS_EXECUTOR_IMAGE")
    """The image of attempts, unless a job names another one."""
    executor_resources: dict[str, dict[str, str]] = Field(
        default={
            "requests": {"cpu": "250m", "memory": "512Mi"},
            "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "12Gi"},
        },
        validation_alias="LABRATS_EXECUTOR_RESOURCES",
    )
    """Requests and limits of an attempt's container: JSON, as in a pod."""
    executor_scratch: str = Field(default="10Gi", validation_alias="LABRATS_EXECUTOR_SCRATCH")
    """The size limit of an attempt's workspace and temporary files."""
    executor_pod: dict[str, Any] = Field(default={}, validation_alias="LABRATS_EXECUTOR_POD")
    """Further fields of attempts' pods, such as nodeSelector or runtimeClassName: JSON, as in a pod's spec."""
    executor_extras: PodExtras = Field(default=PodExtras(), validation_alias="LABRATS_EXECUTOR_EXTRAS")
    """Additional annotations, labels, volumes and volumeMounts of attempts' pods: JSON."""
    uploads_claim: str | None = Field(default=None, validation_alias="LABRATS_UPLOADS_CLAIM")
    """The PersistentVolumeClaim of the folder of uploads, from which attempts read."""
    vm_runtime_class: str | None = Field(default=None, min_length=1, validation_alias="LABRATS_VM_RUNTIME_CLASS")
    """The RuntimeClass that gives a pod a kernel of its own, such as gvisor or kata, for jobs with the isolation vm.
    Default: none, and no such jobs."""
    data_claim: str | None = Field(default=None, validation_alias="LABRATS_DATA_CLAIM")
    """The PersistentVolumeClaim of the data folder, where a pod claims its attempt. Default: none, so that an attempt
    is lost if the cluster starts two pods for it."""
    models_claim: str | None = Field(default=None, validation_alias="LABRATS_MODELS_CLAIM")
    """The PersistentVolumeClaim of local models' files. Default: none, and no files are downloaded."""
    engine_image: str | None = Field(default=None, validation_alias="LABRATS_ENGINE_IMAGE")
    """The engine's own image, for the pods that download and delete files of local models."""
    start_timeout_seconds: float = Field(
        default=300, gt=0, le=_YEAR_SECONDS, validation_alias="LABRATS_START_TIMEOUT_SECONDS"
    )
    """The time that an attempt may wait for a node, its image and its volumes."""
    finished_job_hours: float = Field(default=24, gt=0, le=500_000, validation_alias="LABRATS_FINISHED_JOB_HOURS")
    """The time for which the Job of an ended attempt is retained. An engine that is down longer loses its outcome."""
    egress_proxy: str | None = Field(default=None, validation_alias="LABRATS_EGRESS_PROXY")
    """The Service of the egress proxy, which enforces network rules. Default: none, so that no job may have a rule."""
    canary_image: str | None = Field(default=None, validation_alias="LABRATS_CANARY_IMAGE")
    """The engine's image, for the pod by which a leader tests the network policy of jobs' pods. Default: none."""
    receiver_image: str | None = Field(default=None, validation_alias="LABRATS_RECEIVER_IMAGE")
    """The engine's image, for the receiver of each WebhookSource. Default: none, and no receivers."""
    receiver_account: str = Field(default="labrats-webhook-receiver", validation_alias="LABRATS_RECEIVER_ACCOUNT")
    """The ServiceAccount of receivers."""
    receiver_pod: dict[str, Any] = Field(default={}, validation_alias="LABRATS_RECEIVER_POD")
    """Further fields of receivers' pods: JSON, as in a pod's spec."""
    receiver_extras: PodExtras = Field(default=PodExtras(), validation_alias="LABRATS_RECEIVER_EXTRAS")
    """Additional annotations, labels, volumes, volumeMounts and ingressAnnotations of receivers: JSON."""
    receiver_resources: dict[str, dict[str, str | int | float]] = Field(
        default={"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
        validation_alias="LABRATS_RECEIVER_RESOURCES",
    )
    """Requests and limits of a receiver's container: JSON, as in a pod."""
    pod_ip: str | None = Field(default=None, validation_alias="LABRATS_POD_IP")
    """The address of the engine's own pod, which jobs' pods should not reach."""


_PREFIX: Final = "LABRATS_"
_OTHER_VARIABLES: Final = ("LABRATS_URL", "LABRATS_API_KEY", "LABRATS_JOB_ID", ATTEMPT_VARIABLE)
"""Variables of commands and agents, which may be set where an engine starts."""


def unknown_settings(environment: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the names that look like a setting and are none, each with the setting that was probably meant."""
    known = [str(field.validation_alias) for field in EngineSettings.model_fields.values()]
    known += [str(field.validation_alias) for field in KubernetesSettings.model_fields.values()]
    meant = {f"{_PREFIX}{name}": name for name in known if not name.startswith(_PREFIX)}
    for name in environment:
        if name.startswith(_PREFIX) and name not in (*known, *_OTHER_VARIABLES):
            similar = get_close_matches(name, (*meant, *known), n=1, cutoff=0.8)
            yield name, next((meant.get(each, each) for each in similar), None)

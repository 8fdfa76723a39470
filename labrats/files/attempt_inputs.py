"""The inputs of an attempt: the texts, credentials and files of its job, by the names that its executor reads. Pure.

The embedded runner writes them as files; on Kubernetes, the pod mounts them.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal

from msgspec.structs import asdict

from labrats.model.ai_model import Prices, cost_of
from labrats.model.codex_login import JOB_LOGIN_KEY, LOGIN_KEY
from labrats.model.config import KEYS_OF_MODELS, JobConfig
from labrats.model.core_resources import ConfigMap, Secret, problem_of_credentials
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Job, KeyReference, Usage
from labrats.model.mcp_server import credential_file
from labrats.model.protocol import IDLE_SECONDS, NO_LIMITS, OUTPUT_BYTES, Continuation, ResourceLimits, Task
from labrats.model.provider_spec import provider_spec
from labrats.model.record import Record
from labrats.model.variables import variable_file
from labrats.ports import Attempt

PROMPT_FILE: Final = "prompt"
INSTRUCTIONS_FILE: Final = "instructions"
CONVERSATION_FILE: Final = "conversation"
SECRETS_FOLDER: Final = "secrets"

_MOST_PRICES: Final = 200
"""Models whose prices a task names. On Kubernetes, the task is an annotation of a pod, whose size is limited."""


@dataclass(frozen=True)
class TextInput:
    """A text that is stored under a key of a ConfigMap."""

    file: str
    ref: KeyReference

    def read_from(self, config_map: ConfigMap | None) -> str:
        """Return the text. Raises GiveUp if the ConfigMap has no such key, or does not exist and is None."""
        if config_map is None or self.ref.key not in config_map.data:
            reason = missing_text(self.file, self.ref, has_config_map=config_map is not None)
            raise GiveUp(FailedCode.INTERNAL, reason)
        return config_map.data[self.ref.key]


@dataclass(frozen=True)
class SecretInput:
    """A Secret whose values become files in `secrets/`.

    used_by:     `repository` for the credentials of the clone, `model` for those of the model, `agent` for those of MCP
                 servers and tools.
    description: noun phrase for messages, in the plural.
    failed_code: code of a job whose Secret is missing or refused.
    prefix:      beginning of the file names; the key of the Secret follows.
    keys:        keys to read; None for all.
    """

    name: str
    used_by: Literal["repository", "model", "agent"]
    description: str
    failed_code: FailedCode
    prefix: str = ""
    keys: tuple[str, ...] | None = None

    @property
    def missing(self) -> str:
        """The message for a Secret that does not exist."""
        return f"{self.description} are missing: there is no Secret {self.name!r}"

    def problem_of(self, secret: Secret, job_uid: str | None, *, labelled_only: bool) -> str | None:
        """Return why the attempt may not have the Secret; None if it may. See `problem_of_credentials`.

        An agent gets no Secret of a job: that has the token with which the repository is cloned.
        """
        if self.used_by == "agent" and secret.metadata.owner is not None:
            return f"the Secret {secret.name!r} has a credential for git, which no agent gets"
        return problem_of_credentials(secret, job_uid, labelled_only=labelled_only)

    def files(self, stored: Collection[str]) -> dict[str, str]:
        """Return the key behind each file, given the keys that the Secret has.

        A login that the engine renews is replaced by its copy for jobs.
        """
        keys = stored if self.keys is None else [key for key in self.keys if key in stored]
        files = {f"{self.prefix}{key}": key for key in keys}
        if self.used_by == "model" and LOGIN_KEY in files and JOB_LOGIN_KEY in stored:
            files[LOGIN_KEY] = JOB_LOGIN_KEY
        return files


@dataclass(frozen=True)
class AttemptInputs:
    """The inputs of an executor besides its task. prompt: the prompt itself; None if it is among `texts`."""

    prompt: str | None
    texts: tuple[TextInput, ...]
    secrets: tuple[SecretInput, ...]


def inputs_of(attempt: Attempt) -> AttemptInputs:
    """Return the texts and credentials that an attempt needs.

    Raises GiveUp if an external contributor's job would get secrets for tools, or a tool the model's key.
    """
    job = attempt.job
    refs = {
        PROMPT_FILE: job.prompt_ref,
        INSTRUCTIONS_FILE: job.instructions_ref,
        CONVERSATION_FILE: job.spec.conversation_ref,
    }
    return AttemptInputs(
        prompt=None if job.prompt_ref else job.spec.prompt or "",
        texts=tuple(TextInput(file, ref) for file, ref in refs.items() if ref),
        secrets=tuple(_secrets(attempt)),
    )


def missing_text(file: str, ref: KeyReference, *, has_config_map: bool) -> str:
    """Return the message for a text whose ConfigMap does not exist, or has no such key."""
    verb = "are" if file == INSTRUCTIONS_FILE else "is"
    no_map, no_key = f"there is no ConfigMap {ref.name!r}", f"the ConfigMap {ref.name!r} has no key {ref.key!r}"
    return f"the job's {file} {verb} missing: {no_key if has_config_map else no_map}"


def _secrets(attempt: Attempt) -> Iterator[SecretInput]:
    job, ai_model = attempt.job, attempt.ai_model
    setup = job.spec.workspace_setup
    if setup and setup.credentials_ref:
        yield SecretInput(
            setup.credentials_ref, "repository", "the repository's credentials", FailedCode.GIT_CLONE, prefix="git-"
        )
    if ai_model and ai_model.spec.credentials_ref:
        description = f"the credentials of AiModel {ai_model.name}"
        keys = provider_spec(job.resolved.provider).keys
        yield SecretInput(ai_model.spec.credentials_ref, "model", description, FailedCode.AUTH, keys=keys)
    for server, name in job.resolved.mcp_credentials.items():
        description = f"the credentials of the MCP server {server}"
        if job.spec.untrusted:
            message = f"an external contributor caused this job, so it does not get {description}"
            raise GiveUp(FailedCode.AUTH, message)
        if ai_model and name == ai_model.spec.credentials_ref:
            message = f"{description} are those of the model in {name!r}, which no agent gets"
            raise GiveUp(FailedCode.AUTH, message)
        yield SecretInput(name, "agent", description, FailedCode.AUTH, prefix=credential_file(server, ""))
    for variable, value in job.resolved.secret_variables.items():
        if job.spec.untrusted:
            message = f"an external contributor caused this job, so it does not get the secret in config.env.{variable}"
            raise GiveUp(FailedCode.AUTH, message)
        if ai_model and value.secret == ai_model.spec.credentials_ref and value.key in KEYS_OF_MODELS:
            message = (
                f"config.env.{variable} names the model's key {value.key} in {value.secret!r}, which no agent gets"
            )
            raise GiveUp(FailedCode.AUTH, message)
        prefix, description = variable_file(variable, ""), f"the values of the variable {variable}"
        yield SecretInput(value.secret, "agent", description, FailedCode.AUTH, prefix=prefix, keys=(value.key,))


def _other_prices(attempt: Attempt) -> dict[str, Prices]:
    """Return the prices of the models that the agent could use beside the job's, such as its `fallbackModel`."""
    config, endpoint = attempt.config, attempt.ai_model.spec.endpoint if attempt.ai_model else None
    of_server = [
        each.spec for each in attempt.others if (each.spec.provider, each.spec.endpoint) == (config.provider, endpoint)
    ]
    # A name like `sonnet[1m]` has the prices of a larger context, which no request shows.
    priced = {each.model: each.prices for each in of_server if each.prices and not each.model.endswith("]")}
    return {name: priced[name] for name in sorted(priced)[:_MOST_PRICES] if name != config.model}


def _spent(job: Job, config: JobConfig, prices: Prices | None) -> Usage:
    """Return what attempts that ended with a pause have consumed of the job's limits.

    The limits are for one attempt and all those that pauses add to it: an agent can cause a pause. Each attempt that a
    caller or `maxAttempts` adds has the whole limits. An agent can make the cost unknown, which is that of the tokens
    then, if the model has prices. Otherwise it is that of the attempts whose cost is known, or None without any.
    """
    if not job.status.pauses:
        return Usage()
    used, before = job.status.usage, max(0, job.status.attempts - job.status.pauses - 1)
    tokens = used.input_tokens + used.output_tokens - before * (config.max_tokens or 0)
    cost = used.known_cost_usd
    if cost is None:
        known = job.status.known_cost_usd or None
        cost = max(cost_of(used, prices), known or 0.0) if prices else known
    if cost is not None:
        cost = max(0.0, cost - before * (config.max_cost_usd or 0.0))
    return Usage(input_tokens=max(0, tokens), cost_usd=cost, turns=used.turns)


class TaskSettings(Record):
    """Settings of the engine for the tasks of all attempts. The fields are those of Task."""

    programs: dict[str, str] = {}
    git_addresses: tuple[str, ...] = ()
    git_ssh_key: str | None = None
    git_ssh_known_hosts: str | None = None
    repo_roots: tuple[str, ...] = ()
    cli_login: bool = False
    idle_seconds: float = IDLE_SECONDS
    output_bytes: int = OUTPUT_BYTES
    limits: ResourceLimits = NO_LIMITS
    caches_bytes: int = 0
    kept_free_bytes: int | None = None


def task_of(attempt: Attempt, settings: TaskSettings, *, workspace: str, uploads: PurePath) -> Task:
    """Return the task of an attempt, without what depends on the backend that runs it.

    workspace: path of the agent's folder. uploads: path at which the executor finds the uploads volume.
    """
    job, ai_model = attempt.job, attempt.ai_model
    prices = ai_model.spec.prices if ai_model else None
    return Task(
        job_id=job.id,
        attempt=str(attempt.name),
        number=job.status.attempts,
        workspace=workspace,
        config=attempt.config,
        metadata=job.spec.metadata,
        workspace_setup=job.spec.workspace_setup,
        workspace_files=tuple(file.on_volume(uploads) for file in job.spec.files),
        pipeline=job.spec.pipeline,
        result_schema=job.result_schema,
        endpoint=ai_model.spec.endpoint if ai_model else None,
        command=ai_model.spec.command if ai_model else None,
        environment=ai_model.spec.environment if ai_model else None,
        spent=_spent(job, attempt.config, prices),
        prices=prices,
        other_prices=_other_prices(attempt),
        selection=attempt.selection,
        continuation=Continuation(job_id=job.spec.follow_up_of) if job.spec.follow_up_of else None,
        **asdict(settings),
    )

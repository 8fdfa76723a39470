"""Jobs that were applied with kubectl: their checks beyond those of requests, and the storage of their settings."""

from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from labrats.intake.job_parts import create_missing_parts
from labrats.intake.job_spec import PreparedJob
from labrats.intake.request import JobRequest, RepoAddress
from labrats.model.ai_model import AiModel
from labrats.model.config import KEYS_OF_MODELS
from labrats.model.core_resources import INSTRUCTIONS_KEY, PROMPT_KEY, ConfigMap, Secret, problem_of_credentials
from labrats.model.errors import Invalid, NotFound, Problem, TooLarge
from labrats.model.git_repo import FIELD as GIT_REPO_FIELD
from labrats.model.git_repo import GitRepo
from labrats.model.job import Job, KeyReference, SubmittedFields, git_secret_name
from labrats.model.record import Metadata, encode
from labrats.model.variables import SecretKey
from labrats.model.webhook_source import WebhookSource
from labrats.model.workspace_setup import Setup
from labrats.ports import Store

INLINE_PROMPT_BYTES: Final = 64 * 1024
"""The longest prompt in the annotations of a pod, which may have 256 KiB in all. A ConfigMap stores a longer one."""

SPEC_BYTES: Final = 1200 * 1024
"""The largest spec, as JSON. An object in etcd has at most 1.5 MiB, and the status of the job needs the rest."""

_TEXT_KEYS: Final = (PROMPT_KEY, INSTRUCTIONS_KEY)


def applied_request(job: Job) -> JobRequest:
    """Return the request for a job applied with kubectl. Access to the cluster includes access to every upload."""
    spec = job.spec
    return JobRequest(
        source=spec.source,
        type=spec.type,
        is_applied=True,
        owner=spec.owner,
        prompt=spec.prompt or "",
        agent_role=spec.agent_role,
        config=spec.config,
        repo=RepoAddress(spec.workspace_setup.git_repo) if spec.workspace_setup else None,
        setup=spec.workspace_setup or Setup(),
        uploads=spec.workspace_uploads,
        may_see=lambda _: True,
        pipeline=spec.pipeline,
        submitted=SubmittedFields(callback_url=spec.callback_url),
        result_schema=spec.result_schema,
        metadata=spec.metadata,
    )


def check_spec_size(job: Job) -> None:
    """Raise TooLarge for a job whose outcome might not fit beside its spec."""
    if len(encode(job.spec)) > SPEC_BYTES:
        raise TooLarge(Problem("spec", f"must be at most {SPEC_BYTES // 1024} KiB as JSON"))


async def check_credentials(job: Job, repo: GitRepo | None, store: Store, *, labelled_only: bool) -> None:
    """Raise Invalid for a credential in the repository's address, and for Secrets that jobs may not have.

    Repeat it before each attempt: what a Secret is for may change.

    labelled_only: true if a Secret must be labelled for jobs.
    """
    if repo and repo.has_credential:
        message = "must not carry a credential: store it in a Secret, and name the Secret in credentialsRef"
        raise Invalid(Problem(GIT_REPO_FIELD, message))
    await _check_secrets_of_tools(job, store)
    if setup := job.spec.workspace_setup:
        if setup.token_from and setup.credentials_ref not in (None, git_secret_name(job.id)):
            message = f"must be {git_secret_name(job.id)!r} with tokenFrom: the engine stores the tokens there"
            raise Invalid(Problem("workspaceSetup.credentialsRef", message))
        for field, name in (("credentialsRef", setup.credentials_ref), ("tokenFrom", setup.token_from)):
            with suppress(NotFound):  # it may still be applied
                secret = await store.get(Secret, name) if name else None
                if secret and (
                    problem := problem_of_credentials(secret, job.metadata.uid, labelled_only=labelled_only)
                ):
                    raise Invalid(Problem(f"workspaceSetup.{field}", problem))


async def _check_secrets_of_tools(job: Job, store: Store) -> None:
    """Raise Invalid if tools would get the key of a model, or a Secret of a webhook source.

    Jobs use those, but their agents do not read them. Only an administrator may give them to the tools of an agent. The
    AiModel may be created after the Secret, so that no variable has a key whose name is that of a model's.
    """
    config = job.spec.config
    for name, value in (config.env or {}).items():
        if isinstance(value, SecretKey) and value.key in KEYS_OF_MODELS:
            problem = f"must not name the key {value.key}, which is of a model: store another one under another name"
            raise Invalid(Problem(f"config.env.{name}.key", problem))
    named = {
        f"config.env.{name}": (value.secret, {value.key})
        for name, value in (config.env or {}).items()
        if isinstance(value, SecretKey)
    } | {
        f"config.mcpServers.{name}.credentialsRef": (server.credentials_ref, KEYS_OF_MODELS)
        for name, server in (config.mcp_servers or {}).items()
        if server.credentials_ref
    }
    if not named:
        return
    of_models = {each.spec.credentials_ref for each in await store.list(AiModel)}
    sources = await store.list(WebhookSource)
    of_sources = {each.spec.credentials_ref for each in sources}
    of_sources |= {each.spec.secret_ref.name for each in sources if each.spec.secret_ref}
    for field, (secret, keys) in named.items():
        if (secret in of_models and not KEYS_OF_MODELS.isdisjoint(keys)) or secret in of_sources:
            problem = f"must not name {secret!r}: no agent reads the Secrets of models and webhook sources"
            raise Invalid(Problem(field, problem))


async def store_resolution(store: Store, job: Job, prepared: PreparedJob) -> Job:
    """Store the texts and settings of `job`. Its spec never changes, so its status refers to them.

    Raises RetryLater; Conflict and NotFound when another writer has changed or deleted the job.
    """
    texts = _texts_part(job, prepared)
    refs = {key: KeyReference(name=texts.name, key=key) if key in texts.data else None for key in _TEXT_KEYS}
    if texts.data:
        await create_missing_parts(store, job, [texts])
    status = replace(
        job.status,
        resolved=prepared.resolved,
        result_schema=prepared.result_schema if job.spec.result_schema is None else None,
        prompt_ref=refs[PROMPT_KEY],
        instructions_ref=refs[INSTRUCTIONS_KEY],
    )
    return await store.update(replace(job, status=status))


def _texts_part(job: Job, prepared: PreparedJob) -> ConfigMap:
    """Return the texts that the executor cannot take from the spec.

    The name contains the job's uid, so that the texts of an earlier job with the same name are not used.
    """
    data = {}
    if len((job.spec.prompt or "").encode()) > INLINE_PROMPT_BYTES:
        data[PROMPT_KEY] = prepared.texts.prompt
    if prepared.texts.instructions is not None:
        data[INSTRUCTIONS_KEY] = prepared.texts.instructions
    return ConfigMap(metadata=Metadata(name=f"{job.id}-{job.metadata.uid[:8]}-texts"), data=data)

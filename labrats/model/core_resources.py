"""Auxiliary resources: ConfigMaps with texts, and Secrets with credentials and API keys."""

from typing import Final

from labrats.model.record import Resource

TYPE_LABEL: Final = "labrats.work/type"
"""The label with the type of one of the engine's own Secrets."""
API_KEY_LABEL: Final = TYPE_LABEL
API_KEY_LABEL_VALUE: Final = "ai-api-key"
JOB_CREDENTIALS: Final[dict[str, str]] = {TYPE_LABEL: "job-credentials"}
"""The label of Secrets that jobs may use."""

PROMPT_KEY: Final = "prompt"
INSTRUCTIONS_KEY: Final = "instructions"
EVENT_KEY: Final = "event"
CONVERSATION_KEY: Final = "conversation"


class ConfigMap(Resource):
    """Text by key."""

    data: dict[str, str] = {}


class Secret(Resource):
    """Secret text by key. The values leave the Store only as files for an executor."""

    data: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, keys={sorted(self.data)})"


def is_for_jobs(secret: Secret) -> bool:
    """Return whether a Secret has the label of Secrets that jobs may use."""
    return JOB_CREDENTIALS.items() <= secret.metadata.labels.items()


def is_of_engine(secret: Secret) -> bool:
    """Return whether a Secret is the engine's own, such as an API key. Jobs never get one."""
    return TYPE_LABEL in secret.metadata.labels and not is_for_jobs(secret)


def label_command(name: str) -> str:
    """Return the command that lets jobs use a Secret."""
    return f"kubectl label secret {name} " + ",".join(f"{key}={value}" for key, value in JOB_CREDENTIALS.items())


def problem_of_credentials(secret: Secret, job_uid: str | None, *, labelled_only: bool) -> str | None:
    """Return why a job may not use a Secret; None if it may.

    job_uid: the job's uid. A Secret that the job owns needs no label; version 0.1 created them without one. None if
             the job is unknown, or on one machine, where only administrators can name the Secret of another job.
    """
    if is_of_engine(secret):
        return f"the Secret {secret.name!r} is the engine's own and not available to jobs"
    owner = secret.metadata.owner
    if is_for_jobs(secret) and owner is not None and job_uid not in (None, owner.uid):
        return f"the Secret {secret.name!r} belongs to another object"
    if not labelled_only or is_for_jobs(secret) or (owner is not None and owner.uid == job_uid):
        return None
    return f"the Secret {secret.name!r} is not labelled for jobs: {label_command(secret.name)}"

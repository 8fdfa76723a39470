"""The small resources that go with others: texts in ConfigMaps, credentials and API keys in Secrets."""

from typing import Final

from labrats.model.record import Resource

TYPE_LABEL: Final = "labrats.work/type"
"""Says what a Secret of the engine's own is."""
API_KEY_LABEL: Final = TYPE_LABEL
API_KEY_LABEL_VALUE: Final = "ai-api-key"
JOB_CREDENTIALS: Final[dict[str, str]] = {TYPE_LABEL: "job-credentials"}
"""The label of Secrets that jobs may be given."""

PROMPT_KEY: Final = "prompt"
INSTRUCTIONS_KEY: Final = "instructions"
EVENT_KEY: Final = "event"


class ConfigMap(Resource):
    """Plain text by key."""

    data: dict[str, str] = {}


class Secret(Resource):
    """Secret text by key. Its values never leave the Store but into a file that one executor reads."""

    data: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secret({self.name!r}, keys={sorted(self.data)})"


def is_for_jobs(secret: Secret) -> bool:
    """Return whether a Secret has the label of those that jobs may be given."""
    return JOB_CREDENTIALS.items() <= secret.metadata.labels.items()


def is_of_engine(secret: Secret) -> bool:
    """Return whether a Secret is the engine's own, such as an API key, which no job is ever given."""
    return TYPE_LABEL in secret.metadata.labels and not is_for_jobs(secret)


def how_to_label(name: str) -> str:
    """The command that lets jobs have a Secret."""
    return f"kubectl label secret {name} " + ",".join(f"{key}={value}" for key, value in JOB_CREDENTIALS.items())


def problem_of_credentials(secret: Secret, job_uid: str | None, *, labelled_only: bool) -> str | None:
    """Return why a job may not be given a Secret; None where it may.

    job_uid: of the job, which may have a Secret of its own without a label. Those that 0.1 made have none.
    """
    if is_of_engine(secret):
        return f"the Secret {secret.name!r} is the engine's own, and not for jobs"
    owner = secret.metadata.owner
    if not labelled_only or is_for_jobs(secret) or (owner is not None and owner.uid == job_uid):
        return None
    return f"the Secret {secret.name!r} is not labelled for jobs: {how_to_label(secret.name)}"

"""A source of webhooks: who sends events, how they prove it, and which settings their jobs get."""

from datetime import datetime
from typing import Final

from labrats.model.condition import Condition
from labrats.model.config import JobConfig
from labrats.model.job import KeyReference
from labrats.model.record import Record, Resource

SHORTEST_SECRET: Final = 16
"""Characters of a secret that is given now; a shorter one could be guessed from a signed delivery."""

GITHUB: Final = "github"
GENERIC: Final = "generic"

TOKEN: Final = "token"  # noqa: S105, what the key of a Secret is called
APP_ID: Final = "appId"
PRIVATE_KEY: Final = "privateKey"
"""The keys of the Secret that `credentials_ref` names: those of a GitHub App, or a token that is used as it is."""

DEFAULT_ASSOCIATIONS: Final = ("OWNER", "MEMBER", "COLLABORATOR")
"""Who may start a run by what they write, in GitHub's words."""

OWNER_PREFIX: Final = "webhook-source/"
"""The jobs that a source makes belong to this and its name."""


class RepoOverride(Record):
    """Settings for the jobs of one repository."""

    enabled: bool = True
    model: str | None = None
    effort: str | None = None
    provider: str | None = None
    agent_trigger_name: str | None = None


class WebhookSourceSpec(Record):
    """type: `github` or `generic`. secret_ref: the key that signs deliveries. repo_overrides: by `owner/repo`.

    credentials_ref: the Secret with a GitHub App's id and key, or a token, for the jobs' repositories.
    """

    type: str
    enabled: bool = True
    secret_ref: KeyReference | None = None
    host: str | None = None
    path: str | None = None
    ingress_class_name: str | None = None
    tls_secret_name: str | None = None
    defaults: JobConfig = JobConfig()
    repo_overrides: dict[str, RepoOverride] = {}
    allowed_associations: tuple[str, ...] = DEFAULT_ASSOCIATIONS
    allow_forks: bool = False
    credentials_ref: str | None = None

    def override_of(self, repo_name: str | None) -> RepoOverride | None:
        """What it says of one repository, whose name is the same in any case."""
        wanted = (repo_name or "").lower()
        return next((override for name, override in self.repo_overrides.items() if name.lower() == wanted), None)


class WebhookSourceStatus(Record):
    """url: where deliveries are received. deliveries: how many were accepted."""

    url: str | None = None
    conditions: tuple[Condition, ...] = ()
    last_delivery_at: datetime | None = None
    deliveries: int = 0


class WebhookSource(Resource):
    """A source of webhooks."""

    spec: WebhookSourceSpec
    status: WebhookSourceStatus = WebhookSourceStatus()


def own_secret_name(source_name: str) -> str:
    """The name of the Secret that belongs to a source: the secret that it was given, rather than the name of one."""
    return f"{source_name}.webhook-secret"

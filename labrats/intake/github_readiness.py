"""The state of the connection with GitHub, and the next step if there is one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from labrats.model.webhook_source import ACCEPTING, APP_ID, APP_SECRET, GITHUB, PRIVATE_KEY, TOKEN, WebhookSource

CONNECT: Final = "labrats connect github"


@dataclass(frozen=True)
class GitHubReadiness:
    """The connection with GitHub.

    has_app: true if the credentials of an App are stored. sources: the enabled sources of GitHub's events.
    problem: a sentence without a full stop; None if events start agents. command: the command that helps.
    """

    has_app: bool
    sources: Sequence[WebhookSource]
    problem: str | None = None
    command: str | None = None

    @property
    def advice(self) -> str | None:
        """The problem and the command that helps, in one line; None without a problem."""
        return f"{self.problem}: `{self.command}`" if self.problem and self.command else self.problem

    @property
    def summary(self) -> str:
        """The sources in one line."""
        return "; ".join(map(_summary, self.sources))


def _summary(source: WebhookSource) -> str:
    if not source.spec.polls:
        return f"the source {source.name} receives events by a webhook"
    return f"the source {source.name} reads {', '.join(source.spec.repositories)}"


def secrets_read(sources: Iterable[WebhookSource]) -> set[str]:
    """Return the names of the Secrets whose keys `github_readiness` needs."""
    return {APP_SECRET, *(each.spec.credentials_ref for each in sources if each.spec.credentials_ref)}


def github_readiness(sources: Sequence[WebhookSource], secret_keys: Mapping[str, Collection[str]]) -> GitHubReadiness:
    """Return the state of the connection with GitHub.

    secret_keys: the keys in each Secret of `secrets_read`, by its name; existing Secrets only.
    """
    enabled = [each for each in sources if each.spec.type == GITHUB and each.spec.enabled]
    has_app = {APP_ID, PRIVATE_KEY} <= set(secret_keys.get(APP_SECRET, ()))
    if not enabled:
        problem = "the GitHub App has no repository yet" if has_app else "no repository is connected"
        return GitHubReadiness(has_app, enabled, problem, CONNECT)
    for source in enabled:
        secret = source.spec.credentials_ref
        keys = set(secret_keys.get(secret or "", ()))
        if secret and TOKEN not in keys and not {APP_ID, PRIVATE_KEY} <= keys:
            problem = f"the Secret {secret} of the source {source.name} has neither an App nor a token"
            return GitHubReadiness(has_app, enabled, problem, CONNECT)
        for condition in source.status.conditions:
            if condition.status == "False" and condition.type != ACCEPTING:
                return GitHubReadiness(has_app, enabled, f"source {source.name}: {condition.message.rstrip('.')}")
    return GitHubReadiness(has_app, enabled)

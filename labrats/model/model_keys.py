"""The credentials of models that a key proxy can keep from the agent."""

from collections.abc import Collection, Mapping
from typing import Final

from labrats.model.config import LOCAL_PROVIDERS

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "claude": ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"),
    "codex": ("CODEX_API_KEY", "OPENAI_API_KEY"),
    **dict.fromkeys(LOCAL_PROVIDERS, ("OPENAI_API_KEY",)),
}
"""Names of the keys that can be proxied, by precedence."""

_LOGIN_BEFORE_KEY: Final[Mapping[str, str]] = {"codex": "auth.json"}
"""Logins that take precedence over a key. They cannot be proxied: the agent's program uses them in its own way."""


def key_to_proxy(provider: str, endpoint: str | None, names: Collection[str]) -> str | None:
    """Return the name of the credential that the proxy uses. None if there is none, or no server to use it for.

    endpoint: of the model's server, if the job has one. names: the credentials that the model has.
    """
    has_no_server = provider in LOCAL_PROVIDERS and not endpoint
    if has_no_server or _LOGIN_BEFORE_KEY.get(provider) in names:
        return None
    return next((name for name in _KEYS.get(provider, ()) if name in names), None)


def token_name(provider: str) -> str:
    """Return the name of the credential under which the agent's program gets the proxy's token."""
    return _KEYS[provider][-1]

"""The servers of models: the hosts and ports that an attempt needs for its model."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

DEFAULT_ENDPOINTS: Final[Mapping[str, str]] = {
    "claude": "https://api.anthropic.com",
    "codex": "https://api.openai.com/v1",
}
"""Base URLs of providers whose AiModel names none."""

_HTTPS: Final = 443

LOGIN_SERVERS: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "claude": (("api.anthropic.com", _HTTPS), ("platform.claude.com", _HTTPS), ("console.anthropic.com", _HTTPS)),
    "codex": (("api.openai.com", _HTTPS), ("auth.openai.com", _HTTPS), ("chatgpt.com", _HTTPS)),
}
"""Servers of a provider's own models and logins, which its program reaches itself unless the job names a server."""


def host_and_port(endpoint: str | None) -> tuple[str, int] | None:
    """Return the host of the model's server, if the job's model names one."""
    if not endpoint:
        return None
    url = urlsplit(endpoint)
    return (url.hostname or "").lower(), url.port or (_HTTPS if url.scheme == "https" else 80)

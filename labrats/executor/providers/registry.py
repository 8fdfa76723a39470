"""The table of providers. A new provider is a module with one async function, and an entry here."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from labrats.executor.context import RunContext
from labrats.executor.providers import acp, claude, codex, local, mock
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.provider_spec import LOCAL_PROVIDERS

Provider = Callable[[RunContext], Awaitable[Any]]
"""A function that does the work and returns the result, any JSON value.

It raises GiveUp on failure, and ends its processes when it is cancelled.
"""

PROVIDERS: Final[Mapping[str, Provider]] = {
    "acp": acp.run,
    "claude": claude.run,
    "codex": codex.run,
    "mock": mock.run,
    **dict.fromkeys(LOCAL_PROVIDERS, local.run),
}


TAKES_SCHEMA: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "claude": claude.takes_schema,
    "codex": codex.takes_schema,
}
"""Providers whose programs take the schema of a result, and whether they take a certain one."""


def provider_named(name: str) -> Provider:
    """Return the provider with this name. Raises GiveUp if there is none."""
    if (provider := PROVIDERS.get(name)) is None:
        raise GiveUp(FailedCode.AGENT_ERROR, f"this version has no provider {name}: choose {', '.join(PROVIDERS)}")
    return provider

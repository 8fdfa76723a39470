"""The table of providers. A new one is a module with one async function, and a line here."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from labrats.executor.context import RunContext
from labrats.executor.providers import claude, codex, local, mock
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

Provider = Callable[[RunContext], Awaitable[Any]]
"""Does the work and returns the result, any JSON. Raises GiveUp when it fails; ends its processes when cancelled."""

PROVIDERS: Final[Mapping[str, Provider]] = {
    "claude": claude.run,
    "codex": codex.run,
    "gemma": local.run,
    "mock": mock.run,
    "qwen": local.run,
    "vllm": local.run,
}


WITH_SESSIONS: Final = frozenset({"claude", "codex"})
"""Their programs write down what they do, and can go on with it. The others begin anew in every attempt."""


def provider_named(name: str) -> Provider:
    """Raises GiveUp when this executor has none of that name."""
    if (provider := PROVIDERS.get(name)) is None:
        raise GiveUp(FailedCode.AGENT_ERROR, f"this version has no provider {name}: choose {', '.join(PROVIDERS)}")
    return provider

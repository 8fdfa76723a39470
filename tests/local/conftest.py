"""Fixtures for attempts of the local providers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labrats.model.config import JobConfig
from labrats.model.job import FailedCode
from labrats.model.protocol import ErrorEvent, ResultEvent
from tests.local.chat_server import ChatScript
from tests.unit.executor.attempts import AttemptFolder, a_unique_name, an_attempt

Prepare = Callable[..., AttemptFolder]


@pytest.fixture
def unique_name() -> Iterator[str]:
    """Yield the name of an attempt whose processes a test searches for."""
    with a_unique_name() as name:
        yield name


@pytest.fixture
def attempt_on(tmp_path: Path, unique_name: str) -> Prepare:
    """Return a function that prepares an attempt of a local provider with a server."""

    def prepare(server: ChatScript | str | None, *, config: dict[str, Any] | None = None, **task: Any) -> AttemptFolder:
        usual: dict[str, Any] = {"provider": "vllm", "model": "test-model", "timeout_ms": 60_000}
        return an_attempt(
            tmp_path,
            attempt=unique_name,
            config=JobConfig(**usual | (config or {})),
            endpoint=server.url if isinstance(server, ChatScript) else server,
            **task,
        )

    return prepare


def failure_of(attempt: AttemptFolder) -> tuple[FailedCode, str]:
    outcome = attempt.outcome
    assert isinstance(outcome, ErrorEvent), outcome
    return outcome.code, outcome.message


def result_of(attempt: AttemptFolder) -> Any:
    outcome = attempt.outcome
    assert isinstance(outcome, ResultEvent), outcome
    return outcome.result

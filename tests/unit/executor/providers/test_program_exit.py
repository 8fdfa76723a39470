"""Descriptions of how an agent's program has ended."""

import pytest

from labrats.executor.providers.agent_cli import ProgramExit


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (1, "exited with code 1"),
        (-9, "was killed by signal 9 (SIGKILL)"),
        (137, "was killed by signal 9 (SIGKILL)"),  # in the sandbox
        (255, "exited with code 255"),
    ],
)
def test_signals_are_named_also_those_in_the_sandbox(status: int, words: str) -> None:
    assert str(ProgramExit(status)) == words

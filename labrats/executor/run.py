"""What a provider is given."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.executor.emit import Emitter
from labrats.executor.limits import Limits
from labrats.executor.prices import priced
from labrats.model.job import Usage
from labrats.model.protocol import Task

ATTEMPT_VARIABLE: Final = "LABRATS_ATTEMPT"
"""Every process of an attempt carries its name in this variable; by it the engine finds what is left of one."""


@dataclass(frozen=True)
class Run:
    """One attempt at work.

    prompt:       what the agent is asked. instructions: what it works by, to be given to it apart; empty without any.
    secrets:      by name, as the job's model and repository have them.
    folder:       the attempt's own.
    """

    task: Task
    prompt: str
    instructions: str
    secrets: Mapping[str, str]
    folder: Path
    emit: Emitter

    @property
    def workspace(self) -> Path:
        """Where the agent works."""
        return Path(self.task.workspace)

    def agent_environment(self) -> dict[str, str]:
        """The whole environment of an agent's process, before a provider adds its own: nothing else of the engine's.

        HOME and TMPDIR are the attempt's own, made by the first call.
        """
        home, scratch = self.folder / "home", self.folder / "tmp"
        home.mkdir(mode=0o700, exist_ok=True)
        scratch.mkdir(mode=0o700, exist_ok=True)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "TMPDIR": str(scratch),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "LABRATS_JOB_ID": self.task.job_id,
            ATTEMPT_VARIABLE: self.task.attempt,
        }

    def consume(self, usage: Usage) -> None:
        """Add to what the attempt has consumed. Raises GiveUp when that passes a limit."""
        self.consumed(self.emit.own_usage + usage)

    def consumed(self, usage: Usage) -> None:
        """Replace what the provider has consumed in all. Raises GiveUp when the attempt passes a limit by that."""
        usage = priced(usage, self.task)
        self.emit.consumed(usage)
        Limits.of(self.task.config).check(self.emit.usage)

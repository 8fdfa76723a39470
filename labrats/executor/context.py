"""What a provider is given."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.executor.event_writer import EventWriter
from labrats.executor.prices import with_cost
from labrats.executor.usage_limits import UsageLimits
from labrats.model.errors import LabratsError
from labrats.model.job import AgentSession, Usage
from labrats.model.protocol import Resumption, Task

ATTEMPT_VARIABLE: Final = "LABRATS_ATTEMPT"
"""Every process of an attempt carries its name in this variable; by it the engine finds what is left of one."""


class SessionLost(LabratsError):
    """The agent's program does not know the session that it was to go on with, and has done nothing."""


@dataclass(frozen=True)
class RunContext:
    """One attempt at work.

    prompt:       what the agent is asked. instructions: what it works by, to be given to it apart; empty without any.
    secrets:      by name, as the job's model and repository have them.
    folder:       the attempt's own, or that of the earlier one with whose session it goes on.
    credentials:  the folder for files with secrets; see credential_file.
    goes_on_with: that session, and its workspace; None where the attempt begins anew.
    """

    task: Task
    prompt: str
    instructions: str
    secrets: Mapping[str, str]
    folder: Path
    credentials: Path
    events: EventWriter
    resumption: Resumption | None = None

    @property
    def workspace(self) -> Path:
        """Where the agent works."""
        return Path((self.resumption and self.resumption.workspace) or self.task.workspace)

    @property
    def session_id(self) -> str | None:
        """The session that the agent's program is to go on with. It raises SessionLost where it does not know it."""
        return self.resumption.session.id if self.resumption else None

    def report_session(self, session_id: str) -> None:
        """The agent's program calls its session so, and would go on with it."""
        if self.task.pipeline is None:  # that has many
            attempt = self.resumption.session.attempt if self.resumption else self.task.number
            provider = self.task.config.provider or ""
            self.events.report_session(AgentSession(provider=provider, id=session_id, attempt=attempt))

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

    def credential_file(self, name: str, content: str) -> Path:
        """Write a file that holds a secret, for a program of this attempt to read. It is gone when the attempt ends."""
        self.credentials.mkdir(mode=0o700, exist_ok=True)
        file = self.credentials / name
        file.unlink(missing_ok=True)
        file.touch(mode=0o600, exist_ok=False)
        file.write_text(content, "utf-8")
        return file

    def remove_credential_file(self, name: str) -> None:
        """Remove a file that the program has read, so that the agent finds none. Harmless when it is gone."""
        (self.credentials / name).unlink(missing_ok=True)

    def add_usage(self, usage: Usage) -> None:
        """Add to what the attempt has consumed. Raises GiveUp when that passes a limit."""
        self.events.report_usage(self.events.provider_usage + with_cost(usage, self.task))
        self.check_limits()

    def set_usage(self, usage: Usage, model: str | None = None) -> None:
        """Replace what the provider has consumed in all. Raises GiveUp when the attempt passes a limit by that.

        model: the model that answered, where the job does not name one.
        """
        self.set_final_usage(usage, model)
        self.check_limits()

    def set_final_usage(self, usage: Usage, model: str | None = None) -> None:
        """Do the same at the end of a run that fails or is stopped for another reason: no limit is checked."""
        self.events.report_usage(with_cost(usage, self.task, model))

    def check_limits(self) -> None:
        """Raises GiveUp when the attempt has consumed more than the job may."""
        UsageLimits.of(self.task.config).check(self.events.usage)

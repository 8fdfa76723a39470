"""The context of a provider: the inputs of an attempt, and the writer of its events."""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from labrats.executor.event_writer import EventWriter
from labrats.executor.git_identity import write_identity
from labrats.executor.prices import with_job_cost
from labrats.executor.usage_limits import UsageLimits
from labrats.files.safe_paths import write_new
from labrats.model.conversation import Conversation
from labrats.model.errors import GiveUp, LabratsError
from labrats.model.job import AgentSession, FailedCode, Usage
from labrats.model.network import MOST_REFUSED_HOSTS
from labrats.model.protocol import ATTEMPT_VARIABLE, ModelRequest, RefusedHost, Resumption, Task
from labrats.model.variables import SecretKey, variable_file
from labrats.model.workspace_setup import Setup
from labrats.sandbox.bubblewrap import is_for_any_program
from labrats.sandbox.network_namespace import LOOPBACK

_NO_PROXY_VARIABLES: Final = ("NO_PROXY", "no_proxy")


class SessionLost(LabratsError):
    """The agent's program does not know the session to resume, and has done nothing."""


class SchemaRefused(LabratsError):
    """The agent's program does not take the job's result schema, and has done nothing."""


@dataclass(frozen=True)
class StructuredAnswer:
    """The answer of a program that was given the job's result schema. value: as the program reports it, unchecked."""

    text: str
    value: Any


class ServerActivity:
    """The view that the key proxy has of the model's server.

    last_at:    the last moment at which a part of an answer has arrived, by time.monotonic().
    on_request: called with each request of the agent that the server has answered, or has not; for a provider whose
        program does not say so itself. It may raise GiveUp, which ends the attempt.
    """

    def __init__(self) -> None:
        self.last_at = -math.inf
        self.on_request: Callable[[ModelRequest], None] = lambda _: None

    def note(self) -> None:
        """Record that a part of an answer has just arrived."""
        self.last_at = time.monotonic()


@dataclass(frozen=True)
class RunContext:
    """The inputs of one attempt, and the writer of its events.

    prompt:       the request to the agent.
    instructions: text that a provider passes to the agent separately from the prompt; may be empty.
    secrets:      the secrets of the job's model, repository, MCP servers and tools, by name.
    folder:       the attempt's folder, or that of the earlier attempt whose session it resumes.
    credentials:  the folder for files that contain secrets; see credential_file.
    resumption:   the session to resume and its workspace; None for an attempt that starts over.
    conversation: the turns before a follow-up's prompt.
    program_schema: the job's result schema, for an agent's program that takes one; otherwise the prompt contains it.
    is_repair:    True if the agent only corrects the result of an earlier run, which does not match the job's schema.
    proxy_url:    base URL of the key proxy, in a context whose `secrets` have its token instead of the model's key.
    """

    task: Task
    prompt: str
    instructions: str
    secrets: Mapping[str, str]
    folder: Path
    credentials: Path
    events: EventWriter
    resumption: Resumption | None = None
    conversation: Conversation = ()
    program_schema: dict[str, Any] | None = None
    is_repair: bool = False
    proxy_url: str | None = None
    server_activity: ServerActivity = field(default_factory=ServerActivity)

    @property
    def endpoint(self) -> str | None:
        """The base URL of the model's server for the agent; None for the default of the provider's program."""
        return self.proxy_url or self.task.endpoint

    @property
    def workspace(self) -> Path:
        """The folder in which the agent works."""
        return Path((self.resumption and self.resumption.workspace) or self.task.workspace)

    @property
    def setup(self) -> Setup:
        """The preparation of the workspace; empty if there is none."""
        return self.task.setup or self.task.workspace_setup or Setup()

    @property
    def repository(self) -> str | None:
        """The address from which the workspace was cloned; None without a repository."""
        setup = self.task.workspace_setup
        return self.task.repository or (setup.git_repo if setup else None)

    @property
    def home(self) -> Path:
        """The home of the agent's processes, which `create_folders` creates."""
        return self.folder / "home"

    @property
    def scratch(self) -> Path:
        """The folder for temporary files of the agent's processes, which `create_folders` creates."""
        return self.folder / "tmp"

    def create_folders(self) -> None:
        """Create the home and the folder for temporary files, unless they exist."""
        with suppress(FileExistsError):
            self.home.mkdir(mode=0o700)
            write_identity(self.home)
        self.scratch.mkdir(mode=0o700, exist_ok=True)

    @property
    def session_id(self) -> str | None:
        """The session that the agent's program resumes. A provider raises SessionLost if the program rejects it."""
        return self.resumption.session.id if self.resumption else None

    def report_session(self, session_id: str) -> None:
        """Report the session that the agent's program has started or resumed. Ignored in a pipeline, which has many."""
        if self.task.pipeline is None:
            attempt = self.resumption.session.attempt if self.resumption else self.task.number
            provider = self.task.config.provider or ""
            self.events.report_session(AgentSession(provider=provider, id=session_id, attempt=attempt))

    def agent_environment(self) -> dict[str, str]:
        """Return the environment of the agent and its tools, to which a provider adds its own variables.

        In a sandbox, `sandboxed_command` adds those that would also act on bubblewrap. Raises GiveUp if a Secret has no
        value for one of the job's variables.
        """
        environment = self.environment() | {
            name: value
            for name, value in self.variables().items()
            if self.task.sandbox is None or not is_for_any_program(name)
        }
        if self.proxy_url:
            for name in _NO_PROXY_VARIABLES:
                environment[name] = ",".join(filter(None, [environment.get(name), LOOPBACK]))
        return environment

    def variables(self) -> dict[str, str]:
        """Return the job's own environment variables, `config.env`. Raises GiveUp if a Secret lacks a value."""
        return {name: self._value_of(name, value) for name, value in (self.task.config.env or {}).items()}

    def _value_of(self, name: str, value: str | SecretKey) -> str:
        if isinstance(value, str):
            return value
        try:
            return self.secrets[variable_file(name, value.key)]
        except KeyError:
            message = f"config.env.{name}: the Secret {value.secret!r} has no key {value.key!r}"
            raise GiveUp(FailedCode.AUTH, message) from None

    def environment(self) -> dict[str, str]:
        """Return the environment of a program of the attempt that is not the agent's.

        It contains nothing else of the engine's environment. HOME and TMPDIR are folders of the attempt, which this
        function creates.
        """
        self.create_folders()
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "TMPDIR": str(self.scratch),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "LABRATS_JOB_ID": self.task.job_id,
            ATTEMPT_VARIABLE: self.task.attempt,
        }

    def credential_file(self, name: str, content: str) -> Path:
        """Write a secret to a file for a program of this attempt. The file is removed when the attempt ends."""
        self.credentials.mkdir(mode=0o700, exist_ok=True)
        file = self.credentials / name
        write_new(file, content.encode())
        return file

    def remove_credential_file(self, name: str) -> None:
        """Remove a credential file that the program has read, so that the agent cannot. The file may be missing."""
        (self.credentials / name).unlink(missing_ok=True)

    def report_refused_host(self, host: str, reason: str) -> None:
        """Report a `host:port` that the job's network rule has refused, once."""
        known, host, reason = self.events.outputs.refused_hosts, *map(self.events.redact_host, (host, reason))
        if host in known or len(known) == MOST_REFUSED_HOSTS:
            return
        with suppress(GiveUp):  # the output is full, which the provider notices with its next event
            self.events.log(f"[network: {host} refused: {reason}]")
            self.events.refused_host(RefusedHost.of(host, reason))
            self.events.report_outputs(msgspec.structs.replace(self.events.outputs, refused_hosts=(*known, host)))
            if len(known) + 1 == MOST_REFUSED_HOSTS:
                self.events.log("[network: further refused hosts are not listed]")

    def note_model(self, name: str | None) -> None:
        """Report the model that has answered, by its own name, if it is another one than before."""
        outputs, name = self.events.outputs, self.events.field(name or "")
        if name and name != outputs.answered_by:
            self.events.report_outputs(msgspec.structs.replace(outputs, answered_by=name))

    def add_usage(self, usage: Usage) -> None:
        """Add to the attempt's usage. Raises GiveUp if the run then exceeds a limit."""
        self.events.report_usage(self.events.totals.provider + with_job_cost(usage, self.task))
        self.check_limits()

    def set_usage(self, usage: Usage, model: str | None = None) -> None:
        """Replace the provider's total usage. Raises GiveUp if the run then exceeds a limit.

        model: the model that answered, if the job does not name one.
        """
        self.note_model(model)
        self.set_final_usage(usage, model)
        self.check_limits()

    def set_final_usage(self, usage: Usage, model: str | None = None) -> None:
        """Replace the provider's total usage, without checking the limits, after it has failed or was stopped."""
        self.events.report_usage(with_job_cost(usage, self.task, model))

    def set_measured_usage(self, usage: Usage) -> None:
        """Set the usage that the key proxy has measured in this attempt. Raises GiveUp if it exceeds a limit.

        usage: with its cost, if that is known.
        """
        self.events.report_measured_usage(usage)
        self.check_limits()

    def check_limits(self) -> None:
        """Raise GiveUp if the attempt's usage, with that before a pause, exceeds a limit of the job."""
        UsageLimits.of(self.task).check(self.events.totals.usage)

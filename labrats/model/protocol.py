"""The executor's protocol: the file it reads its task from, and the events it prints, one JSON object a line.

Every line has `seq` (1, 2, 3 … within the attempt), `at` and `kind`. The last line is `result` or `error`; an attempt
that ends without one has failed, whatever its exit code.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from labrats.model.ai_model import Prices
from labrats.model.config import JobConfig
from labrats.model.job import AgentSession, FailedCode, Outputs, Pipeline, Usage, WorkspaceFile, WorkspaceSetup
from labrats.model.nesting import is_too_deep
from labrats.model.record import Record

LINE_BYTES: Final = 64 * 1024
"""No line is longer. Larger texts are cut by the executor, larger results go to a file."""

TEXT_BYTES: Final = 16 * 1024
"""The longest text of one log line; the executor breaks longer ones into several events."""

OUTPUT_BYTES: Final = 256 * 1024 * 1024
"""The most that an attempt writes, its last line apart, unless the engine's settings say otherwise."""

RESULT_FILE: Final = "result.json"
"""Where, in the attempt's folder, a result lies that does not fit into a line. An executor that has no folder in common
with the engine prints it in parts, of which the engine makes this file.
"""

PATCH_FILE: Final = "changes.patch"
"""Likewise, what the attempt changed in its workspace."""

IDLE_SECONDS: Final = 900.0
"""How long a model that is waited for may say nothing, unless the engine's settings say otherwise."""

BASELINE_FILE: Final = "baseline.json"
"""Likewise, what the workspace was like before the agent came. As long as it is there, another attempt can go on with
the workspace: whoever clears that away removes it first.
"""

NEXT_SEQ_FILE: Final = "next-seq"
"""In the scratch folder of an attempt's pod: the number of the executor's first event, after those of the steps before.
"""

POD_VARIABLE: Final = "LABRATS_POD"
"""The environment variable with the name of the pod, where an attempt claims itself for one."""

CLAIMED_STATUS: Final = 75
"""The exit status of an attempt's pod that does nothing, since another pod has claimed the attempt."""

OUTPUT_FILE: Final = "output.jsonl"
STDERR_FILE: Final = "stderr.log"
CLAIM_FILE: Final = "claim"
EXIT_FILE: Final = "exit"
"""In the attempt's folder where attempts are local processes: the events; what the executor complains of; the
ProcessId of the one executor that has the attempt; and how it ended (`exit 3`, `signal 9`), written once nothing of the
attempt runs any more.
"""


REDACTED_ONLY: Final = "redacted-"
"""Prefix of the names of secrets that nothing uses: an attempt only redacts them in its output."""

CREDENTIALS_FOLDER: Final = "credentials"
"""The folder in the attempt's own for files with secrets that programs read. It is removed at the attempt's end."""


class Sandbox(Record):
    """The machine as agents' processes see it through bubblewrap, read-only and by absolute paths.

    program:  bubblewrap's.
    readable: files and folders that are shown beside the system's programs.
    hidden:   the engine's own folders, covered wherever a folder that is shown would contain them.
    """

    program: str
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


class Resumption(Record):
    """A session of an earlier attempt, to go on with.

    workspace, folder: where that attempt worked, and had its home; None where the backend has not kept them.
    """

    session: AgentSession
    workspace: str | None = None
    folder: str | None = None


class Selection(Record):
    """The origin of the job's provider and model, for advice.

    origins:         the layer that each setting came from. ai_model: the AiModel's name, where one has both.
    credentials_ref: the Secret that it names. others: AiModels that might have been meant, the likeliest first.
    """

    origins: dict[str, str] = {}
    ai_model: str | None = None
    credentials_ref: str | None = None
    others: tuple[str, ...] = ()


class Task(Record):
    """`job.json`: everything an executor is told, but for the prompt and the secrets, which are files beside it.

    attempt:       the attempt's name, `{job}-{number}`.
    config:        resolved settings. endpoint: the model server's base URL, where the AiModel names one.
    programs:      where agent CLIs are, by provider, when they are not to be searched on PATH.
    repository:    the address of the repository that the workspace was cloned from, where an earlier step did that.
    workspace_files: each with the path by which the executor finds it.
    git_addresses: networks that git may reach although they are not public, as CIDR.
    git_ssh_key, git_ssh_known_hosts: files for clones by ssh, where the job's Secret has none.
    idle_seconds:  how long a model may say nothing while it is waited for.
    output_bytes:  the most that the attempt may write, its last line apart.
    resumption:    what to go on with, where that can be done. Otherwise the attempt begins anew, in `workspace`.
    on_cluster:    the attempt runs on Kubernetes, where `labrats secret` knows no Secrets.
    """

    job_id: str
    attempt: str
    number: int
    workspace: str
    config: JobConfig
    metadata: dict[str, Any] = {}
    workspace_setup: WorkspaceSetup | None = None
    repository: str | None = None
    workspace_files: tuple[WorkspaceFile, ...] = ()
    pipeline: Pipeline | None = None
    endpoint: str | None = None
    programs: dict[str, str] = {}
    git_addresses: tuple[str, ...] = ()
    git_ssh_key: str | None = None
    git_ssh_known_hosts: str | None = None
    repo_roots: tuple[str, ...] = ()
    cli_login: bool = False
    prices: Prices | None = None
    sandbox: Sandbox | None = None
    idle_seconds: float = IDLE_SECONDS
    output_bytes: int = OUTPUT_BYTES
    resumption: Resumption | None = None
    selection: Selection = Selection()
    on_cluster: bool = False


class ExecutorEvent(Record, tag_field="kind"):
    """One line of an executor."""

    seq: int
    at: datetime


class LogEvent(ExecutorEvent, tag="log"):
    """A line for people."""

    text: str


class StatusEvent(ExecutorEvent, tag="status"):
    """What the executor is doing: `started`, `workspace`, `running`, …"""

    state: str
    message: str | None = None


class ToolEvent(ExecutorEvent, tag="tool"):
    """A tool call (with `input`) or its answer (with `output`); both carry the call's id."""

    id: str
    name: str | None = None
    input: Any = None
    output: str | None = None
    is_error: bool = False


class UsageEvent(ExecutorEvent, tag="usage"):
    """What this attempt has consumed so far."""

    usage: Usage


class OutputEvent(ExecutorEvent, tag="output"):
    """What this attempt has made so far."""

    outputs: Outputs


class SessionEvent(ExecutorEvent, tag="session"):
    """The agent's program has begun a session, or gone on with one. Told early in an output, or not at all."""

    session: AgentSession


class PartEvent(ExecutorEvent, tag="part"):
    """A part of a file that the attempt leaves, from the byte `offset` of it. is_last: the file ends here."""

    file: str
    offset: int
    data: bytes
    is_last: bool = False


class ResultEvent(ExecutorEvent, tag="result"):
    """Success. `file` names the file with the result where it is too large for a line."""

    result: Any = None
    file: str | None = None
    usage: Usage = Usage()
    outputs: Outputs = Outputs()


class ErrorEvent(ExecutorEvent, tag="error"):
    """Failure, or the end that was asked for by a signal.

    retry_after_seconds: how long the model's provider asks to be left alone, where it says so.
    """

    code: FailedCode
    message: str
    retry_after_seconds: float | None = None
    usage: Usage = Usage()
    outputs: Outputs = Outputs()


AnyEvent = (
    LogEvent | StatusEvent | ToolEvent | UsageEvent | OutputEvent | SessionEvent | PartEvent | ResultEvent | ErrorEvent
)

_DECODER: Final = msgspec.json.Decoder(AnyEvent)


class StoredLine(msgspec.Struct, frozen=True, gc=False):
    """One line of an output, of which no more is decoded than its kind and number.

    at, text: JSON as it stands in the line. `text` is a string in the line of a log event.
    """

    kind: str
    seq: int
    at: msgspec.Raw
    text: msgspec.Raw = msgspec.Raw()

    @property
    def is_log(self) -> bool:
        """Return whether it is a log event whose fields can be spliced: JSON strings, in UTF-8."""
        text = bytes(self.text)
        has_strings = text[:1] == b'"' and bytes(self.at)[:1] == b'"'
        return self.kind == "log" and has_strings and (text.isascii() or _is_utf8(text))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


_LINE_DECODER: Final = msgspec.json.Decoder(StoredLine)


def stored_lines(lines: bytes) -> Iterator[tuple[StoredLine, bytes]]:
    """Yield the events in `lines` undecoded, each with its whole line. Foreign and torn lines are skipped."""
    for line in lines.split(b"\n"):
        if not line or is_too_deep(line):
            continue
        try:
            yield _LINE_DECODER.decode(line), line
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


def events_in(lines: bytes) -> Iterator[AnyEvent]:
    """Yield the events in `lines`."""
    for line in lines.split(b"\n"):
        if line and (event := decode_event(line)):
            yield event


def decode_event(line: bytes) -> AnyEvent | None:
    """The event in `line`, or None where it is none: a foreign or torn line is skipped, never an error.

    So is one that is nested too deeply to be kept.
    """
    if is_too_deep(line):
        return None
    try:
        event: AnyEvent = _DECODER.decode(line)
        return event
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None

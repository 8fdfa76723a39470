"""The protocol of the executor: the task file that it reads, and the events that it prints, one JSON object a line.

Every line has `seq` (1, 2, 3 … within the attempt), `at` and `kind`. The last line is `result` or `error`; an attempt
that ends without one has failed, whatever its exit code.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from labrats.model.ai_model import Prices
from labrats.model.config import JobConfig
from labrats.model.job import AgentSession, FailedCode, Outputs, Pipeline, Usage, WorkspaceFile, WorkspaceSetup
from labrats.model.nesting import is_too_deep
from labrats.model.record import Record
from labrats.model.workspace_setup import Setup

E = TypeVar("E")

LINE_BYTES: Final = 64 * 1024
"""The maximum length of a line. The executor cuts larger texts, and writes larger results to a file."""

TEXT_BYTES: Final = 16 * 1024
"""The maximum length of the text of a log line. The executor splits longer ones into several events."""

OUTPUT_BYTES: Final = 256 * 1024 * 1024
"""The default limit on the output of an attempt, without its last line."""

TASK_FILE: Final = "job.json"
RESULT_FILE: Final = "result.json"
"""The file, in the attempt's folder, of a result that does not fit into a line. An executor that shares no folder with
the engine prints it in parts, which the engine puts together.
"""

MAX_VALUES_BYTES: Final = 8 * 1024 * 1024
"""The maximum length of a result that is no text. Decoded, it may take twenty times as much memory."""

PATCH_FILE: Final = "changes.patch"
"""The file, in the attempt's folder, of the changes in the workspace; printed in parts like the result."""

CHANGES_FILE: Final = "changes-so-far.patch"
"""The file, in the attempt's folder, of the changes while the agent runs; empty without any. An executor that shares no
folder with the engine prints it in parts, several times.
"""

CHANGES_WANTED_FILE: Final = "changes-wanted"
"""The file, in the attempt's folder, by which the engine asks for `CHANGES_FILE`. The executor then removes it."""

BUNDLE_FILE: Final = "commits.bundle"
"""The file, in the attempt's folder, of the new commits as a git bundle; printed in parts like the result."""

BUNDLE_REF: Final = "refs/heads/labrats"
"""The one ref in a bundle. Its only prerequisite is the commit that was cloned."""

BUNDLE_BYTES: Final = 5 * 1024 * 1024
"""Largest bundle that is stored."""

PUBLICATION_FILE: Final = "publication.json"
"""The file, in the attempt's folder, of what the agent proposes to publish; printed in parts like the result."""

SESSION_FILE: Final = "session.json.gz"
"""The file, in an attempt's folder on a cluster, of the agent's session: the content of each file by its path in the
home. Printed in parts like the result, and never shown to users.
"""

FILES_IN_PARTS: Final = frozenset({RESULT_FILE, PATCH_FILE, CHANGES_FILE, BUNDLE_FILE, PUBLICATION_FILE, SESSION_FILE})
"""The files that an executor may print in parts."""

IDLE_SECONDS: Final = 900.0
"""The default limit on the silence of a model while an attempt waits for it."""

BASELINE_FILE: Final = "baseline.json"
"""The file, in the attempt's folder, with the state of the workspace before the agent started. Another attempt can
resume in the workspace only while this file exists, so cleaning up deletes it first.
"""

NEXT_SEQ_FILE: Final = "next-seq"
"""The file, in the scratch folder of a pod, with the number of the executor's first event, after earlier steps'."""

POD_VARIABLE: Final = "LABRATS_POD"
"""The environment variable with the pod's name, for attempts that are claimed by a pod."""

EARLIER_VARIABLE: Final = "LABRATS_EARLIER_FOLDER"
"""The environment variable of the step `prepare` with the folder of an earlier attempt, whose files it copies."""

CLAIMED_STATUS: Final = 75
"""The exit status of a pod that does nothing, as another pod has claimed the attempt."""

OUTPUT_FILE: Final = "output.jsonl"
STDERR_FILE: Final = "stderr.log"
CLAIM_FILE: Final = "claim"
EXIT_FILE: Final = "exit"
"""Files in the attempt's folder where attempts are local processes: the events; the executor's standard error; the
ProcessId of the one executor that claimed the attempt; and how it ended (`exit 3`, `signal 9`), written once no process
of the attempt runs any more.
"""


CREDENTIALS_FOLDER: Final = "credentials"
"""The folder, in the attempt's, of files with secrets for programs. It is deleted when the attempt ends."""


KEY_PROXY_FILE: Final = "key-proxy"
"""The name, among an executor's secrets, of the token of the key proxy that another container of its pod runs."""

MODEL_REQUESTS_FILE: Final = "key-proxy-requests"
"""The name of the token with which the executor, and no agent, follows the requests to that proxy."""

EGRESS_TOKEN_FILE: Final = "egress-token"  # noqa: S105, the name of a file
"""The name, among the secrets of a part of an attempt's pod, of its token for the cluster's egress proxy."""

EGRESS_SETUP_TOKEN_FILE: Final = "egress-setup-token"  # noqa: S105, the name of a file
"""The name, among the executor's secrets, of the token with which the setup commands reach that proxy."""

EGRESS_TOKEN_FILES: Final = (EGRESS_TOKEN_FILE, EGRESS_SETUP_TOKEN_FILE)

CACHE_KEEPER_FILE: Final = "cache-keeper"
"""The name, among an executor's secrets, of the token of the cache keeper in another container of its pod."""

KEY_PROXY_PORT: Final = 18401
MODEL_REQUESTS_PORT: Final = 18402
CACHE_KEEPER_PORT: Final = 18403
"""Ports on the pod's loopback address: of that proxy, of its reports about requests, and of the cache keeper."""

ATTEMPT_VARIABLE: Final = "LABRATS_ATTEMPT"
"""Environment variable of all processes of an attempt, with its name. The engine finds leftover processes by it."""

KEY_PROXY_VARIABLE: Final = "LABRATS_KEY_PROXY_FOLDER"
CACHE_KEEPER_VARIABLE: Final = "LABRATS_CACHE_KEEPER_FOLDER"
"""Environment variables of the step `prepare` with the folders in which it writes the tokens of proxy and keeper."""


class Sandbox(Record):
    """The files that agents' processes see through bubblewrap, by absolute path and read-only.

    program:       the path of bubblewrap.
    unshare:       the path of the program that keeps later mounts of the machine out; None where it does not work, and
                   for root, whose executor does it.
    readable:      files and folders to show in addition to the system's programs.
    hidden:        the engine's own folders, covered where a shown folder contains them.
    private:       files and folders among the programs that other users may not read, covered, too.
    etc_snapshots: the folder of snapshots of `/etc`. None if each world-readable file of `/etc` is bound by itself.
    may_debug:     whether processes may trace each other.
    shm_bytes:     the size of `/dev/shm`; None for the kernel's default.
    """

    program: str
    unshare: str | None = None
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    etc_snapshots: str | None = None
    may_debug: bool = False
    shm_bytes: int | None = None


class ResourceLimits(Record):
    """Limits on all processes of an attempt together, and on what they write; None for no limit.

    disk_bytes: limit on the workspace, the agent's home and its temporary files.
    disk_setting: the setting by which an operator changes it.
    kept_free_bytes: space that the engine keeps free on the disk, by deleting what ended jobs have left.
    cpus: number of the machine's processors that all attempts share.
    control_groups: folder for the control groups of attempts, by which the kernel limits them; None without any.
    """

    memory_bytes: int | None = None
    processes: int | None = None
    disk_bytes: int | None = None
    disk_setting: str = "LABRATS_WORKSPACE_GIB"
    kept_free_bytes: int | None = None
    cpus: int | None = None
    control_groups: str | None = None


NO_LIMITS: Final = ResourceLimits()


class Resumption(Record):
    """The session of an earlier attempt, to resume.

    workspace, folder: of the attempt that began it; None if the backend has not retained them.
    kept: then a folder with the files of the attempt that a new workspace can be made from; None without one.
    """

    session: AgentSession
    workspace: str | None = None
    folder: str | None = None
    kept: str | None = None


class Continuation(Record):
    """The ended job that a follow-up continues.

    session:           the session of its agent, which a copy of its home can resume; None without one.
    workspace, folder: of its last attempt, to copy; None if the backend has not retained them.
    kept:              a folder with the attempt's bundle, patch and session, as far as they are stored.
    at_head:           whether the clone has the job's commits already, as the head of its pull request does.
    """

    job_id: str
    session: AgentSession | None = None
    workspace: str | None = None
    folder: str | None = None
    kept: str | None = None
    at_head: bool = False


class Selection(Record):
    """The origin of the job's provider and model, for advice in its log.

    origins:         the layer of each setting. ai_model: the AiModel of the job, if it has one.
    credentials_ref: the Secret that the AiModel names. others: similar AiModels, the most similar first.
    """

    origins: dict[str, str] = {}
    ai_model: str | None = None
    credentials_ref: str | None = None
    others: tuple[str, ...] = ()


class Task(Record):
    """`job.json`: the task of an executor, without the prompt and the secrets, which are files beside it.

    attempt:       the attempt's name, `{job}-{number}`.
    config:        resolved settings. endpoint: the model server's base URL, if the AiModel names one.
    programs:      the paths of agent CLIs by provider, instead of searching PATH.
    repository:    the address from which an earlier step cloned the workspace, if any.
    setup:         what prepares the workspace then. Otherwise `workspace_setup` has it.
    command, environment: those of the job's AiModel.
    proxied_key:   the name of the credential that the key proxy of the pod adds to requests, if it adds one.
    workspace_files: each with the path at which the executor finds it.
    git_addresses: networks in CIDR notation that git may reach in addition to public addresses.
    git_ssh_key, git_ssh_known_hosts: files for cloning over ssh, unless the job's Secret has its own.
    spent:         what attempts that ended with a pause of the model have consumed of the job's limits. Its cost is
                   None if none of them has a known cost.
    prices:        of the job's model. other_prices: of further models of the provider, by their names.
    idle_seconds:  the limit on the silence of a model.
    result_schema: JSON Schema of the result, if the job has one.
    output_bytes:  the limit on the output of the attempt, without its last line.
    limits:        what the processes of the attempt may use.
    no_sandbox:    reason why the attempt has no sandbox although the engine's settings ask for one; may be empty.
    resumption:    the session to resume, if possible. Otherwise the attempt starts over in `workspace`.
    continuation:  the ended job that this one continues, if any.
    caches:        the folder with the cached folders of the job's scope; None if the engine keeps none.
    base_caches:   the folder of the default branch, from which a job of another ref reads; None for other jobs.
    caches_bytes:  the limit on the cached folders of all jobs.
    kept_free_bytes: space that the engine keeps free on their volume; None for the default.
    on_cluster:    whether the attempt runs on Kubernetes, where `labrats secret` has no access to Secrets.
    egress_proxy:  address and port of the cluster's egress proxy, for a job with a network rule.
    policy_tests:  addresses of that proxy, each with the port, by which the pod tests whether policies are in force.
    """

    job_id: str
    attempt: str
    number: int
    workspace: str
    config: JobConfig
    metadata: dict[str, Any] = {}
    workspace_setup: WorkspaceSetup | None = None
    repository: str | None = None
    setup: Setup | None = None
    workspace_files: tuple[WorkspaceFile, ...] = ()
    pipeline: Pipeline | None = None
    result_schema: dict[str, Any] | None = None
    endpoint: str | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] | None = None
    proxied_key: str | None = None
    programs: dict[str, str] = {}
    git_addresses: tuple[str, ...] = ()
    git_ssh_key: str | None = None
    git_ssh_known_hosts: str | None = None
    repo_roots: tuple[str, ...] = ()
    cli_login: bool = False
    spent: Usage = Usage()
    prices: Prices | None = None
    other_prices: dict[str, Prices] = {}
    sandbox: Sandbox | None = None
    no_sandbox: str = ""
    idle_seconds: float = IDLE_SECONDS
    output_bytes: int = OUTPUT_BYTES
    limits: ResourceLimits = NO_LIMITS
    resumption: Resumption | None = None
    continuation: Continuation | None = None
    selection: Selection = Selection()
    caches: str | None = None
    base_caches: str | None = None
    caches_bytes: int = 0
    kept_free_bytes: int | None = None
    on_cluster: bool = False
    egress_proxy: tuple[str, int] | None = None
    policy_tests: tuple[tuple[str, int], ...] = ()


class ExecutorEvent(Record, tag_field="kind"):
    """An event: one line that an executor prints."""

    seq: int
    at: Annotated[datetime, msgspec.Meta(tz=True)]  # the engine compares it with its own times, which have a zone


LogOrigin = Literal["agent", "tool", "engine"]
"""Source of a log line: the agent's own text, the summary of a tool call or its result, or a note of the engine."""


class LogEvent(ExecutorEvent, tag="log"):
    """A log line for people. origin: None in the output of an earlier version."""

    text: str
    origin: LogOrigin | None = None


class StatusEvent(ExecutorEvent, tag="status"):
    """A change of the executor's state: `started`, `workspace`, `running`, …"""

    state: str
    message: str | None = None


class ToolEvent(ExecutorEvent, tag="tool"):
    """A tool call (with `input`) or its answer (with `output`). Both have the id of the call."""

    id: str
    name: str | None = None
    input: Any = None
    output: str | None = None
    is_error: bool = False


class BriefToolEvent(ExecutorEvent, tag="tool"):
    """A ToolEvent without its input, which may take twenty times as much memory and time as its JSON."""

    id: str
    name: str | None = None
    output: str | None = None
    is_error: bool = False


class UsageEvent(ExecutorEvent, tag="usage"):
    """The usage of this attempt so far."""

    usage: Usage


class _EventWithOutputs(ExecutorEvent, kw_only=True):
    """An event that reports the outputs of the attempt so far."""

    outputs: Outputs = Outputs()

    def __post_init__(self) -> None:
        if not self.outputs.is_bounded:
            raise ValueError("the outputs have too many commits or refused hosts")


class OutputEvent(_EventWithOutputs, tag="output", kw_only=True):
    """The outputs of this attempt so far."""

    outputs: Outputs


class SessionEvent(ExecutorEvent, tag="session"):
    """The start or resumption of a session of the agent's program. Printed early in the output, or never."""

    session: AgentSession


OVER_LIMIT: Final = 403
"""Status of a request that the key proxy refuses because the attempt has exceeded a limit of the job."""


OVERLOADS: Final = frozenset({429, 502, 503, 504, *range(520, 530)})
"""Statuses of a model's server that is overloaded or cannot be reached. An agent can cause a 500 by an odd request."""

COUNT_TOKENS: Final = "/count_tokens"
"""End of the path of a request to count tokens."""


def is_for_an_answer(path: str, model: str | None) -> bool:
    """Return whether a request to a model's server, without its query, needs a model: not to count tokens."""
    return model is not None and not path.endswith(COUNT_TOKENS)


class ModelRequest(Record):
    """A request of the agent to its model's server, without contents.

    path:     without the query. status: of the answer; 499 if the agent closed the connection before it.
    model:    the name in the request. usage: as the answer reports it.
    estimated: what the request has consumed besides, at most, if the end of its answer was not seen. It counts for the
        limits of the job.
    refusal:  why the key proxy did not forward the request; None for a forwarded one.
    is_overload: True if the answer was streamed, and an event of it says that the model is overloaded.
    retry_after_seconds: the pause that the server asks for, if any.
    error:    the reason that a failed answer gives, for the executor only; empty without one.
    removed_fields: names of fields of the body that the key proxy has not forwarded. They are for the log only.
    """

    method: str
    path: str
    status: int
    milliseconds: int
    model: str | None = None
    usage: Usage = Usage()
    refusal: str | None = None
    is_overload: bool = False
    retry_after_seconds: float | None = None
    estimated: Usage = Usage()
    removed_fields: tuple[str, ...] = ()
    error: str = ""


class RequestEvent(ExecutorEvent, tag="request"):
    """A request of the agent to its model's server, which has ended."""

    request: ModelRequest


class RefusedHost(Record):
    """A host that the job's network rule has refused to the agent.

    host: REDACTED if it contains a secret; the port is None then. reason: one sentence for people.
    """

    host: str
    port: int | None
    reason: str

    @classmethod
    def of(cls, address: str, reason: str) -> "RefusedHost":
        """Create it from `host:port`, or from a host without a port."""
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            return cls(host=address, port=None, reason=reason)
        return cls(host=host.strip("[]"), port=int(port), reason=reason)


class RefusedHostEvent(ExecutorEvent, tag="refused_host"):
    """A refused host, once in an attempt. The outputs list it, too."""

    refused_host: RefusedHost


class PartEvent(ExecutorEvent, tag="part"):
    """A part of a file of the attempt, from the byte `offset` on. is_last: whether the file ends here."""

    file: str
    offset: int
    data: bytes
    is_last: bool = False


class ResultEvent(_EventWithOutputs, tag="result", kw_only=True):
    """The success of the attempt.

    file: the name of the file with a result that is too large for a line.
    data: the checked value of a job with a result schema.
    """

    result: Any = None
    data: Any = None
    file: str | None = None
    usage: Usage = Usage()


class ErrorEvent(_EventWithOutputs, tag="error", kw_only=True):
    """The failure of the attempt, or its end after a signal.

    retry_after_seconds: the delay that the model's provider asks for, if any.
    """

    code: FailedCode
    message: str
    retry_after_seconds: float | None = None
    usage: Usage = Usage()

    @property
    def was_stopped(self) -> bool:
        """True if the attempt ended because it was told to, so that its `code` is not the cause.

        Recognized by the message, which executors of all versions write.
        """
        return self.message == STOPPED and self.code is FailedCode.AGENT_ERROR


STOPPED: Final = "stopped on request"
"""The message of an attempt that has ended after a signal."""

_OtherEvent = (
    LogEvent
    | StatusEvent
    | UsageEvent
    | OutputEvent
    | SessionEvent
    | RequestEvent
    | RefusedHostEvent
    | PartEvent
    | ResultEvent
    | ErrorEvent
)
AnyEvent = _OtherEvent | ToolEvent
BriefEvent = _OtherEvent | BriefToolEvent

_DECODER: Final = msgspec.json.Decoder(AnyEvent)
_BRIEF_DECODER: Final = msgspec.json.Decoder(BriefEvent)


class StoredLine(msgspec.Struct, frozen=True, gc=False):
    """One line of an output, of which only the kind and number are decoded.

    at, text, origin: raw JSON from the line. `text` is a string in the line of a log event.
    """

    kind: str
    seq: int
    at: msgspec.Raw
    text: msgspec.Raw = msgspec.Raw()
    origin: msgspec.Raw = msgspec.Raw()

    @property
    def is_log(self) -> bool:
        """True for a log event whose fields can be copied unchanged: JSON strings in UTF-8."""
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
    """Yield the events in `lines` undecoded, each with its complete line. Foreign and incomplete lines are skipped."""
    for line in lines.split(b"\n"):
        if not line or is_too_deep(line):
            continue
        try:
            yield _LINE_DECODER.decode(line), line
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


def events_in(lines: bytes) -> Iterator[BriefEvent]:
    """Yield the decoded events in `lines`, as decode_briefly returns them."""
    for line in lines.split(b"\n"):
        if line and (event := decode_briefly(line)):
            yield event


def decode_event(line: bytes) -> AnyEvent | None:
    """Decode the event in `line`. Return None for a foreign or incomplete line, or one that is nested too deeply."""
    return _decoded(line, _DECODER)


def decode_briefly(line: bytes) -> BriefEvent | None:
    """Decode the event in `line` as decode_event does, but for the input of a tool."""
    return _decoded(line, _BRIEF_DECODER)


def _decoded(line: bytes, decoder: "msgspec.json.Decoder[E]") -> E | None:
    if is_too_deep(line):
        return None
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None

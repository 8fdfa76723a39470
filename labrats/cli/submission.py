"""What `labrats submit` is told, and the request it becomes."""

import base64
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Group, Parameter

from labrats.cli.durations import parse_ms
from labrats.cli.exits import CommandError, ExitCode

_SETTINGS: Final = Group("Settings", sort_key=1)
_WORKSPACE: Final = Group("Workspace", sort_key=2)

Words = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=(), show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Submission:
    """The options of `labrats submit`; None where the engine decides."""

    prompt_file: Path | None = None
    """Read the prompt from this file."""
    type: str = "task"
    """What kind of job it is, for lists and metrics."""
    source: str = "manual"
    """Where the job comes from."""
    agent: str | None = None
    """The agent (agentRole) that lends its instructions and defaults."""
    priority: int | float | None = None
    """Lower runs first. [default: 2]"""
    metadata: Words = ()
    """A value to go with the job, KEY=VALUE; JSON where it is JSON, else text. Repeatable."""
    callback_url: str | None = None
    """The address that is told when the job starts and ends."""
    idempotency_key: str | None = None
    """Submitting again with the same key gives the first job instead of another."""

    provider: Annotated[str | None, Parameter(group=_SETTINGS)] = None
    """Who runs it: claude, codex, vllm, gemma, qwen or mock."""
    model: Annotated[str | None, Parameter(group=_SETTINGS)] = None
    """The model, by the provider's name for it."""
    effort: Annotated[Literal["low", "medium", "high"] | None, Parameter(group=_SETTINGS)] = None
    """How hard the model is to think."""
    timeout: Annotated[str | None, Parameter(group=_SETTINGS)] = None
    """The longest it may run: 90s, 10m, 1h30m. [default: 55m]"""
    max_turns: Annotated[int | None, Parameter(group=_SETTINGS)] = None
    """Turns of the conversation. [default: 25]"""
    max_attempts: Annotated[int | None, Parameter(group=_SETTINGS)] = None
    """Attempts that are made by themselves after a failure that may pass. [default: 1]"""
    config: Annotated[Words, Parameter(group=_SETTINGS)] = ()
    """Any other field of the API's `config`, FIELD=VALUE, such as maxCostUsd=2, sampling.seed=1. Repeatable."""

    repo: Annotated[str | None, Parameter(group=_WORKSPACE)] = None
    """The git repository to clone: a URL, or a path where the engine allows it."""
    ref: Annotated[str | None, Parameter(group=_WORKSPACE)] = None
    """The branch, tag or commit to check out."""
    depth: Annotated[int | None, Parameter(group=_WORKSPACE)] = None
    """Clone only this many commits."""
    file: Annotated[Words, Parameter(group=_WORKSPACE)] = ()
    """A file to put into the workspace, PATH or PATH:NAME. Repeatable."""
    upload: Annotated[Words, Parameter(group=_WORKSPACE)] = ()
    """A file uploaded before by `labrats upload`, ID/NAME. Repeatable."""
    pipeline: Annotated[Literal["pdf-sections"] | None, Parameter(group=_WORKSPACE)] = None
    """What to run instead of one inference: pdf-sections, one per section of the first uploaded PDF."""

    def request(self, prompt: str | None) -> dict[str, Any]:
        """The body of `POST /api/jobs/submit`. Raises CommandError, naming the option that is wrong."""
        body = {
            "source": self.source,
            "type": self.type,
            "prompt": self._read_prompt(prompt),
            "priority": self.priority,
            "agentRole": self.agent,
            "config": self._config() or None,
            "workspaceSetup": self._workspace_setup() or None,
            "workspaceFiles": [_workspace_file(text) for text in self.file] or None,
            "workspaceUploads": [_workspace_upload(text) for text in self.upload] or None,
            "pipeline": {"type": self.pipeline} if self.pipeline else None,
            "callbackUrl": self.callback_url,
            "metadata": pairs("--metadata", self.metadata) or None,
        }
        return _without_none(body)

    def _read_prompt(self, prompt: str | None) -> str:
        if prompt is not None and self.prompt_file is not None:
            raise CommandError("give the prompt either as text or with --prompt-file, not both", ExitCode.USAGE)
        if self.prompt_file is not None:
            return _read_text("--prompt-file", self.prompt_file)
        if prompt not in (None, "-"):
            return prompt
        if prompt is None and sys.stdin.isatty():
            raise CommandError("no prompt: give it with -p, with --prompt-file, or on standard input", ExitCode.USAGE)
        return sys.stdin.read()

    def _config(self) -> dict[str, Any]:
        named = {
            "provider": self.provider,
            "model": self.model,
            "effort": self.effort,
            "timeoutMs": _timeout_ms(self.timeout),
            "maxTurns": self.max_turns,
            "maxAttempts": self.max_attempts,
        }
        return _nested(pairs("--config", self.config)) | _without_none(named)

    def _workspace_setup(self) -> dict[str, Any]:
        if self.repo is None and (self.ref is not None or self.depth is not None):
            raise CommandError("--ref and --depth say what to clone of --repo, which is missing", ExitCode.USAGE)
        return _without_none({"gitRepo": self.repo, "gitRef": self.ref, "gitDepth": self.depth})


NOTHING_ASKED: Final = Submission()


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def pairs(option: str, texts: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE texts as a mapping; a value that is valid JSON is that JSON."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise CommandError(f"{option} {text}: write KEY=VALUE", ExitCode.USAGE)
        pairs[key] = _json_or_text(value)
    return pairs


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        name, dot, field = key.partition(".")
        if dot and isinstance(nested.setdefault(name, {}), dict):
            nested[name] |= {field: value}
        else:
            nested[key] = value
    return nested


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON, whatever Python's reader says")


def _timeout_ms(text: str | None) -> int | None:
    try:
        return parse_ms(text) if text is not None else None
    except ValueError as error:
        raise CommandError(f"--timeout: {error}", ExitCode.USAGE) from error


def _workspace_file(text: str) -> dict[str, str]:
    path, name = Path(text), Path(text).name
    if not path.exists() and ":" in text:
        left, _, name = text.rpartition(":")
        path = Path(left)
    return {"name": name, "data": base64.b64encode(_read("--file", path)).decode()}


def _workspace_upload(text: str) -> dict[str, str]:
    upload_id, slash, name = text.partition("/")
    if not (upload_id and slash and name):
        raise CommandError(f"--upload {text}: write ID/NAME, as `labrats upload` prints it", ExitCode.USAGE)
    return {"id": upload_id, "name": name}


def _read_text(option: str, path: Path) -> str:
    try:
        return _read(option, path).decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"{option} {path}: not UTF-8 text", ExitCode.USAGE) from error


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror}", ExitCode.USAGE) from error

"""The options of `labrats submit` and the request that they form."""

import base64
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Group, Parameter

from labrats.cli.durations import parse_ms
from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.key_values import RepeatedOption, parse_pairs
from labrats.model.effort import Effort

_SETTINGS: Final = Group("Settings", sort_key=1)
_WORKSPACE: Final = Group("Workspace", sort_key=2)
_REPORT: Final = Group("Report to GitHub", sort_key=3)
_KEY_PREFIX: Final = "secret:"
"""Prefix of a variable's value that is the name of a Secret and a key of its data."""
_QUOTED: Final = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_SHELL_ONLY: Final = re.compile(r"&&|\|\||>>|[;&|<>`]|\$[\w{(]")
"""Characters outside of quotes that a shell would not pass on to a program."""

_TARGET: Final = re.compile(r"(?:https?://[^/\s]+/)?([\w.-]+/[\w.-]+?)(?:(?:#|/issues/)(\d+)|/pull/(\d+))?/?")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """The options for the settings of a job. The engine chooses the value of an option that is None."""

    provider: Annotated[str | None, Parameter(group=_SETTINGS)] = None
    """The provider: claude, codex, acp, openai, vllm, gemma, qwen or mock."""
    model: Annotated[str | None, Parameter(group=_SETTINGS)] = None
    """The model, by the name that the provider uses."""
    effort: Annotated[Effort | None, Parameter(group=_SETTINGS)] = None
    """The reasoning effort of the model."""
    timeout: Annotated[str | None, Parameter(group=_SETTINGS)] = None
    """The maximum time of an attempt: 90s, 10m, 1h30m. [default: 55m]"""
    max_turns: Annotated[int | None, Parameter(group=_SETTINGS)] = None
    """The maximum number of turns of the conversation. [default: 25]"""
    max_attempts: Annotated[int | None, Parameter(group=_SETTINGS)] = None
    """The maximum number of attempts, the first included, if failures are temporary. [default: 1]"""
    network: Annotated[str | None, Parameter(group=_SETTINGS)] = None
    """The hosts that the agent may reach: open, public, none, or names and presets with commas (npm,*.example.com)."""
    isolation: Annotated[Literal["process", "sandbox", "container", "vm"] | None, Parameter(group=_SETTINGS)] = None
    """The least isolation of the agent."""
    env: Annotated[RepeatedOption, Parameter(group=_SETTINGS)] = ()
    """A variable of the agent, NAME=VALUE or NAME=secret:SECRET/KEY. Repeatable; needs an administrator's key."""
    config: Annotated[RepeatedOption, Parameter(group=_SETTINGS)] = ()
    """Any other field of the API's `config`, FIELD=VALUE, such as maxCostUsd=2 or sampling.seed=1. Repeatable."""

    def config_body(self) -> dict[str, Any]:
        """Return the `config` of a request. Raises CommandError that names the invalid option."""
        named = {
            "provider": self.provider,
            "model": self.model,
            "effort": self.effort,
            "timeoutMs": _timeout_ms("--timeout", self.timeout),
            "maxTurns": self.max_turns,
            "maxAttempts": self.max_attempts,
            "network": network_rule("--network", self.network),
            "isolation": self.isolation,
            "env": variables(self.env) or None,
        }
        others = _nested(parse_pairs("--config", self.config))
        _check_texts(others.get("env"))
        options = _without_none(named)
        _require_once(others, options, "--config")
        return others | options


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SetupOptions:
    """The options for the preparation of a workspace. None and empty where nothing is set."""

    setup: Annotated[RepeatedOption, Parameter(group=_WORKSPACE)] = ()
    """A command to run before the agent starts, such as "npm ci". It is split into words like a shell's. Repeatable."""
    setup_network: Annotated[str | None, Parameter(group=_WORKSPACE)] = None
    """The hosts that the setup commands may reach, as for --network. [default: those of the agent]"""
    setup_timeout: Annotated[str | None, Parameter(group=_WORKSPACE)] = None
    """The maximum time of all setup commands together: 90s, 10m. [default: 10m]"""
    cache: Annotated[RepeatedOption, Parameter(group=_WORKSPACE)] = ()
    """A folder that --setup fills and later jobs get while a file is the same: package-lock.json:node_modules."""

    def setup_body(self) -> dict[str, Any]:
        """Return the fields of the API's `workspaceSetup`. Raises CommandError that names the invalid option."""
        return _without_none(
            {
                "setup": [_command(text) for text in self.setup] or None,
                "setupNetwork": network_rule("--setup-network", self.setup_network),
                "setupTimeoutMs": _timeout_ms("--setup-timeout", self.setup_timeout),
                "cache": [_cached_folder(text) for text in self.cache] or None,
            }
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SubmitOptions(SettingOptions, SetupOptions):
    """The options of `labrats submit`. The engine chooses the value of an option that is None."""

    prompt_file: Path | None = None
    """Read the prompt from this file."""
    type: str = "task"
    """The type of the job, for lists and metrics."""
    source: str = "manual"
    """The origin of the job."""
    agent: str | None = None
    """The agent (agentRole) whose instructions and default settings the job uses."""
    priority: int | float | None = None
    """Jobs with a lower number start first. [default: 2]"""
    concurrency_key: str | None = None
    """A key, such as "{{ repo }}#{{ number }}". Your jobs with the same key never run at the same time."""
    on_new: Literal["queue", "supersede", "replaceWaiting"] | None = None
    """The effect on your older jobs with the key: wait for them, cancel all, or those that wait. [default: queue]"""
    debounce: str | None = None
    """The time for which the job waits for newer ones with the key: 30s, 5m. [default: 0s]"""
    metadata: RepeatedOption = ()
    """Metadata of the job, KEY=VALUE. A valid JSON value is sent as JSON, any other as text. Repeatable."""
    result_schema: Path | None = None
    """A file with the JSON Schema of the result. The job fails unless its result matches it."""
    callback_url: str | None = None
    """The URL to which the engine reports the start and the end of the job."""
    field: RepeatedOption = ()
    """Any other field of the API's submission, FIELD=VALUE. Repeatable."""
    idempotency_key: str | None = None
    """A key that makes a retry safe: a second submission with the same key returns the first job."""

    repo: Annotated[str | None, Parameter(group=_WORKSPACE)] = None
    """The git repository to clone: a URL, or a path that the engine allows."""
    ref: Annotated[str | None, Parameter(group=_WORKSPACE)] = None
    """The branch, tag or commit to check out."""
    depth: Annotated[int | None, Parameter(group=_WORKSPACE)] = None
    """The number of commits to clone."""
    file: Annotated[RepeatedOption, Parameter(group=_WORKSPACE)] = ()
    """A file to copy into the workspace, PATH or PATH:NAME. Repeatable."""
    upload: Annotated[RepeatedOption, Parameter(group=_WORKSPACE)] = ()
    """A file that `labrats upload` uploaded, ID/NAME. Repeatable."""
    pipeline: Annotated[Literal["pdf-sections"] | None, Parameter(group=_WORKSPACE)] = None
    """Run a pipeline instead of one inference: pdf-sections runs one for each section of the first uploaded PDF."""

    report: Annotated[str | None, Parameter(group=_REPORT)] = None
    """Report the job to this issue or pull request, as its URL or OWNER/REPO#ISSUE. Needs an administrator's key."""
    report_with: Annotated[RepeatedOption, Parameter(group=_REPORT)] = ()
    """A field of the API's `report`, FIELD=VALUE, such as comment=sticky or pullRequest.draft=true. Repeatable."""

    def request(self, prompt: str | None) -> dict[str, Any]:
        """Return the body of `POST /api/jobs/submit`. Raises CommandError that names the invalid option."""
        body = {
            "source": self.source,
            "type": self.type,
            "prompt": self._read_prompt(prompt),
            "priority": self.priority,
            "concurrency": self._concurrency(),
            "agentRole": self.agent,
            "config": self.config_body() or None,
            "workspaceSetup": self._workspace_setup() or None,
            "workspaceFiles": [_workspace_file(text) for text in self.file] or None,
            "workspaceUploads": [_workspace_upload(text) for text in self.upload] or None,
            "pipeline": {"type": self.pipeline} if self.pipeline else None,
            "resultSchema": read_schema(self.result_schema),
            "callbackUrl": self.callback_url,
            "report": self._report(),
            "metadata": parse_pairs("--metadata", self.metadata) or None,
        }
        others, options = _nested(parse_pairs("--field", self.field)), _without_none(body)
        _require_once(others, options, "--field")
        return others | options

    def _concurrency(self) -> dict[str, Any] | None:
        if self.concurrency_key is None:
            if self.on_new or self.debounce:
                raise CommandError("--on-new and --debounce need --concurrency-key", ExitCode.USAGE)
            return None
        debounce_ms = _timeout_ms("--debounce", self.debounce)
        debounce = None if debounce_ms is None else debounce_ms / 1000
        return _without_none({"key": self.concurrency_key, "onNew": self.on_new, "debounceSeconds": debounce})

    def _read_prompt(self, prompt: str | None) -> str:
        if prompt is not None and self.prompt_file is not None:
            raise CommandError("pass the prompt either as text or with --prompt-file, not both", ExitCode.USAGE)
        if self.prompt_file is not None:
            return _read_text("--prompt-file", self.prompt_file)
        return read_prompt(prompt, "-p, with --prompt-file,")

    def _report(self) -> dict[str, Any] | None:
        parts = _nested(parse_pairs("--report-with", self.report_with))
        if self.report is None:
            if parts:
                raise CommandError("--report-with needs --report, which is missing", ExitCode.USAGE)
            return None
        if (found := _TARGET.fullmatch(self.report)) is None:
            message = f"--report {self.report}: write OWNER/REPO#ISSUE, or the URL of an issue or pull request"
            raise CommandError(message, ExitCode.USAGE)
        if not parts and self.agent is None:
            message = (
                "--report says where to report, and nothing says what: add --report-with comment=final, or such "
                "fields as check.name=NAME, or name an --agent that has a report"
            )
            raise CommandError(message, ExitCode.USAGE)
        repository, issue, pull_request = found.groups()
        numbers = {"issue": issue and int(issue), "pullRequest": pull_request and int(pull_request)}
        return parts | {"target": {"repository": repository} | _without_none(numbers)}

    def _workspace_setup(self) -> dict[str, Any]:
        prepared = self.setup_body()
        if self.repo is None and (self.ref is not None or self.depth is not None):
            raise CommandError("--ref and --depth need --repo, which is missing", ExitCode.USAGE)
        if self.repo is None and prepared:
            raise CommandError("--setup and --cache need --repo, which is missing", ExitCode.USAGE)
        if prepared and not self.setup and self.agent is None:
            message = "--setup-network, --setup-timeout and --cache need --setup, or an --agent with setup commands"
            raise CommandError(message, ExitCode.USAGE)
        return _without_none({"gitRepo": self.repo, "gitRef": self.ref, "gitDepth": self.depth}) | prepared


DEFAULT_SUBMIT_OPTIONS: Final = SubmitOptions()
DEFAULT_SETTINGS: Final = SettingOptions()


def read_prompt(prompt: str | None, option: str = "-p") -> str:
    """Return the prompt, from standard input without one. option: the option that passes it, for an error."""
    if prompt not in (None, "-"):
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise CommandError(f"no prompt: pass it with {option} or on standard input", ExitCode.USAGE)
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise CommandError("standard input is not valid UTF-8", ExitCode.USAGE) from error
    if not text.strip():
        raise CommandError(f"no prompt: standard input is empty; pass the prompt with {option}", ExitCode.USAGE)
    return text


def read_schema(path: Path | None) -> Any:
    """Return the JSON in the file of --result-schema; None without a file. The engine checks that it is a schema."""
    if path is None:
        return None
    try:
        return json.loads(_read_text("--result-schema", path))
    except ValueError as error:
        raise CommandError(f"--result-schema {path}: not JSON: {error}", ExitCode.USAGE) from error
    except RecursionError as error:
        raise CommandError(f"--result-schema {path}: nested too deeply", ExitCode.USAGE) from error


def _require_once(others: Mapping[str, Any], options: Mapping[str, Any], option: str) -> None:
    """Raise CommandError for a field that is set both by `option` and by an option of its own."""
    if twice := others.keys() & options.keys():
        message = f"{min(twice)} is set both by an option of its own and by {option}: pass one of them"
        raise CommandError(message, ExitCode.USAGE)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Convert `{"a.b": 1}` to `{"a": {"b": 1}}`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        name, dot, field = key.partition(".")
        if dot and isinstance(nested.setdefault(name, {}), dict):
            nested[name] |= {field: value}
        else:
            nested[key] = value
    return nested


def network_rule(option: str, text: str | None) -> Any:
    """Return the API's form of a network rule. Raises CommandError for an invalid one."""
    from msgspec import to_builtins  # takes a tenth of the time of a command

    from labrats.model.network import read_network

    try:
        return None if text is None else to_builtins(read_network(text))
    except ValueError as error:
        raise CommandError(f"{option} {error}", ExitCode.USAGE) from None


def variables(texts: Iterable[str]) -> dict[str, Any]:
    """Return the API's `env` for texts of `--env`. Raises CommandError for an invalid one."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise CommandError(f"--env {text}: write NAME=VALUE or NAME={_KEY_PREFIX}SECRET/KEY", ExitCode.USAGE)
        found[name] = _secret_key(name, value) if value.startswith(_KEY_PREFIX) else value
    return found


def _secret_key(name: str, value: str) -> dict[str, str]:
    secret, slash, key = value.removeprefix(_KEY_PREFIX).partition("/")
    if not (secret and slash and key):
        raise CommandError(f"--env {name}={value}: write {name}={_KEY_PREFIX}SECRET/KEY", ExitCode.USAGE)
    return {"secret": secret, "key": key}


def _check_texts(env: Any) -> None:
    """Raise CommandError for a variable of `--config env.NAME=VALUE` that JSON makes another type than text."""
    for name, value in env.items() if isinstance(env, dict) else ():
        if not isinstance(value, str | dict):
            shown = json.dumps(value)
            message = f"--config env.{name}={shown}: the value of a variable is text; pass --env {name}={shown}"
            raise CommandError(message, ExitCode.USAGE)


def _timeout_ms(option: str, text: str | None) -> int | None:
    try:
        return parse_ms(text) if text is not None else None
    except ValueError as error:
        raise CommandError(f"{option}: {error}", ExitCode.USAGE) from error


def _command(text: str) -> list[str]:
    """Return the words of a command."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CommandError(f"--setup {text}: {error}", ExitCode.USAGE) from error
    if not words:
        raise CommandError("--setup needs a command, such as 'npm ci'", ExitCode.USAGE)
    if found := _SHELL_ONLY.search(_QUOTED.sub("", text)):
        advice = "repeat --setup for each command, write \"sh -c '...'\", or quote it"
        raise CommandError(f"--setup {text}: no shell runs it, which `{found[0]}` needs; {advice}", ExitCode.USAGE)
    return words


def _cached_folder(text: str) -> dict[str, str]:
    key, colon, path = text.rpartition(":")
    if not (key and colon and path):
        raise CommandError(f"--cache {text}: write KEY:PATH, such as package-lock.json:node_modules", ExitCode.USAGE)
    return {"key": key, "path": path}


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

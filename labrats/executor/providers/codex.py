"""The codex provider: runs Codex without a terminal.

Observed behaviour: it has succeeded only if it has printed `turn.completed` and its exit status is 0. It has no limit
on the wait for a server that refuses connections or sends nothing, and no limit on turns; both are limited here. SIGINT
ends Codex and its tools; SIGTERM would leave the tools running.
"""

import contextlib
import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from labrats.executor.context import RunContext, SessionLost
from labrats.executor.egress.agent_network import NETWORK_VARIABLES
from labrats.executor.failure_advice import add_advice, missing_credentials_message
from labrats.executor.mcp_servers import mcp_servers
from labrats.executor.providers.agent_cli import (
    MAX_PAUSE_SECONDS,
    ProgramExit,
    find_program,
    no_result_failure,
    recreate_config_folder,
    run_cli,
)
from labrats.executor.providers.cli_events import report_failed_mcp_server
from labrats.executor.providers.codex_events import CodexEventTranslator, ThreadErrorEvent, ThreadStarted, read_event
from labrats.executor.providers.codex_log import LOG_FILTER, LOG_VARIABLE, CodexLog, without_requested_lines
from labrats.executor.providers.silence_limit import limit_silence
from labrats.executor.providers.strict_schema import is_strict, without_dialect
from labrats.model.codex_login import RENEWAL_VARIABLE, RENEWED_BY_ENGINE, CodexLogin
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode
from labrats.model.mcp_server import McpServer
from labrats.model.network import limits_model_server
from labrats.model.protocol import Task
from labrats.model.provider_spec import AGENT_PROGRAMS

_WITHOUT_MAX: Final = frozenset({"gpt-5.5"})
"""The models in the list of Codex whose highest effort is `xhigh`."""

_RENEWAL_SECONDS: Final = 1.0
"""Pause before the attempt with the renewed login."""

_OPTIONS: Final = ("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
_LOGIN: Final = "auth.json"
_SETTINGS: Final = "config.toml"
_SCHEMA: Final = "result-schema.json"
_KEY_NAMES: Final = ("CODEX_API_KEY", "OPENAI_API_KEY")

_CODE_OF_MESSAGE: Final[Mapping[str, FailedCode]] = {
    r"Quota exceeded|to use codex .{0,200}upgrade to Plus|insufficient_quota|status 402 |spend(ing)? limit": (
        FailedCode.QUOTA
    ),
    r"model\b.{0,200}(does not exist|not found)|model is not supported|(access to|no such) model|model_not_found": (
        FailedCode.MODEL_NOT_FOUND
    ),
    r"status 40[13] |Missing bearer|not logged in|log in again|sign in again": FailedCode.AUTH,
    r"context window": FailedCode.CONTEXT_TOO_LONG,
    r"rate limit|usage limit|status:? 429 ": FailedCode.RATE_LIMITED,
    r"at capacity|high demand|status 5(03|29) ": FailedCode.OVERLOADED,
}
"""Patterns of messages and their codes. The events of Codex contain no status or code."""

_FAILURE_CHARACTERS: Final = 4096
"""Part of a message in which a reason is looked for. An agent can write one of any length."""

_RETRY_IN: Final = re.compile(
    r"try again in ((?:\d{1,9}(?:\.\d{0,9})? ?(?:ms|s|m|h|seconds?|minutes?|hours?)[ ,]*)+)", re.IGNORECASE
)
_SECONDS_OF_UNIT: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_RETRY_AT: Final = re.compile(r"try again at (?:(\w{3} \d+)(?:st|nd|rd|th), (\d{4}) )?(\d+:\d\d [AP]M)")

_VARIABLES: Final[Mapping[str, str]] = {LOG_VARIABLE: LOG_FILTER, "TZ": "UTC"}  # Codex prints times without their zone


async def run(context: RunContext) -> str:
    """Let Codex work on the prompt in the workspace. Return its final answer."""
    program = find_program(context, "codex", AGENT_PROGRAMS["codex"].name, AGENT_PROGRAMS["codex"].package)
    if not context.task.endpoint and not _has_credentials(context):  # only a self-hosted server may need none
        raise GiveUp(FailedCode.AUTH, missing_credentials_message("Codex", context.task))
    environment = {**context.agent_environment(), **_VARIABLES, **_login_variables(context)}
    home = recreate_config_folder(context, ".codex", "sessions")
    (home / "config.toml").symlink_to(context.credential_file(_SETTINGS, "".join(_toml(_settings(context)))))
    (home / "AGENTS.md").write_text(context.instructions, "utf-8")
    resume = ["resume", context.session_id] if context.session_id else []
    schema = []
    if context.program_schema:
        (home / _SCHEMA).write_bytes(msgspec.json.encode(without_dialect(context.program_schema)))
        schema = [f"--output-schema={home / _SCHEMA}"]
    translator = CodexEventTranslator(context, context.home)
    with CodexLog() as log:
        try:
            with _credentials(context, home) as login:
                command = [program, *_OPTIONS, *schema, *resume, "-"]
                program_exit = await _run_program(context, command, environment, translator, login, log)
        finally:
            translator.report_final_usage()
            for name, reason in log.failed_mcp_servers.items():
                report_failed_mcp_server(context.events, name, reason)
        if context.session_id and not translator.has_started:
            raise SessionLost(program_exit.stderr_summary)
        answer = answer_of(context, translator, program_exit, log.retry_after_seconds)
        context.check_limits()
        return answer


async def _run_program(
    context: RunContext,
    command: list[str],
    environment: Mapping[str, str],
    translator: CodexEventTranslator,
    login: Path | None,
    log: CodexLog,
) -> ProgramExit:
    """Run Codex to its end. Raises GiveUp if the model sends nothing for too long.

    login: a file with a key, which is removed once Codex has read it.
    """

    def on_line(line: bytes) -> None:
        if (event := read_event(line)) is None:
            return
        if isinstance(event, ThreadStarted):  # Codex has read the files, before the first request
            context.remove_credential_file(_SETTINGS)
            if login:
                login.unlink(missing_ok=True)
        translator.handle(event)
        if isinstance(event, ThreadErrorEvent):  # a retry is no progress
            silence_timer.note_problem(event.message)
            _check_pause(context.task, event.message, log.retry_after_seconds)
        else:
            silence_timer.reset(waits_for_model=translator.waits_for_model)

    async with limit_silence(context, "Codex") as silence_timer:
        program_exit = await run_cli(context, command, environment, on_line, stop_signal=signal.SIGINT, stderr=log)
        return replace(program_exit, stderr=without_requested_lines(program_exit.stderr))


def _check_pause(task: Task, message: str, retry_after: float | None) -> None:
    """Raise GiveUp if the server asks for a pause that is too long to wait for. retry_after: from a header."""
    code, seconds = code_of(message), _pause_seconds(message, retry_after)
    if code in PAUSING and seconds is not None and seconds > MAX_PAUSE_SECONDS:
        sentence = f"the model's server asks for a pause of {seconds:.0f} s: {message}"
        raise GiveUp(code, add_advice(code, sentence, task), seconds)


def answer_of(
    context: RunContext, translator: CodexEventTranslator, program_exit: ProgramExit, retry_after: float | None = None
) -> str:
    """Return the answer of Codex. Raises GiveUp if an event or the exit status is a failure.

    retry_after: the pause in the server's last header, used if the failure is a rate limit or an overload.
    """
    if translator.failure is not None and RENEWED_BY_ENGINE in translator.failure:
        raise GiveUp(FailedCode.AUTH, "the model's server rejects the access token of the login", _RENEWAL_SECONDS)
    if translator.failure is not None:
        code = code_of(translator.failure)
        if code is FailedCode.AUTH and not _has_credentials(context):
            raise GiveUp(code, missing_credentials_message("Codex", context.task))
        sentence = add_advice(code, f"Codex failed: {translator.failure}", context.task)
        raise GiveUp(code, sentence, _pause_seconds(translator.failure, retry_after) if code in PAUSING else None)
    if translator.completed is None:
        raise no_result_failure("Codex", program_exit)
    if program_exit.status != 0:
        raise GiveUp(FailedCode.AGENT_ERROR, f"Codex {program_exit} although it had reported success")
    return translator.last_text


def _login_variables(context: RunContext) -> dict[str, str]:
    """Return a variable that keeps Codex from renewing a login that the engine renews, if it has one."""
    login = context.secrets.get(_LOGIN)
    return {RENEWAL_VARIABLE: RENEWED_BY_ENGINE} if login and not CodexLogin.of(login) else {}


def _has_credentials(context: RunContext) -> bool:
    return any(context.secrets.get(name) for name in (_LOGIN, *_KEY_NAMES))


def takes_schema(schema: Mapping[str, Any]) -> bool:
    """Return whether the model's server surely accepts the schema, which Codex passes on to it as `strict`."""
    return is_strict(schema)


def code_of(failure: str) -> FailedCode:
    """Return the code for a failure with this message."""
    for pattern, code in _CODE_OF_MESSAGE.items():
        if re.search(pattern, failure[:_FAILURE_CHARACTERS], re.IGNORECASE):
            return code
    return FailedCode.AGENT_ERROR


def _pause_seconds(failure: str, retry_after: float | None) -> float | None:
    """Return the pause that the server asks for in its message, or else in a header."""
    in_message = retry_after_seconds(failure, datetime.now(UTC))
    return retry_after if in_message is None else in_message


def retry_after_seconds(failure: str, now: datetime) -> float | None:
    """Return the pause in a message such as `Please try again in 1m20.5s` or `or try again at 9:50 PM`.

    A time is in UTC, and without a date it is today. It has no seconds, so a minute is added.
    """
    failure = failure[:_FAILURE_CHARACTERS]
    if duration := _RETRY_IN.search(failure):
        parts = re.findall(r"(\d+(?:\.\d*)?) ?(ms|s|m|h)", duration[1], re.IGNORECASE)
        return sum(float(number) * _SECONDS_OF_UNIT[unit.lower()] for number, unit in parts)
    if (found := _RETRY_AT.search(failure)) is None:
        return None
    day, year, time = found[1] or f"{now:%b %d}", found[2] or now.year, found[3]
    with contextlib.suppress(ValueError):
        at = datetime.strptime(f"{day} {year} {time}", "%b %d %Y %I:%M %p").replace(tzinfo=UTC)
        return max(0.0, (at + timedelta(minutes=1) - now).total_seconds())
    return None


def _settings(context: RunContext) -> dict[str, dict[str, Any]]:
    """Return the tables of config.toml, the only configuration that Codex reads."""
    config, top = context.task.config, dict[str, Any]()
    if config.model and config.model != config.provider:  # the provider's name stands for its default model
        top["model"] = config.model
    if config.effort:
        is_limited = config.effort == "max" and config.model in _WITHOUT_MAX
        top["model_reasoning_effort"] = "xhigh" if is_limited else config.effort
    if limits_model_server(config.network, context.task.endpoint):
        top["web_search"] = "disabled"  # the model's server would search, and open any address
    settings = {
        "": top,
        "analytics": {"enabled": False},  # otherwise the exit hangs without a name server
        # Otherwise each run downloads a catalog from GitHub and the provider, and a login starts the account's apps.
        "features": {"plugins": False, "apps": False},
        "shell_environment_policy": {"exclude": [*_VARIABLES]},
    }
    if context.endpoint:
        top["model_provider"] = "labrats"
        settings["model_providers.labrats"] = {
            "name": "labrats",
            "base_url": context.endpoint,
            "requires_openai_auth": any(name in context.secrets for name in (_LOGIN, *_KEY_NAMES)),
            "request_max_retries": 2,
            "stream_max_retries": 2,  # each repeats the requests above; by default an overload causes 30 requests
        }
    for name, server in mcp_servers(context).items():
        table = f"mcp_servers.{_toml_value(name)}"
        tables = _mcp_server(server, sorted(_agent_variables(context)))
        settings |= {f"{table}{part}": values for part, values in tables.items() if values}
    return settings


def _agent_variables(context: RunContext) -> set[str]:
    """Return the names of the agent's environment variables, of which Codex by itself passes few to MCP servers."""
    return {*context.agent_environment(), *context.variables(), *NETWORK_VARIABLES}


def _mcp_server(server: McpServer, variables: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the tables of a server, by the suffix of their names. variables: names of those that a program inherits.

    Values in the table `.env` take precedence.
    """
    if server.url is not None:
        return {"": {"url": server.url}, ".http_headers": server.headers}
    return {"": {"command": server.command, "args": server.args, "env_vars": variables}, ".env": server.env}


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, table in tables.items():
        yield f"[{name}]\n" if name else ""
        yield from (f"{_toml_value(key)} = {_toml_value(value)}\n" for key, value in table.items())


def _toml_value(value: Any) -> str:
    """Return a value in TOML: as in JSON, except that TOML requires an escape of the character DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@contextmanager
def _credentials(context: RunContext, home: Path) -> Iterator[Path | None]:
    """Write the model's credentials to a file until the context exits. Yield the file if it can be removed earlier.

    The environment is not used, since tools inherit it. Codex reads a key once; it writes a login that it renews back.
    """
    login, key = (
        context.secrets.get(_LOGIN),
        next((context.secrets[name] for name in _KEY_NAMES if context.secrets.get(name)), None),
    )
    if not (login or key):
        yield None
        return
    file = context.credential_file(_LOGIN, login or json.dumps({"OPENAI_API_KEY": key}))
    (home / _LOGIN).symlink_to(file)
    if login:
        for written in (file, home / _LOGIN):  # Codex may replace the link when it renews the login
            context.events.redact_login(written)
    try:
        yield None if login else file
    finally:
        context.events.read_logins()
        file.unlink(missing_ok=True)

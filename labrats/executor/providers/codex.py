"""The codex provider: drives the real Codex program, without a terminal.

How it behaves was measured. Only its exit status and its `turn.completed` together say that it succeeded. It waits for
ever for a server that refuses connections or says nothing, so how long is decided here. It knows no limit of turns
either. It is ended by SIGINT, which ends its tools too; SIGTERM would leave them running.
"""

import contextlib
import json
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from labrats.executor.context import RunContext, SessionLost
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
from labrats.executor.providers.codex_log import LOG_FILTER, LOG_VARIABLE, CodexLog, complaints_in
from labrats.executor.providers.silence_limit import limit_silence
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import Task

_OPTIONS: Final = ("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
_LOGIN: Final = "auth.json"
_SETTINGS: Final = "config.toml"
_KEY_NAMES: Final = ("CODEX_API_KEY", "OPENAI_API_KEY")

_CODE_OF_WORDS: Final[Mapping[str, FailedCode]] = {
    r"Quota exceeded|to use codex .*upgrade to Plus|insufficient_quota|status 402 |spend(ing)? limit": FailedCode.QUOTA,
    r"model\b.{0,200}(does not exist|not found)|model is not supported|(access to|no such) model|model_not_found": (
        FailedCode.MODEL_NOT_FOUND
    ),
    r"status 40[13] |Missing bearer|not logged in|log in again|sign in again": FailedCode.AUTH,
    r"context window": FailedCode.CONTEXT_TOO_LONG,
    r"rate limit|usage limit|status:? 429 ": FailedCode.RATE_LIMITED,
    r"at capacity|high demand|status 5(03|29) ": FailedCode.OVERLOADED,
}
"""No event carries a status or a code: the words are all there is."""

_RETRY_IN: Final = re.compile(r"try again in ((?:[\d.]+ ?(?:ms|s|m|h|seconds?|minutes?|hours?)[ ,]*)+)", re.IGNORECASE)
_SECONDS_OF_UNIT: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_RETRY_AT: Final = re.compile(r"try again at (?:(\w{3} \d+)(?:st|nd|rd|th), (\d{4}) )?(\d+:\d\d [AP]M)")

_VARIABLES: Final[Mapping[str, str]] = {LOG_VARIABLE: LOG_FILTER, "TZ": "UTC"}  # it tells times without their zone


async def run(context: RunContext) -> str:
    """Let Codex work on the prompt, in the workspace. Returns its last words."""
    program = find_program(context, "codex", "Codex", "@openai/codex")
    if not context.task.endpoint and not _has_credentials(context):  # only a server of one's own may need none
        raise GiveUp(FailedCode.AUTH, missing_credentials_message("Codex", context.task))
    environment = {**context.agent_environment(), **_VARIABLES}
    home = recreate_config_folder(context, ".codex", "sessions")
    (home / "config.toml").symlink_to(context.credential_file(_SETTINGS, "".join(_toml(_settings(context)))))
    (home / "AGENTS.md").write_text(context.instructions, "utf-8")
    resume = ["resume", context.session_id] if context.session_id else []
    translator = CodexEventTranslator(context, home / "sessions")
    with CodexLog(Path(environment["TMPDIR"])) as log:
        try:
            with _credentials(context, home) as login:
                command = [program, *_OPTIONS, *resume, "-"]
                ending = await _run_program(context, command, environment, translator, login, log)
        finally:
            translator.report_final_usage()
            for name, reason in log.failed_mcp_servers.items():
                report_failed_mcp_server(context.events, name, reason)
        if context.session_id and not translator.has_begun:
            raise SessionLost(ending.stderr_summary)
        answer = answer_of(context, translator, ending, log.retry_after_seconds)
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
    """Raises GiveUp when the model says nothing for too long. login: what to remove once it has been read."""

    def hear(line: bytes) -> None:
        if (event := read_event(line)) is None:
            return
        if isinstance(event, ThreadStarted):  # it has read them, and the model has not been asked yet
            context.remove_credential_file(_SETTINGS)
            if login:
                login.unlink(missing_ok=True)
        translator.tell(event)
        if isinstance(event, ThreadErrorEvent):  # no progress: it only says that it tries again
            silence.note(event.message)
            _check_pause(context.task, event.message, log.retry_after_seconds)
        else:
            silence.heard(waits_for_model=translator.waits_for_model)

    async with limit_silence(context, "Codex") as silence:
        ending = await run_cli(context, command, environment, hear, stop_signal=signal.SIGINT, complaints=log.file)
        return replace(ending, complaints=complaints_in(ending.complaints))


def _check_pause(task: Task, note: str, in_header: float | None) -> None:
    """Raises GiveUp where Codex is about to wait for longer than the run is worth its slot."""
    code, seconds = code_of(note), _asked_seconds(note, in_header)
    if code in PAUSING and seconds is not None and seconds > MAX_PAUSE_SECONDS:
        sentence = f"the model's server asks for a pause of {seconds:.0f} s: {note}"
        raise GiveUp(code, add_advice(code, sentence, task), seconds)


def answer_of(
    context: RunContext, translator: CodexEventTranslator, ending: ProgramExit, in_header: float | None = None
) -> str:
    """What Codex answered. Raises GiveUp unless everything says that it succeeded.

    in_header: how many seconds the server asks to be left alone, should that be why it failed.
    """
    if translator.failure is not None:
        code = code_of(translator.failure)
        if code is FailedCode.AUTH and not _has_credentials(context):
            raise GiveUp(code, missing_credentials_message("Codex", context.task))
        sentence = add_advice(code, f"Codex failed: {translator.failure}", context.task)
        raise GiveUp(code, sentence, _asked_seconds(translator.failure, in_header) if code in PAUSING else None)
    if translator.completed is None:
        raise no_result_failure("Codex", ending)
    if ending.status != 0:
        raise GiveUp(FailedCode.AGENT_ERROR, f"Codex {ending}, although it had reported success")
    return translator.last_text


def _has_credentials(context: RunContext) -> bool:
    return any(context.secrets.get(name) for name in (_LOGIN, *_KEY_NAMES))


def code_of(failure: str) -> FailedCode:
    """The code for a failure of which Codex said these words."""
    for words, code in _CODE_OF_WORDS.items():
        if re.search(words, failure, re.IGNORECASE):
            return code
    return FailedCode.AGENT_ERROR


def _asked_seconds(failure: str, in_header: float | None) -> float | None:
    """How long the server asks to be left alone, by its words or else by a header."""
    said = retry_after_seconds(failure, datetime.now(UTC))
    return in_header if said is None else said


def retry_after_seconds(failure: str, now: datetime) -> float | None:
    """How long to wait, where the words say so: `Please try again in 1m20.5s`, `or try again at 9:50 PM`.

    A time is in UTC, and without a date one of today. Seconds are left out of it, so it may be a minute later.
    """
    if said := _RETRY_IN.search(failure):
        parts = re.findall(r"([\d.]+) ?(ms|s|m|h)", said[1], re.IGNORECASE)
        return sum(float(number.rstrip(".")) * _SECONDS_OF_UNIT[unit.lower()] for number, unit in parts)
    if (said := _RETRY_AT.search(failure)) is None:
        return None
    day, year, time = said[1] or f"{now:%b %d}", said[2] or now.year, said[3]
    with contextlib.suppress(ValueError):
        at = datetime.strptime(f"{day} {year} {time}", "%b %d %Y %I:%M %p").replace(tzinfo=UTC)
        return max(0.0, (at + timedelta(minutes=1) - now).total_seconds())
    return None


def _settings(context: RunContext) -> dict[str, dict[str, Any]]:
    """Its config.toml, by table; nothing of the user's own or of the repository's is read."""
    config, top = context.task.config, dict[str, Any]()
    if config.model and config.model != config.provider:  # a model called like its provider is whatever that prefers
        top["model"] = config.model
    if config.effort:
        top["model_reasoning_effort"] = config.effort
    settings = {
        "": top,
        "analytics": {"enabled": False},  # with it, and without a name server, the exit hangs
        "shell_environment_policy": {"exclude": [*_VARIABLES]},
    }
    if context.task.endpoint:
        top["model_provider"] = "labrats"
        settings["model_providers.labrats"] = {
            "name": "labrats",
            "base_url": context.task.endpoint,
            "requires_openai_auth": any(name in context.secrets for name in (_LOGIN, *_KEY_NAMES)),
            "request_max_retries": 2,
            "stream_max_retries": 2,  # each with all of the above: by default an overload costs 30 requests
        }
    for name, server in mcp_servers(context).items():
        table = f"mcp_servers.{_toml_value(name)}"
        settings |= {f"{table}{part}": values for part, values in _mcp_server(server).items() if values}
    return settings


def _mcp_server(server: McpServer) -> dict[str, dict[str, Any]]:
    """Its tables."""
    if server.url is not None:
        return {"": {"url": server.url}, ".http_headers": server.headers}
    return {"": {"command": server.command, "args": server.args}, ".env": server.env}


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, table in tables.items():
        yield f"[{name}]\n" if name else ""
        yield from (f"{_toml_value(key)} = {_toml_value(value)}\n" for key, value in table.items())


def _toml_value(value: Any) -> str:
    """Strings, numbers, booleans and lists are written as in JSON, but for one character that TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@contextmanager
def _credentials(context: RunContext, home: Path) -> Iterator[Path | None]:
    """Put the model's credentials where Codex reads them, until the end. Yields what may be removed once it has.

    Not into its environment, which its tools inherit. A key is read once; a login is renewed and written back.
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
    try:
        yield None if login else file
    finally:
        file.unlink(missing_ok=True)

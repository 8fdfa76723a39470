"""The claude provider: drives the real Claude Code program, without a terminal.

How it behaves was measured. Only its exit status, its last `result` event and that event's `is_error` together say
whether it succeeded; it may print several results. SIGINT has it print or record what it has consumed before it ends;
its tools live in sessions of their own and are left to the attempt's end.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from labrats.executor.context import RunContext, SessionLost
from labrats.executor.failure_advice import add_advice, missing_credentials_message
from labrats.executor.mcp_servers import mcp_servers
from labrats.executor.providers.agent_cli import (
    ProgramExit,
    find_program,
    no_result_failure,
    recreate_config_folder,
    remove_path,
    run_cli,
)
from labrats.executor.providers.claude_events import CODE_OF_STATUS, ClaudeEventTranslator, ClaudeResult
from labrats.executor.providers.claude_sessions import SessionFiles
from labrats.executor.providers.silence_limit import limit_silence
from labrats.model.config import CREDENTIAL_NAMES
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import Task

_LOGIN: Final = ".credentials.json"
_MCP_SERVERS: Final = "mcp.json"

_VARIABLES: Final[Mapping[str, str]] = {
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",  # it would not end before they do, and a server never does
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": "3",  # by default it insists for minutes, even on a wrong key; pauses are the engine's
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}
_FIXED_OPTIONS: Final = (
    "-p",
    "--output-format=stream-json",
    "--verbose",
    "--include-partial-messages",  # only the end of a streamed message says how much the model has written
    "--dangerously-skip-permissions",
    # A repository's own settings may ask for commands to be run: as hooks, as tool servers, as sources of the key.
    "--setting-sources=user",
    "--strict-mcp-config",
)
_REPOSITORYS_WORDS: Final = (("CLAUDE.md", ".claude/CLAUDE.md"), ("AGENTS.md",))
"""Where a repository has words for agents; the first of these that it has. With its settings, these are not read."""

_DESCRIPTOR_VARIABLES: Final[Mapping[str, str]] = {
    "ANTHROPIC_API_KEY": "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
    "CLAUDE_CODE_OAUTH_TOKEN": "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
}
"""The credentials that can be read from an open file instead of the environment, which tools inherit."""

_CODE_OF_SUBTYPE: Final[Mapping[str, FailedCode]] = {
    "error_max_turns": FailedCode.MAX_TURNS,
    "error_max_budget_usd": FailedCode.BUDGET,
}


_CODE_OF_FAILURE: Final[Mapping[str, FailedCode]] = {
    "billing_error": FailedCode.QUOTA,
    "model_not_found": FailedCode.MODEL_NOT_FOUND,
}
_QUOTA: Final = re.compile(r"credit balance|API usage limits|spend(ing)? limit|API Error: 402", re.IGNORECASE)
"""Words of refusals that Claude Code has no kind of its own for."""


async def run(context: RunContext) -> str:
    """Let Claude Code work on the prompt, in the workspace. Returns its last words."""
    program = find_program(context, "claude", "Claude Code", "@anthropic-ai/claude-code")
    environment = _environment(context)
    options = [*_FIXED_OPTIONS, *_options(context), *_set_up(context, Path(environment["HOME"]))]
    files = SessionFiles(Path(environment["HOME"], ".claude", "projects"), context.session_id)
    translator = ClaudeEventTranslator(context, files)

    def hear(line: bytes) -> None:
        translator.hear(line)
        if translator.has_begun:
            context.remove_credential_file(
                _MCP_SERVERS
            )  # its servers are started, and the model has not been asked yet

    try:
        with _credentials(context) as (variables, inherited):
            async with limit_silence(context, "Claude Code") as silence:
                translator.silence = silence
                ending = await run_cli(
                    context,
                    [program, *options],
                    environment | variables,
                    hear,
                    tell_ending=translator.hear_ending,
                    inherited=inherited,
                    shared=_shared_login(context),
                )
    finally:
        translator.report_final_usage()
    if context.session_id and not translator.has_begun:
        raise SessionLost(ending.stderr_summary)
    answer = answer_of(context.task, translator.result, ending, translator.failure, translator.retry_after_seconds)
    context.check_limits()
    return answer


def answer_of(
    task: Task,
    result: ClaudeResult | None,
    ending: ProgramExit,
    failure: str = "",
    retry_after_seconds: float | None = None,
) -> str:
    """What Claude Code answered. Raises GiveUp unless everything says that it succeeded.

    failure: the kind of the API's last failure, by Claude Code's word for it. retry_after_seconds: how long the
    provider asks to be left alone, should that be why it failed.
    """
    if result is None:
        raise no_result_failure("Claude Code", ending)
    if ending.status == 0 and result.subtype == "success" and not result.is_error:
        return result.result or ""
    if result.subtype == "success" and not result.is_error:
        raise GiveUp(FailedCode.AGENT_ERROR, f"Claude Code {ending}, although it had reported success")
    if (result.result or "").startswith("Not logged in"):
        raise GiveUp(FailedCode.AUTH, missing_credentials_message("Claude Code", task))
    code = _code_of(result, failure)
    said = " ".join(filter(None, [result.result, *map(str, result.errors)])) or result.subtype
    pause = retry_after_seconds if code in PAUSING else None
    raise GiveUp(code, add_advice(code, f"Claude Code failed: {said}", task), pause)


def _code_of(result: ClaudeResult, failure: str) -> FailedCode:
    if code := _CODE_OF_SUBTYPE.get(result.subtype) or _CODE_OF_FAILURE.get(failure):
        return code
    if result.is_error and _QUOTA.search(result.result or ""):
        return FailedCode.QUOTA
    if code := CODE_OF_STATUS.get(result.api_error_status or 0):
        return code
    if result.terminal_reason == "prompt_too_long":
        return FailedCode.CONTEXT_TOO_LONG
    return FailedCode.AGENT_ERROR


def _options(context: RunContext) -> list[str]:
    """Each value in one word with its option, so that none can be taken for another option."""
    config = context.task.config
    values = {
        "resume": context.session_id,
        "model": config.model,
        "effort": config.effort,
        "max-turns": config.max_turns,
        "max-budget-usd": None if context.task.prices else config.max_cost_usd,  # it knows list prices only
        "fallback-model": config.fallback_model,
        "settings": '{"fastMode":true}' if config.fast else None,
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def _set_up(context: RunContext, home: Path) -> list[str]:
    """Put what Claude Code is to find into its folder, outside the workspace. Returns the options for that."""
    folder = recreate_config_folder(context, ".claude", "projects")
    remove_path(home / ".claude.json")
    for login in _shared_login(context):
        (folder / _LOGIN).symlink_to(login)
    words = "".join(f"@{file}\n" for file in _words_of(context.workspace))
    (folder / "CLAUDE.md").write_text(words.replace(" ", "\\ "), "utf-8")
    options = []
    if context.instructions:
        file = folder / "instructions"
        file.write_text(context.instructions, "utf-8")
        options.append(f"--append-system-prompt-file={file}")
    if servers := mcp_servers(context):
        listed = {name: _mcp_server(each) for name, each in servers.items()}
        file = context.credential_file(_MCP_SERVERS, json.dumps({"mcpServers": listed}))
        options.append(f"--mcp-config={file}")
    return options


def _mcp_server(server: McpServer) -> dict[str, Any]:
    if server.url is not None:
        return {"type": "http", "url": server.url, "headers": server.headers}
    return {"type": "stdio", "command": server.command, "args": server.args, "env": server.env}


def _words_of(workspace: Path) -> list[Path]:
    for names in _REPOSITORYS_WORDS:
        if files := [workspace / name for name in names if (workspace / name).is_file()]:
            return files
    return []


def _environment(context: RunContext) -> dict[str, str]:
    environment = {**context.agent_environment(), **_VARIABLES}
    if context.task.endpoint:
        environment["ANTHROPIC_BASE_URL"] = context.task.endpoint
    if limit := context.task.config.max_tokens:
        environment["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(limit)  # of one answer; it keeps to what the model can
    if os.geteuid() == 0:
        environment["IS_SANDBOX"] = "1"  # without it, it refuses to work as root with permissions skipped
    return environment


@contextmanager
def _credentials(context: RunContext) -> Iterator[tuple[dict[str, str], list[int]]]:
    """The variables by which Claude Code finds the model's credentials, and the open files that they name."""
    variables: dict[str, str] = {}
    with ExitStack() as stack:
        inherited: list[int] = []
        for name in CREDENTIAL_NAMES["claude"]:
            if name not in context.secrets:
                continue
            if descriptor_variable := _DESCRIPTOR_VARIABLES.get(name):
                inherited.append(stack.enter_context(_readable_once(context.secrets[name])))
                variables[descriptor_variable] = str(inherited[-1])
            else:
                variables[name] = context.secrets[name]
        yield variables, inherited


@contextmanager
def _readable_once(secret: str) -> Iterator[int]:
    """The end of a pipe from which `secret` can be read: once read, it is nowhere to be found."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)  # one that is longer than a pipe can hold would wait for ever
    try:
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(secret.encode())
        yield readable
    finally:
        os.close(readable)


def _shared_login(context: RunContext) -> list[Path]:
    """Return the login of the engine's user, where it is shared to a job without credentials of its own."""
    login = Path.home() / ".claude" / _LOGIN
    has_own = any(name in context.secrets for name in CREDENTIAL_NAMES["claude"])
    return [login] if context.task.cli_login and not has_own and login.exists() else []

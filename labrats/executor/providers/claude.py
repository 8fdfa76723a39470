"""The claude provider: runs Claude Code without a terminal.

Observed behaviour: it has succeeded only if its exit status, its last `result` event and the `is_error` of that event
agree. It may print several results. After SIGINT it prints or records its usage and exits. Its tools run in sessions of
their own and are killed at the end of the attempt.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from labrats.executor.context import RunContext, SchemaRefused, SessionLost, StructuredAnswer
from labrats.executor.failure_advice import add_advice, missing_credentials_message
from labrats.executor.mcp_servers import mcp_servers
from labrats.executor.providers.agent_cli import (
    ProgramExit,
    find_program,
    no_result_failure,
    recreate_config_folder,
    run_cli,
)
from labrats.executor.providers.claude_events import CODE_OF_STATUS, ClaudeEventTranslator, ClaudeResult
from labrats.executor.providers.claude_sessions import SessionFiles
from labrats.executor.providers.silence_limit import limit_silence
from labrats.executor.providers.strict_schema import without_dialect
from labrats.executor.usage_limits import UsageLimits
from labrats.files.trees import remove_path
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import Task
from labrats.model.provider_spec import AGENT_PROGRAMS, provider_spec

_LOGIN: Final = ".credentials.json"
_SCHEMA_REFUSED: Final = "--json-schema is not a valid JSON Schema"
"""Claude Code's message for a schema with a keyword of the dialect 2020-12, of which it knows only some."""

_MCP_SERVERS: Final = "mcp.json"

_VARIABLES: Final[Mapping[str, str]] = {
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",  # Claude Code would wait for them, and a server never exits
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": "3",  # by default it retries for minutes, even with a wrong key
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}
_PROVIDERS_OWN_SERVER: Final = "_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL"
"""Variable that lets Claude Code use all functions of the provider's own server although its URL is that of a proxy."""

_FIXED_OPTIONS: Final = (
    "-p",
    "--output-format=stream-json",
    "--verbose",
    "--include-partial-messages",  # only the end of a streamed message reports its output tokens
    "--dangerously-skip-permissions",
    # A repository's settings could run commands: hooks, MCP servers, helpers that print the API key.
    "--setting-sources=user",
    "--strict-mcp-config",
)
_REPOSITORY_INSTRUCTIONS: Final = (("CLAUDE.md", ".claude/CLAUDE.md"), ("AGENTS.md",))
"""Files with a repository's instructions for agents; the first group with an existing file is used.

Claude Code does not read them itself, as the repository's settings are disabled.
"""

_DESCRIPTOR_VARIABLES: Final[Mapping[str, str]] = {
    "ANTHROPIC_API_KEY": "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
    "CLAUDE_CODE_OAUTH_TOKEN": "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
}
"""Credentials that Claude Code can read from a file descriptor, instead of the environment, which tools inherit."""

_CODE_OF_SUBTYPE: Final[Mapping[str, FailedCode]] = {
    "error_max_turns": FailedCode.MAX_TURNS,
    "error_max_budget_usd": FailedCode.BUDGET,
    "error_max_structured_output_retries": FailedCode.RESULT_INVALID,
}


_CODE_OF_FAILURE: Final[Mapping[str, FailedCode]] = {
    "billing_error": FailedCode.QUOTA,
    "model_not_found": FailedCode.MODEL_NOT_FOUND,
}
_QUOTA: Final = re.compile(r"credit balance|API usage limits|spend(ing)? limit|API Error: 402", re.IGNORECASE)
"""Messages of exhausted quotas, which Claude Code does not report as a kind of failure."""


async def run(context: RunContext) -> str | StructuredAnswer:
    """Let Claude Code work on the prompt in the workspace. Return its final answer."""
    program = find_program(context, "claude", AGENT_PROGRAMS["claude"].name, AGENT_PROGRAMS["claude"].package)
    environment = _environment(context)
    options = [*_FIXED_OPTIONS, *_options(context), *_write_configuration(context, Path(environment["HOME"]))]
    files = SessionFiles(context.home, context.session_id)
    translator = ClaudeEventTranslator(context, files)

    def on_line(line: bytes) -> None:
        translator.handle_line(line)
        if translator.has_started:  # the MCP servers have started, and there was no request to the model yet
            context.remove_credential_file(_MCP_SERVERS)

    try:
        with _credentials(context) as (variables, inherited):
            async with limit_silence(context, "Claude Code") as silence_timer:
                translator.silence_timer = silence_timer
                program_exit = await run_cli(
                    context,
                    [program, *options],
                    environment | variables,
                    on_line,
                    on_final_line=translator.handle_final_line,
                    inherited=inherited,
                    shared=shared_login(context),
                )
    finally:
        translator.report_final_usage()
    if context.program_schema and not translator.has_started and _SCHEMA_REFUSED in program_exit.stderr:
        raise SchemaRefused(program_exit.stderr_summary)
    if context.session_id and not translator.has_started:
        raise SessionLost(program_exit.stderr_summary)
    pause = translator.retry_after_seconds
    answer = answer_of(context.task, translator.result, program_exit, translator.failure, pause)
    context.check_limits()
    value = translator.result.structured_output if translator.result else None
    return answer if value is None else StructuredAnswer(answer, value)


def answer_of(
    task: Task,
    result: ClaudeResult | None,
    program_exit: ProgramExit,
    failure: str = "",
    retry_after_seconds: float | None = None,
) -> str:
    """Return the answer of Claude Code. Raises GiveUp if the result or the exit status is a failure.

    failure:             the kind of the API's last failure, as Claude Code names it.
    retry_after_seconds: the pause that the provider asks for, used if the failure is a rate limit or an overload.
    """
    if result is None:
        raise no_result_failure("Claude Code", program_exit)
    if program_exit.status == 0 and result.subtype == "success" and not result.is_error:
        return result.result or ""
    if result.subtype == "success" and not result.is_error:
        raise GiveUp(FailedCode.AGENT_ERROR, f"Claude Code {program_exit} although it had reported success")
    if (result.result or "").startswith("Not logged in"):
        raise GiveUp(FailedCode.AUTH, missing_credentials_message("Claude Code", task))
    code = _code_of(result, failure)
    reason = " ".join(filter(None, [result.result, *map(str, result.errors)])) or result.subtype
    pause = retry_after_seconds if code in PAUSING else None
    raise GiveUp(code, add_advice(code, f"Claude Code failed: {reason}", task), pause)


def takes_schema(schema: Mapping[str, Any]) -> bool:
    """Return whether Claude Code takes the schema: it becomes the input of a tool, which is an object."""
    return schema.get("type") == "object"


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
    """Return the job's options as `--name=value`, so that no value can be mistaken for another option."""
    config, limits = context.task.config, UsageLimits.of(context.task)
    values = {
        "resume": context.session_id,
        "model": None if config.model == config.provider else config.model,  # that is the program's default model
        "effort": config.effort,
        "max-turns": config.max_turns,
        "max-budget-usd": None if context.task.prices else limits.cost_left,  # Claude Code knows list prices only
        "fallback-model": config.fallback_model,
        "settings": '{"fastMode":true}' if config.fast else None,
        "json-schema": context.program_schema and json.dumps(without_dialect(context.program_schema)),
    }
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def _write_configuration(context: RunContext, home: Path) -> list[str]:
    """Write the files of Claude Code's configuration, outside the workspace. Return the options that name them."""
    folder = recreate_config_folder(context, ".claude", "projects")
    remove_path(home / ".claude.json")
    for login in shared_login(context):
        (folder / _LOGIN).symlink_to(login)
        context.events.redact_login(login.resolve())
        context.events.redact_login(folder / _LOGIN)  # Claude Code may replace the link when it renews the login
    if files := _repository_instructions(context.workspace):
        includes = "".join(f"@{file}\n" for file in files)
        (folder / "CLAUDE.md").write_text(includes.replace(" ", "\\ "), "utf-8")
    options: list[str] = []
    if context.instructions:
        file = folder / "instructions"
        file.write_text(context.instructions, "utf-8")
        options.append(f"--append-system-prompt-file={file}")
    if servers := mcp_servers(context):
        configured = {name: _mcp_server(each) for name, each in servers.items()}
        file = context.credential_file(_MCP_SERVERS, json.dumps({"mcpServers": configured}))
        options.append(f"--mcp-config={file}")
    return options


def _mcp_server(server: McpServer) -> dict[str, Any]:
    if server.url is not None:
        return {"type": "http", "url": server.url, "headers": server.headers}
    return {"type": "stdio", "command": server.command, "args": server.args, "env": server.env}


def _repository_instructions(workspace: Path) -> list[Path]:
    """Return the files with instructions. Links out of the workspace do not count: they would reveal what exists."""
    inside = f"{os.path.realpath(workspace)}/"
    for names in _REPOSITORY_INSTRUCTIONS:
        files = [workspace / name for name in names]
        if found := [each for each in files if os.path.realpath(each).startswith(inside) and each.is_file()]:
            return found
    return []


def _environment(context: RunContext) -> dict[str, str]:
    environment = {**context.agent_environment(), **_VARIABLES}
    if context.endpoint:
        environment["ANTHROPIC_BASE_URL"] = context.endpoint
    if context.proxy_url and not context.task.endpoint:
        environment[_PROVIDERS_OWN_SERVER] = "1"
    if left := UsageLimits.of(context.task).tokens_left:
        environment["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(left)  # per answer; lowered to the model's own limit
    if os.geteuid() == 0:
        environment["IS_SANDBOX"] = "1"  # otherwise it refuses to skip permissions as root
    return environment


@contextmanager
def _credentials(context: RunContext) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Yield the variables for the model's credentials, and the file descriptors that they name."""
    variables: dict[str, str] = {}
    with ExitStack() as stack:
        inherited: list[int] = []
        for name in provider_spec("claude").keys:
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
    """Yield the end of a pipe from which `secret` can be read once, so that no other process finds it later."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)  # a secret longer than the pipe's buffer would block for ever
    try:
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(secret.encode())
        yield readable
    finally:
        os.close(readable)


def shared_login(context: RunContext) -> list[Path]:
    """Return the login file of the engine's user, if it is shared with a job without credentials of its own."""
    if not context.task.cli_login or any(name in context.secrets for name in provider_spec("claude").keys):
        return []
    login = Path.home() / ".claude" / _LOGIN
    return [login] if login.exists() else []

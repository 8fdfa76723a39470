"""The claude provider: drives the real Claude Code program, without a terminal.

How it behaves was measured. Only its exit status, its last `result` event and that event's `is_error` together say
whether it succeeded; it may print several results; and it is ended by SIGTERM, but its tools live in sessions of their
own and are left to the attempt's end.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from labrats.executor.agent_cli import Ending, program_of, run_cli, with_advice
from labrats.executor.claude_events import ClaudeResult, Narrator
from labrats.executor.run import Run
from labrats.model.config import CREDENTIAL_NAMES, JobConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_LOGIN: Final = Path(".claude", ".credentials.json")

_VARIABLES: Final[Mapping[str, str]] = {
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",  # it would not end before they do
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_MAX_RETRIES": "3",  # by default it insists for minutes, even on a wrong key
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}

_CODE_OF_STATUS: Final[Mapping[int, FailedCode]] = {
    401: FailedCode.AUTH,
    403: FailedCode.AUTH,
    429: FailedCode.RATE_LIMITED,
    503: FailedCode.OVERLOADED,
    529: FailedCode.OVERLOADED,
}
_CODE_OF_SUBTYPE: Final[Mapping[str, FailedCode]] = {
    "error_max_turns": FailedCode.MAX_TURNS,
    "error_max_budget_usd": FailedCode.BUDGET,
}


async def run(run: Run) -> str:
    """Let Claude Code work on the prompt, in the workspace. Returns its last words."""
    program = program_of(run, "claude", "Claude Code", "@anthropic-ai/claude-code")
    narrator = Narrator(run)
    ending = await run_cli(run, [program, *_options(run.task.config)], _environment(run), narrator.hear)
    if narrator.result:
        run.emit.consumed(narrator.result.as_usage())
    return answer_of(narrator.result, ending)


def answer_of(result: ClaudeResult | None, ending: Ending) -> str:
    """What Claude Code answered. Raises GiveUp unless everything says that it succeeded."""
    if result is None:
        raise GiveUp(FailedCode.AGENT_ERROR, f"Claude Code {ending} without a result: {ending.last_words}")
    if ending.status == 0 and result.subtype == "success" and not result.is_error:
        return result.result or ""
    if result.subtype == "success" and not result.is_error:
        raise GiveUp(FailedCode.AGENT_ERROR, f"Claude Code {ending}, although it had reported success")
    code = _code_of(result)
    said = " ".join(filter(None, [result.result, *map(str, result.errors)])) or result.subtype
    raise GiveUp(code, with_advice(code, f"Claude Code failed: {said}"))


def _code_of(result: ClaudeResult) -> FailedCode:
    if code := _CODE_OF_SUBTYPE.get(result.subtype) or _CODE_OF_STATUS.get(result.api_error_status or 0):
        return code
    if result.terminal_reason == "prompt_too_long":
        return FailedCode.CONTEXT_TOO_LONG
    if (result.result or "").startswith("Not logged in"):
        return FailedCode.AUTH
    return FailedCode.AGENT_ERROR


def _options(config: JobConfig) -> list[str]:
    """Each value in one word with its option, so that none can be taken for another option."""
    values = {
        "model": config.model,
        "effort": config.effort,
        "max-turns": config.max_turns,
        "max-budget-usd": config.max_cost_usd,
        "fallback-model": config.fallback_model,
        "settings": '{"fastMode":true}' if config.fast else None,
    }
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return ["-p", "--output-format=stream-json", "--verbose", "--dangerously-skip-permissions", *given]


def _environment(run: Run) -> dict[str, str]:
    environment = {**run.agent_environment(), **_VARIABLES}
    credentials = {name: run.secrets[name] for name in CREDENTIAL_NAMES["claude"] if name in run.secrets}
    if run.task.cli_login and not credentials:
        _lend_login(Path(environment["HOME"]))
    if run.task.endpoint:
        environment["ANTHROPIC_BASE_URL"] = run.task.endpoint
    if os.geteuid() == 0:
        environment["IS_SANDBOX"] = "1"  # without it, it refuses to work as root with permissions skipped
    return environment | credentials


def _lend_login(home: Path) -> None:
    """Let the agent use the login of the user who runs the engine."""
    theirs = Path.home() / _LOGIN
    if theirs.exists():
        (home / _LOGIN).parent.mkdir(exist_ok=True)
        (home / _LOGIN).symlink_to(theirs)

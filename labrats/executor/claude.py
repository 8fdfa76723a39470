"""The claude provider: drives the real Claude Code program, without a terminal.

How it behaves was measured. Only its exit status, its last `result` event and that event's `is_error` together say
whether it succeeded; it may print several results; and it is ended by SIGTERM, but its tools live in sessions of their
own and are left to the attempt's end.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from labrats.executor.child import Child, child_process, lines_of
from labrats.executor.claude_events import ClaudeResult, Narrator, read_event
from labrats.executor.run import Run
from labrats.model.config import CREDENTIAL_NAMES, JobConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.processes import kill_descendants

_GRACE_SECONDS: Final = 3.0
_LAST_WORDS_BYTES: Final = 2000
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
_ADVICE: Final[Mapping[FailedCode, str]] = {
    FailedCode.AUTH: "check the credentials that the AiModel's credentialsRef names, or the engine's own",
    FailedCode.RATE_LIMITED: "try later, or lower the AiModel's slots",
    FailedCode.OVERLOADED: "try later, or name a config.fallbackModel",
    FailedCode.CONTEXT_TOO_LONG: "shorten the prompt, or choose a model that reads more",
    FailedCode.MAX_TURNS: "raise config.maxTurns, or give it a smaller task",
    FailedCode.BUDGET: "raise config.maxCostUsd, or give it a smaller task",
}


async def run(run: Run) -> str:
    """Let Claude Code work on the prompt, in the workspace. Returns its last words."""
    narrator = Narrator(run)
    environment = _environment(run)
    prompt, complaints = (Path(environment["TMPDIR"], name) for name in ("claude-prompt", "claude-stderr"))
    prompt.write_text(run.prompt, "utf-8")
    with prompt.open("rb") as stdin, complaints.open("wb") as stderr:
        async with child_process(
            [_program(run), *_options(run.task.config)],
            run.workspace,
            environment,
            stdin=stdin,
            stderr=stderr,
            grace_seconds=_GRACE_SECONDS,
        ) as process:
            ended = asyncio.create_task(_end_of(process))
            async for line in lines_of(process.output):
                if event := read_event(line):
                    narrator.tell(event)
            status = await ended
    if narrator.result:
        run.emit.consumed(narrator.result.as_usage())
    return answer_of(narrator.result, status, complaints.read_text("utf-8", "replace"))


def answer_of(result: ClaudeResult | None, status: int, complaints: str) -> str:
    """What Claude Code answered. Raises GiveUp unless everything says that it succeeded.

    status: of its exit; negative for a signal. complaints: what it printed on stderr.
    """
    if result is None:
        last_words = " ".join(complaints[-_LAST_WORDS_BYTES:].split()) or "it gave no reason"
        raise GiveUp(FailedCode.AGENT_ERROR, f"Claude Code {_ending(status)} without a result: {last_words}")
    if status == 0 and result.subtype == "success" and not result.is_error:
        return result.result or ""
    if result.subtype == "success" and not result.is_error:
        raise GiveUp(FailedCode.AGENT_ERROR, f"Claude Code {_ending(status)}, although it had reported success")
    code = _code_of(result)
    said = " ".join(filter(None, [result.result, *map(str, result.errors)])) or result.subtype
    raise GiveUp(code, f"Claude Code failed: {said}" + (f" ({_ADVICE[code]})" if code in _ADVICE else ""))


def _code_of(result: ClaudeResult) -> FailedCode:
    if code := _CODE_OF_SUBTYPE.get(result.subtype) or _CODE_OF_STATUS.get(result.api_error_status or 0):
        return code
    if result.terminal_reason == "prompt_too_long":
        return FailedCode.CONTEXT_TOO_LONG
    if (result.result or "").startswith("Not logged in"):
        return FailedCode.AUTH
    return FailedCode.AGENT_ERROR


def _ending(status: int) -> str:
    return f"exited with code {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"


async def _end_of(process: Child) -> int:
    """Wait for its exit status; then end what it left running, which may hold its output open for ever."""
    status = await process.exit_status()
    kill_descendants(os.getpid())
    return status


def _program(run: Run) -> str:
    if program := run.task.programs.get("claude") or shutil.which("claude"):
        return program
    raise GiveUp(
        FailedCode.AGENT_ERROR,
        "Claude Code is not installed here: run `npm install -g @anthropic-ai/claude-code`, "
        "or set LABRATS_CLAUDE_PATH to the program",
    )


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

"""The mock provider: plays a script instead of asking a model."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from labrats.executor.context import RunContext, SessionLost
from labrats.executor.providers.schema_example import as_json, example_of
from labrats.files.safe_paths import open_inside, write_inside
from labrats.model.config import ResolvedConfig
from labrats.model.errors import GiveUp, Invalid
from labrats.model.job import FailedCode
from labrats.model.mock_script import (
    Action,
    Child,
    Consume,
    Die,
    Exit,
    Fail,
    Fork,
    Hang,
    IgnoreSignals,
    Log,
    OnAttempt,
    OnRepair,
    Read,
    Remember,
    SetResult,
    Sleep,
    Step,
    Write,
    parse_script,
)
from labrats.model.protocol import TEXT_BYTES

_VARIABLE: Final = re.compile(r"\{env:(\w+)\}")
_SESSIONS: Final = ".mock-sessions"
_MOST_PROMPTS: Final = 4 * 1024 * 1024
"""Characters of the prompt that a line of the log has, in copies, or one copy of a longer prompt."""

_SESSION_BYTES: Final = 16 * 1024 * 1024
_DETACHING_SHELL: Final = 'sleep "$0" &'  # the shell exits at once and leaves an orphan in its session


async def run(context: RunContext) -> Any:
    """Play the job's script, or a short default script. Return the value of its last `result` step.

    Without such a step, the result is an example of the job's result schema, if it has one.
    """
    steps, schema = _script_of(context), context.task.result_schema
    if steps is None:
        text = _play_default(context)
        return text if schema is None else as_json(example_of(schema))
    result = None if schema is None else as_json(example_of(schema))
    for action in _actions(steps, context):
        if isinstance(action, SetResult):
            result = action.result
        else:
            await _play(action, context)
    return result


def _script_of(context: RunContext) -> list[Step] | None:
    try:
        return parse_script(context.task.metadata)
    except Invalid as error:  # only in an applied job: the API rejects such a script
        raise GiveUp(FailedCode.AGENT_ERROR, f"the mock script cannot be played: {error}") from error


def _play_default(context: RunContext) -> str:
    words = _count_words(context.prompt)
    context.events.log("mock: reading the prompt", "agent")
    context.events.log(f"mock: it has {words}", "agent")
    context.events.log("mock: done", "agent")
    more = f", and instructions of {_count_words(context.instructions)}" if context.instructions else ""
    return f"The mock provider read a prompt of {words}{more}, and did nothing else."


def _count_words(text: str) -> str:
    count = len(text.split())
    return f"{count} word" if count == 1 else f"{count} words"


def _actions(steps: Sequence[Step], context: RunContext) -> Iterator[Action]:
    """Yield the actions of this run. A repair without steps of its own has the same result again."""
    if context.is_repair:
        repairs = [action for step in steps if isinstance(step, OnRepair) for action in step.steps]
        yield from repairs or (step for step in steps if isinstance(step, SetResult))
        return
    for step in steps:
        match step:
            case OnAttempt(number=number, steps=actions):
                if number == context.task.number:
                    yield from actions
            case OnRepair():
                pass
            case _:
                yield step


async def _play(action: Action, context: RunContext) -> None:
    match action:
        case Log():
            await _log(action, context)
        case Sleep():
            await asyncio.sleep(action.sleep_ms / 1000)
        case Write():
            write_inside(context.workspace, action.write.path, action.write.text.encode())
        case Consume():
            context.add_usage(action.usage.as_usage())
            _check_turns(context)
        case Fail():
            raise GiveUp(FailedCode.AGENT_ERROR, action.fail)
        case Exit():
            os._exit(action.exit)
        case Die():
            _die_by(action.signal)
        case Hang():
            await asyncio.Event().wait()
        case IgnoreSignals():
            _ignore_stop_signals()
        case Fork():
            _leave_child(action.fork, context)
        case Remember():
            _remember(context)
        case Read():
            context.events.log(f"{action.read}: {_text_of(context, action.read)}", "agent")


async def _log(step: Log, context: RunContext) -> None:
    text = step.log.replace("{prompt}", context.prompt, 1 + _MOST_PROMPTS // max(1, len(context.prompt)))
    if "{env:" in text:
        environment = context.agent_environment()
        text = _VARIABLE.sub(lambda found: environment.get(found[1], ""), text)
    for count in range(1, step.times + 1):
        if count > 1:
            await asyncio.sleep(step.every_ms / 1000)
        context.events.log(text.replace("{n}", str(count)), "agent")


def _check_turns(context: RunContext) -> None:
    limit, turns = ResolvedConfig(config=context.task.config).max_turns, context.events.totals.provider.turns
    if turns > limit:
        raise GiveUp(FailedCode.MAX_TURNS, f"the run took {turns} turns, over maxTurns {limit}")


def _die_by(number: int) -> None:
    if os.getpid() == 1:  # the first process of a container ignores its own signals; exit as if killed
        os._exit(128 + number)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _ignore_stop_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _remember(context: RunContext) -> None:
    """Add the prompt to the session, as an agent's program does in its own folder of the home."""
    session_id = context.session_id or f"mock-{context.task.attempt}"
    context.create_folders()
    name, prompts = f"{_SESSIONS}/{session_id}.json", list[str]()
    try:
        with open_inside(context.home, name) as file:
            prompts = msgspec.json.decode(file.read(_SESSION_BYTES), type=list[str])
    except (GiveUp, msgspec.DecodeError, UnicodeDecodeError) as error:
        if context.session_id:
            raise SessionLost("no such session") from error
    prompts.append(context.prompt)
    write_inside(context.home, name, msgspec.json.encode(prompts))  # a setup command may have left a link there
    context.report_session(session_id)
    context.events.log(f"remembered: {' | '.join(prompts)}", "agent")


def _text_of(context: RunContext, path: str) -> str:
    try:
        with open_inside(context.workspace, path) as file:
            return file.read(TEXT_BYTES).decode("utf-8", "replace").strip()
    except GiveUp:
        return "(missing)"


def _leave_child(child: Child, context: RunContext) -> None:
    """Start a process that the provider neither waits for nor ends."""
    seconds = str(child.seconds)
    command = ["sh", "-c", _DETACHING_SHELL, seconds] if child.detached else ["sleep", seconds]
    null_streams = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    # The job's own PATH could name a program of the repository, which would run outside of the sandbox.
    os.posix_spawnp(command[0], command, context.environment(), file_actions=null_streams, setsid=child.detached)

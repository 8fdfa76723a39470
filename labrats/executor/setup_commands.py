"""Prepare the workspace with the job's own commands, in the agent's sandbox but without the model's key."""

import asyncio
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from subprocess import STDOUT
from typing import Final

import msgspec

from labrats.executor.agent_sandbox import sandboxed_command
from labrats.executor.cache_keeper import caches_of
from labrats.executor.context import RunContext
from labrats.executor.egress.agent_network import AgentNetwork, agent_network
from labrats.executor.process_exit import describe_status, run_to_end
from labrats.executor.subprocesses import LineReader, child_process
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import EGRESS_SETUP_TOKEN_FILE, EGRESS_TOKEN_FILE
from labrats.model.workspace_setup import DEFAULT_SETUP_MS, Setup

_SHOWN_CHARACTERS: Final = 200
_NOT_STARTED: Final = re.compile("bwrap: execvp .*: (.*)")
"""The error of bubblewrap about a program that it cannot start."""

_ADVICE: Final = 'no shell reads setup commands; for one, write ["sh", "-c", "..."]'


async def run_setup(context: RunContext) -> None:
    """Run the job's setup commands one after the other, in the workspace.

    Cached folders are restored before the first command, and stored after the last one: the agent never changes what
    later jobs get. Raises GiveUp with the code `setup` if a command fails or their time is over.
    """
    setup = context.setup
    if not setup.setup:
        return
    context.events.status("workspace", "running the setup commands")
    own_context = _context_of_commands(context, setup)
    caches = caches_of(context, setup)
    await caches.restore()
    seconds = (setup.setup_timeout_ms or DEFAULT_SETUP_MS) / 1000
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            for command in setup.setup:
                await _run(command, own_context)
    except TimeoutError as error:
        if not limit.expired():  # the job's own limit
            raise
        reason = f"the setup commands took longer than their limit of {seconds:g} s"
        raise GiveUp(FailedCode.SETUP, reason) from error
    await caches.store()


def _context_of_commands(context: RunContext, setup: Setup) -> RunContext:
    """Return the context of the commands: their network rule, and no server of a model."""
    network = setup.setup_network or context.task.config.network
    config = msgspec.structs.replace(context.task.config, network=network, provider=None)
    secrets = dict(context.secrets)
    if token := secrets.get(EGRESS_SETUP_TOKEN_FILE):
        secrets[EGRESS_TOKEN_FILE] = token
    return replace(context, task=msgspec.structs.replace(context.task, config=config, endpoint=None), secrets=secrets)


async def _run(command: Sequence[str], context: RunContext) -> None:
    """Run a command to its end, with its output in the log. Raises GiveUp if it fails."""
    name = shlex.join(command)
    name = name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"
    context.events.log(f"[setup: {name}]")
    with sandboxed_command(command, context, is_of_caller=True) as sandboxed:
        async with agent_network(context) as network:
            try:
                status, last_line = await _log_output(sandboxed, context, network)
            except OSError as error:
                raise GiveUp(FailedCode.SETUP, f"`{name}` cannot be started: {error.strerror}; {_ADVICE}") from error
    if found := status != 0 and _NOT_STARTED.fullmatch(last_line):
        raise GiveUp(FailedCode.SETUP, f"`{name}` cannot be started: {found[1]}; {_ADVICE}")
    if status != 0:
        reason = last_line and f": {context.events.clean(last_line)[:_SHOWN_CHARACTERS]}"
        raise GiveUp(FailedCode.SETUP, f"`{name}` {describe_status(status)}{reason}")


async def _log_output(command: Sequence[str], context: RunContext, network: AgentNetwork) -> tuple[int, str]:
    """Run a command to its end. Return its exit status, and the last line of its output that is not empty."""
    environment, last_line = {**context.agent_environment(), **network.variables}, ""
    program = child_process(command, context.workspace, environment, stderr=STDOUT, enter=network.enter)
    async with run_to_end(program, FailedCode.SETUP) as (process, exited):
        async for line in LineReader(process.output):
            text = line.decode(errors="replace").rstrip()
            last_line = text or last_line
            context.events.log(text, "tool")
        return await exited, last_line

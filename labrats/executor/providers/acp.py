"""The acp provider: runs a program that speaks the Agent Client Protocol, such as OpenCode or Qwen Code.

Observed behaviour: the programs exit soon after the end of their standard input. What they report of their usage cannot
be used, so the key proxy's count is the only one, and a turn is an answer of the model. They repeat requests that an
overloaded server refuses for minutes; the attempt ends sooner.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, Final

from labrats import __version__
from labrats.executor.context import RunContext, SessionLost
from labrats.executor.failure_advice import add_advice, missing_command_message, missing_server_message
from labrats.executor.mcp_servers import mcp_servers
from labrats.executor.model_errors import code_of_error
from labrats.executor.providers.acp_client import AcpClient
from labrats.executor.providers.acp_events import AcpEventTranslator
from labrats.executor.providers.acp_messages import (
    AUTH_REQUIRED,
    PROTOCOL_VERSION,
    AgentCapabilities,
    Initialized,
    NewSession,
    PromptEnd,
    RpcError,
)
from labrats.executor.providers.agent_cli import (
    MAX_PAUSE_SECONDS,
    ProgramExit,
    find_acp_program,
    no_result_failure,
    run_cli,
)
from labrats.executor.providers.cli_events import is_session_id, report_failed_mcp_server
from labrats.executor.providers.silence_limit import SilenceTimer, limit_silence
from labrats.model.acp_programs import expanded
from labrats.model.errors import GiveUp
from labrats.model.job import PAUSING, FailedCode, Usage
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import ModelRequest

_MOST_FAILURES: Final = 4
"""Answers in succession with the same failure, after which the attempt ends. The programs would go on for minutes."""

_CODE_OF_STOP: Final = {
    "max_tokens": (FailedCode.AGENT_ERROR, "its answer reached the model's limit on output tokens"),
    "max_turn_requests": (FailedCode.MAX_TURNS, "it reached its own limit on turns"),
    "refusal": (FailedCode.AGENT_ERROR, "the model refused to answer"),
    "cancelled": (FailedCode.AGENT_ERROR, "its work was cancelled"),
}


async def run(context: RunContext) -> str:
    """Let the program of the job's AiModel work on the prompt in the workspace. Return its last message."""
    task = context.task
    if not task.command:
        raise GiveUp(FailedCode.INVALID, missing_command_message(task))
    if task.endpoint is None or context.endpoint is None:
        raise GiveUp(FailedCode.INVALID, missing_server_message(task))
    command = [find_acp_program(task.command[0]), *task.command[1:]]
    token = context.secrets.get("OPENAI_API_KEY", "")
    own = expanded(task.environment or {}, url=context.endpoint, token=token, model=task.config.model or "")
    async with _program_input() as stdin, limit_silence(context, task.command[0]) as silence_timer:
        session = _Session(context, stdin, silence_timer)
        context.server_activity.on_request = session.handle_request
        session.begin()
        program_exit = await run_cli(
            context,
            command,
            {**context.agent_environment(), **own},
            session.handle_line,
            on_final_line=session.handle_final_line,
            stdin=stdin.readable,
            interrupt=lambda _: session.cancel(),
        )
    answer = session.answer_after(program_exit)
    context.check_limits()
    return answer


class _ProgramInput:
    """A pipe to the program's standard input. readable: its end for the program."""

    def __init__(self, readable: BinaryIO, transport: asyncio.WriteTransport) -> None:
        self.readable = readable
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Send `data`, unless the program has closed its input."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """End the input once all of it is sent."""
        self._transport.close()


@asynccontextmanager
async def _program_input() -> AsyncIterator[_ProgramInput]:
    read, write = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(read, "rb", buffering=0) as readable:
        writable = os.fdopen(write, "wb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.BaseProtocol, writable)
        try:
            yield _ProgramInput(readable, transport)
        finally:
            if not transport.is_closing():
                transport.abort()
            await asyncio.sleep(0)  # the transport closes its end of the pipe in the loop's next round


class _Session:
    """One session with the program: it starts or resumes it, sends the prompt, and ends the program's input."""

    def __init__(self, context: RunContext, stdin: _ProgramInput, silence_timer: SilenceTimer) -> None:
        self._context = context
        self._stdin = stdin
        self._silence_timer = silence_timer
        self._translator = AcpEventTranslator(context)
        self._client = AcpClient(stdin.write, self._translator.handle)
        self._name = "the agent's program"
        self._capabilities = AgentCapabilities()
        self._session_id: str | None = None
        self._stop_reason: str | None = None
        self._error: RpcError | None = None
        self._is_session_lost = False
        self._answers = 0
        self._failed: list[ModelRequest] = []  # the latest answers, as far as they are failures

    def begin(self) -> None:
        """Ask the program what it can do."""
        params = {
            "protocolVersion": PROTOCOL_VERSION,
            "clientCapabilities": {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
            "clientInfo": {"name": "labrats", "title": "Labrats", "version": __version__},
        }
        self._client.request("initialize", params, Initialized, self._open_session, self._fail)

    def handle_line(self, line: bytes) -> None:
        """Take a line of the program's output."""
        self._client.receive(line)
        self._silence_timer.reset(waits_for_model=self._translator.waits_for_model)

    def handle_final_line(self, line: bytes) -> None:
        """Take a line after `cancel`."""
        self._client.receive(line)

    def cancel(self) -> None:
        """Ask the program to stop its work. It ends when it has answered."""
        if self._session_id and self._stop_reason is None:
            self._client.notify("session/cancel", {"sessionId": self._session_id})
        else:
            self._stdin.close()

    def handle_request(self, request: ModelRequest) -> None:
        """Count an answer of the model's server. Raises GiveUp if the program has failed too often, or over a limit."""
        if 200 <= request.status < 300:
            self._failed.clear()
            self._answers += 1
            self._context.set_usage(Usage(turns=self._answers), request.model)
            most = self._context.task.config.max_turns
            if most is not None and self._answers > most:
                sentence = f"{self._name} took more than {most} turns"
                raise GiveUp(FailedCode.MAX_TURNS, add_advice(FailedCode.MAX_TURNS, sentence, self._context.task))
        elif request.status != _CLOSED_BY_PROGRAM:
            self._failed.append(request)
            self._silence_timer.note_problem(_sentence(request))
            self._context.events.log(f"[{_sentence(request)}]")
            has_long_pause = (request.retry_after_seconds or 0) > MAX_PAUSE_SECONDS
            if has_long_pause or len(self._failed) >= _MOST_FAILURES:
                raise self._failure_of(request)

    def answer_after(self, program_exit: ProgramExit) -> str:
        """Return the last message of the agent, after the program has ended. Raises GiveUp if it has failed."""
        self._translator.end_text()
        if self._is_session_lost:
            raise SessionLost(self._error.text if self._error else "the program cannot resume sessions")
        if self._error:
            raise self._failure_of_error(self._error)
        if self._stop_reason is None:
            if self._failed:
                raise self._failure_of(self._failed[-1])
            raise no_result_failure(self._name, program_exit)
        if self._stop_reason in _CODE_OF_STOP:
            code, reason = _CODE_OF_STOP[self._stop_reason]
            raise GiveUp(code, add_advice(code, f"{self._name} has failed: {reason}", self._context.task))
        return self._translator.last_text

    # The steps

    def _open_session(self, program: Initialized) -> None:
        """Start a session, or continue that of an earlier attempt."""
        self._capabilities = program.agent_capabilities
        if info := program.agent_info:
            self._name = self._context.events.field(info.title or info.name) or self._name
            self._context.events.log(f"[{' '.join(filter(None, (self._name, info.version)))}]")
        params = {"cwd": str(self._context.workspace), "mcpServers": self._mcp_servers()}
        if (session_id := self._context.session_id) is None:
            self._client.request("session/new", params, NewSession, self._start, self._fail)
            return
        if self._capabilities.session_capabilities.resume is not None:
            method = "session/resume"
        elif self._capabilities.load_session:
            method, self._client.is_silent = "session/load", True  # the program repeats the conversation
        else:
            self._lose_session()
            return
        resumed = {"sessionId": session_id, **params}
        self._client.request(method, resumed, dict, lambda _: self._start(NewSession(session_id)), self._lose_session)

    def _start(self, session: NewSession) -> None:
        """Send the prompt."""
        self._client.is_silent = False
        self._session_id = session.session_id
        if is_session_id(session.session_id):
            self._context.report_session(session.session_id)
        instructions = "" if self._context.session_id else self._context.instructions  # a session has them
        texts = filter(None, (instructions, self._context.prompt))
        prompt = [{"type": "text", "text": text} for text in texts]
        params = {"sessionId": session.session_id, "prompt": prompt}
        self._client.request("session/prompt", params, PromptEnd, self._finish, self._fail)

    def _finish(self, end: PromptEnd) -> None:
        self._stop_reason = end.stop_reason
        self._stdin.close()

    def _fail(self, error: RpcError) -> None:
        self._error = error
        self._stdin.close()

    def _lose_session(self, error: RpcError | None = None) -> None:
        self._is_session_lost, self._error = True, error
        self._stdin.close()

    def _mcp_servers(self) -> list[dict[str, Any]]:
        servers = []
        for name, server in mcp_servers(self._context).items():
            if server.url is not None and not self._capabilities.mcp_capabilities.http:
                reason = f"{self._name} takes only servers that it starts itself"
                report_failed_mcp_server(self._context.events, name, reason)
            else:
                servers.append(_mcp_server(name, server))
        return servers

    # Failures

    def _failure_of_error(self, error: RpcError) -> GiveUp:
        if self._failed:  # what the server has said is exact, and not a text to parse
            return self._failure_of(self._failed[-1])
        code = FailedCode.AUTH if error.code == AUTH_REQUIRED else code_of_error(500, error.text)
        return GiveUp(code, add_advice(code, f"{self._name} has failed: {error.text}", self._context.task))

    def _failure_of(self, request: ModelRequest) -> GiveUp:
        code = code_of_error(request.status, request.error)
        pause = request.retry_after_seconds if code in PAUSING else None
        return GiveUp(code, add_advice(code, _sentence(request), self._context.task), pause)


_CLOSED_BY_PROGRAM: Final = 499
"""Status of a request whose connection the program has closed before the answer."""


def _sentence(request: ModelRequest) -> str:
    return f"the model's server answered {request.status}: {request.error or 'without a reason'}"


def _mcp_server(name: str, server: McpServer) -> dict[str, Any]:
    """Return a server in the form of the protocol."""
    if server.url is not None:
        return {"type": "http", "name": name, "url": server.url, "headers": _pairs(server.headers)}
    return {"name": name, "command": server.command, "args": server.args, "env": _pairs(server.env)}


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]

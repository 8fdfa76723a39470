"""The providers `vllm`, `gemma` and `qwen`: a model behind any OpenAI-compatible server.

It is asked once; or, with `reactEnabled`, it works in the workspace by calling tools.
"""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from labrats.executor.run import Run
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

if TYPE_CHECKING:
    from labrats.executor.chat import ChatServer

_KEY: Final = "OPENAI_API_KEY"


async def run(run: Run) -> str:
    """Let the model of the job answer the prompt. Returns its last words."""
    from labrats.executor.chat import Refusal, Unreachable

    try:
        async with _server_for(run) as server:
            return await ask_once(run, server)
    except (Refusal, Unreachable) as trouble:
        raise trouble.as_give_up() from trouble


async def ask_once(run: Run, server: "ChatServer") -> str:
    """Put the prompt to the model, and return what it answers."""
    lines = LogLines(run)
    reply = await server.complete([{"role": "user", "content": run.prompt}], lines.add, **_bounds(run))
    lines.end()
    run.consume(reply.usage)
    if reply.is_cut:
        run.emit.log("[the answer was cut off: it reached a limit of length]")
    return reply.text


class LogLines:
    """Logs a text that comes in pieces, line by line: a secret in it must be whole to be seen."""

    def __init__(self, run: Run) -> None:
        self._emit = run.emit
        self._started: list[str] = []

    def add(self, piece: str) -> None:
        first, *rest = piece.split("\n")
        self._started.append(first)
        for beginning in rest:
            self._emit.log("".join(self._started))
            self._started = [beginning]

    def end(self) -> None:
        """Log what is left."""
        if rest := "".join(self._started):
            self._emit.log(rest)
        self._started = []


def _server_for(run: Run) -> "AbstractAsyncContextManager[ChatServer]":
    from labrats.executor.chat import chat_server  # loads an HTTP client, which no other provider needs

    config = run.task.config
    if not run.task.endpoint:
        raise GiveUp(
            FailedCode.AGENT_ERROR,
            f"there is no server for {config.provider}/{config.model}: give this provider and model an AiModel whose "
            "endpoint is the server's address, such as http://127.0.0.1:8000/v1",
        )
    named = config.model if config.model != config.provider else None  # a job that names no model has its provider's
    return chat_server(run.task.endpoint, run.secrets.get(_KEY), named)


def _bounds(run: Run) -> dict[str, Any]:
    limit = run.task.config.max_tokens
    return {} if limit is None else {"max_tokens": limit}

"""The providers `vllm`, `gemma` and `qwen`: a model behind any OpenAI-compatible server.

It is asked once; or, with `reactEnabled`, it works in the workspace by calling tools.
"""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from labrats.executor.advice import without_server
from labrats.executor.log_lines import LogLines
from labrats.executor.run import Run
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

if TYPE_CHECKING:
    from labrats.executor.chat import ChatServer

_KEY: Final = "OPENAI_API_KEY"


async def run(run: Run) -> str:
    """Let the model of the job answer the prompt. Returns its last words."""
    # Loaded here: they bring an HTTP client, which attempts of other providers do without.
    from labrats.executor.chat import Refusal, Unreachable
    from labrats.executor.react.loop import work

    try:
        async with _server_for(run) as server:
            return await (work(run, server) if run.task.config.react_enabled else ask_once(run, server))
    except (Refusal, Unreachable) as trouble:
        raise trouble.as_give_up(run.task) from trouble


async def ask_once(run: Run, server: "ChatServer") -> str:
    """Put the prompt to the model, and return what it answers."""
    lines = LogLines(run.emit)
    messages = [{"role": "user", "content": run.prompt}]
    if run.instructions:
        messages.insert(0, {"role": "system", "content": run.instructions})
    reply = await server.complete(messages, lines.add, **_bounds(run))
    lines.end()
    run.consume(reply.usage)
    if reply.is_cut:
        run.emit.log("[the answer was cut off: it reached a limit of length]")
    return reply.text


def _server_for(run: Run) -> "AbstractAsyncContextManager[ChatServer]":
    from labrats.executor.chat import chat_server

    config = run.task.config
    if not run.task.endpoint:
        raise GiveUp(FailedCode.AGENT_ERROR, without_server(run.task))
    named = config.model if config.model != config.provider else None  # a job that names no model has its provider's
    return chat_server(run.task.endpoint, run.secrets.get(_KEY), named)


def _bounds(run: Run) -> dict[str, Any]:
    limit = run.task.config.max_tokens
    return {} if limit is None else {"max_tokens": limit}

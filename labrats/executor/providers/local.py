"""The providers `vllm`, `gemma` and `qwen`: a model behind any OpenAI-compatible server.

It is asked once; or, with `reactEnabled`, it works in the workspace by calling tools.
"""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from labrats.executor.context import RunContext
from labrats.executor.failure_advice import missing_server_message
from labrats.executor.providers.silence_limit import SilenceTimer, limit_silence
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

if TYPE_CHECKING:
    from labrats.executor.providers.chat_client import ChatClient

_KEY: Final = "OPENAI_API_KEY"
_FRAME_TOKENS: Final = 64
"""Generous bound on the tokens that the model's template adds to a prompt."""

TOKENS_PER_CHARACTER: Final = 0.33
"""A first guess; a model says how it counts with its first answer."""


async def run(context: RunContext) -> str:
    """Let the model of the job answer the prompt. Returns its last words."""
    # Loaded here: they bring an HTTP client, which attempts of other providers do without.
    from labrats.executor.providers.chat_client import ErrorResponse, ServerUnreachable
    from labrats.executor.providers.react.loop import work

    try:
        async with (
            limit_silence(context, f"The provider {context.task.config.provider}") as silence,
            _server_for(context) as server,
        ):
            return await (work if context.task.config.react_enabled else ask_once)(context, server, silence)
    except (ErrorResponse, ServerUnreachable) as trouble:
        raise trouble.as_give_up(context.task) from trouble


async def ask_once(context: RunContext, server: "ChatClient", silence: SilenceTimer) -> str:
    """Put the prompt to the model, and return what it answers. Raises GiveUp where that is nothing."""
    from labrats.executor.providers.chat_client import ErrorResponse
    from labrats.executor.providers.completion import ask, empty_completion_failure

    messages = [{"role": "user", "content": context.prompt}]
    if context.instructions:
        messages.insert(0, {"role": "system", "content": context.instructions})
    bound = _bound(context, server)
    try:
        reply = await ask(context, server, silence, messages, bound)
    except ErrorResponse as refusal:
        if not bound or refusal.code is not FailedCode.CONTEXT_TOO_LONG:
            raise
        # Prompt and answer do not fit together; the prompt alone may, with as long an answer as there is room for.
        reply = await ask(context, server, silence, messages, {})
    if reply.is_cut:
        context.events.log("[the answer was cut off: it reached a limit of length]")
    if not reply.text:
        raise empty_completion_failure(reply)
    return reply.text


def _server_for(context: RunContext) -> "AbstractAsyncContextManager[ChatClient]":
    from labrats.executor.providers.chat_client import open_chat_client

    config = context.task.config
    if not context.task.endpoint:
        raise GiveUp(FailedCode.AGENT_ERROR, missing_server_message(context.task))
    named = config.model if config.model != config.provider else None  # a job that names no model has its provider's
    return open_chat_client(context.task.endpoint, context.secrets.get(_KEY), named)


def _bound(context: RunContext, server: "ChatClient") -> dict[str, int]:
    """Return the bound on the answer: the job's, and what is left of the window that the server announces."""
    if (limit := context.task.config.max_tokens) is None:
        return {}
    if server.announced_tokens:
        prompt = (len(context.instructions) + len(context.prompt)) * TOKENS_PER_CHARACTER + _FRAME_TOKENS
        limit = max(1, min(limit, server.announced_tokens - int(prompt)))
    return {"max_tokens": limit}

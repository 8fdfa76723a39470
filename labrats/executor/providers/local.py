"""The providers `vllm`, `gemma` and `qwen`: a model behind any OpenAI-compatible server.

The model gets a single request or, with `reactEnabled`, works in the workspace by calling tools.
"""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final

from labrats.executor.context import RunContext
from labrats.executor.failure_advice import missing_server_message
from labrats.executor.providers.silence_limit import SilenceTimer, limit_silence
from labrats.executor.usage_limits import UsageLimits
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

if TYPE_CHECKING:
    from labrats.executor.providers.chat_client import ChatClient

_KEY: Final = "OPENAI_API_KEY"
_REJECTED: Final = (400, 422, 501)
_TEMPLATE_TOKENS: Final = 64
"""Generous bound on the tokens that the model's chat template adds to a prompt."""


async def run(context: RunContext) -> str:
    """Let the job's model answer the prompt. Return its final answer."""
    # Imported here because they load an HTTP client, which attempts of other providers do not need.
    from labrats.executor.providers.chat_errors import ErrorResponse, ServerUnreachable
    from labrats.executor.providers.react.loop import run_loop

    try:
        async with (
            limit_silence(context, f"The provider {context.task.config.provider}") as silence_timer,
            _open_client(context) as client,
        ):
            work_with_tools = context.task.config.react_enabled and not context.is_repair
            return await (run_loop if work_with_tools else ask_once)(context, client, silence_timer)
    except (ErrorResponse, ServerUnreachable) as error:
        raise error.as_give_up(context.task) from error


async def ask_once(context: RunContext, client: "ChatClient", silence_timer: SilenceTimer) -> str:
    """Send the prompt to the model, and return its answer. Raises GiveUp if the answer is empty."""
    from labrats.executor.providers.chat_errors import ErrorResponse
    from labrats.executor.providers.completion import empty_completion_failure, request_completion

    messages = [{"role": "user", "content": context.prompt}]
    if context.instructions:
        messages.insert(0, {"role": "system", "content": context.instructions})
    limit, form = _length_limit(context, client), _response_format(context)
    try:
        completion = await request_completion(context, client, silence_timer, messages, {**limit, **form})
    except ErrorResponse as error:
        if limit and error.code is FailedCode.CONTEXT_TOO_LONG and not error.is_too_large:
            # The prompt may fit without a limit: the answer then gets the rest of the window.
            fields = form
        elif form and error.status in _REJECTED:
            context.events.log("[the model's server rejects the result schema: only the prompt has it]")
            fields = limit
        else:
            raise
        completion = await request_completion(context, client, silence_timer, messages, fields)
    if completion.is_filtered:
        context.events.log("[the answer was cut off by the content filter of the model's server]")
    if completion.is_truncated:
        context.events.log("[the answer was cut off at a length limit]")
    if not completion.text:
        raise empty_completion_failure(completion)
    return completion.text


def _open_client(context: RunContext) -> "AbstractAsyncContextManager[ChatClient]":
    from labrats.executor.providers.chat_client import open_chat_client

    config = context.task.config
    if not context.endpoint:
        raise GiveUp(FailedCode.INVALID, missing_server_message(context.task))
    # The name of the provider is the default model of a job that names none.
    model = config.model if config.model != config.provider else None
    return open_chat_client(context.endpoint, context.secrets.get(_KEY), model)


def _response_format(context: RunContext) -> dict[str, Any]:
    """Return the fields that let the server constrain the answer to the job's result schema."""
    if (schema := context.task.result_schema) is None:
        return {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "result", "schema": schema}}}


def _length_limit(context: RunContext, client: "ChatClient") -> dict[str, int]:
    """Return the limit on the answer: the rest of the job's maxTokens, and of the reported context window."""
    if (limit := UsageLimits.of(context.task).tokens_left) is None:
        return {}
    if client.reported_window:
        from labrats.executor.providers.chat_client import TOKENS_PER_CHARACTER

        prompt = (len(context.instructions) + len(context.prompt)) * TOKENS_PER_CHARACTER + _TEMPLATE_TOKENS
        limit = max(1, min(limit, client.reported_window - int(prompt)))
    return {"max_tokens": limit}

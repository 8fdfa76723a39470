"""Request a completion from a local model: log it while it arrives, and count its usage even if it fails."""

from collections.abc import Sequence
from typing import Any

from labrats.executor.context import RunContext
from labrats.executor.providers.chat_client import ChatClient
from labrats.executor.providers.chat_stream import Completion, Message
from labrats.executor.providers.line_logger import REASONING_PREFIX, LineLogger
from labrats.executor.providers.silence_limit import SilenceTimer
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage


class CompletionLogger:
    """Logs the text and the reasoning of a completion while it arrives. has_started: True once a part has arrived."""

    def __init__(self, context: RunContext, silence_timer: SilenceTimer, *, shows_text: bool) -> None:
        self.has_started = False
        self._context = context
        self._silence_timer = silence_timer
        self._shows_text = shows_text
        self._text = LineLogger(context.events)
        self._reasoning = LineLogger(context.events, REASONING_PREFIX)

    def on_data(self) -> None:
        self._silence_timer.reset()

    def on_text(self, piece: str) -> None:
        self.has_started = True
        self._reasoning.end()
        if self._shows_text:
            self._text.add(piece)

    def on_reasoning(self, piece: str) -> None:
        self.has_started = True
        self._text.end()
        self._reasoning.add(piece)

    def on_retry(self, problem: str, seconds: float) -> None:
        self.end()
        self._silence_timer.note_problem(problem)
        self._context.events.log(f"[{problem}: retrying in {seconds:g} s]")

    def end(self) -> None:
        """Log the rest."""
        self._reasoning.end()
        self._text.end()


async def request_completion(
    context: RunContext,
    client: ChatClient,
    silence_timer: SilenceTimer,
    messages: Sequence[Message],
    fields: dict[str, Any],
    *,
    shows_text: bool = True,
) -> Completion:
    """Send `messages` to the model. Raises the errors of ChatClient.complete, and GiveUp over a limit.

    fields: further fields of the request. shows_text: False if the text is not for people and is not logged.
    """
    log = CompletionLogger(context, silence_timer, shows_text=shows_text)
    try:
        completion = await client.complete(messages, log, **_sampling(context), **fields)
    except BaseException:
        log.end()
        if log.has_started:  # its usage is unknown
            context.set_final_usage(context.events.totals.provider + Usage(turns=1))
        raise
    log.end()
    context.note_model(client.model)
    _warn_of_unknown_usage(context, completion)
    context.add_usage(completion.usage)
    return completion


def empty_completion_failure(completion: Completion) -> GiveUp:
    """Return the failure of a model whose completion contains no text."""
    if completion.calls:
        reason = "it called a tool, which requires config.reactEnabled"
    elif completion.is_filtered:
        reason = "the content filter of the model's server stopped it: try another prompt or model"
    elif completion.is_truncated:
        part = "its reasoning" if completion.has_reasoning else "its text"
        reason = f"{part} reached a length limit: raise config.maxTokens, or configure a longer context on the server"
    elif completion.has_reasoning:
        reason = "it wrote only reasoning: try again, or lower config.sampling.reasoningEffort"
    else:
        reason = "try again, or another prompt or model"
    return GiveUp(FailedCode.AGENT_ERROR, f"the model gave an empty answer ({reason})")


def _sampling(context: RunContext) -> dict[str, Any]:
    """Return the sampling fields of a request, by the names that the API, vLLM and llama.cpp use."""
    if (sampling := context.task.config.sampling) is None:
        return {}
    fields = sampling.values
    if sampling.repetition_penalty is not None:
        fields["repeat_penalty"] = sampling.repetition_penalty  # llama.cpp's name for it
    return fields


def _warn_of_unknown_usage(context: RunContext, completion: Completion) -> None:
    config, is_first = context.task.config, context.events.totals.provider.turns == 0
    limits = [name for name, limit in (("maxTokens", config.max_tokens), ("maxCostUsd", config.max_cost_usd)) if limit]
    if limits and is_first and not completion.usage.tokens:
        settings = " and ".join(f"config.{name}" for name in limits)
        context.events.log(f"[the model's server reports no usage: {settings} cannot be checked]")

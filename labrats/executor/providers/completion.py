"""Asks a local model: its answer is logged as it comes in, and counted whatever becomes of it."""

from collections.abc import Sequence
from typing import Any, Final

from labrats.executor.context import RunContext
from labrats.executor.providers.chat_client import ChatClient, Completion, Message
from labrats.executor.providers.line_logger import LineLogger
from labrats.executor.providers.silence_limit import SilenceTimer
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, Usage

_THOUGHT: Final = "[thinking] "


class CompletionLogger:
    """Logs what an answer says, and what the model thinks. has_begun: some of it has come in."""

    def __init__(self, context: RunContext, silence: SilenceTimer, *, shows_text: bool) -> None:
        self.has_begun = False
        self._context = context
        self._silence = silence
        self._shows_text = shows_text
        self._text = LineLogger(context.events)
        self._thoughts = LineLogger(context.events, _THOUGHT)

    def sign_of_life(self) -> None:
        self._silence.heard()

    def text(self, piece: str) -> None:
        self.has_begun = True
        self._thoughts.end()
        if self._shows_text:
            self._text.add(piece)

    def thought(self, piece: str) -> None:
        self.has_begun = True
        self._text.end()
        self._thoughts.add(piece)

    def asked_again(self, trouble: str, seconds: float) -> None:
        self.end()
        self._silence.note(trouble)
        self._context.events.log(f"[{trouble}: it is asked again in {seconds:g} s]")

    def end(self) -> None:
        """Log what is left."""
        self._thoughts.end()
        self._text.end()


async def ask(
    context: RunContext,
    server: ChatClient,
    silence: SilenceTimer,
    messages: Sequence[Message],
    fields: dict[str, Any],
    *,
    shows_text: bool = True,
) -> Completion:
    """Put `messages` to the model. Raises what ChatClient.complete does, or GiveUp when the answer passes a limit."""
    log = CompletionLogger(context, silence, shows_text=shows_text)
    try:
        reply = await server.complete(messages, log, **_sampling(context), **fields)
    except BaseException:
        log.end()
        if log.has_begun:  # what it has consumed is not known
            context.set_final_usage(context.events.provider_usage + Usage(turns=1))
        raise
    log.end()
    _warn_of_unknown_usage(context, reply)
    context.add_usage(reply.usage)
    return reply


def empty_completion_failure(reply: Completion) -> GiveUp:
    """Return the failure of a model that has answered nothing."""
    if reply.calls:
        why = "it called a tool instead, which it can only with config.reactEnabled"
    elif reply.is_cut:
        what = "its thoughts" if reply.has_thought else "what it wrote"
        why = f"{what} reached a limit of length: raise config.maxTokens, or give the server a longer context"
    elif reply.has_thought:
        why = "it only thought: try again, or with a lower config.sampling.reasoningEffort"
    else:
        why = "try again, or another prompt or model"
    return GiveUp(FailedCode.AGENT_ERROR, f"the model gave an empty answer ({why})")


def _sampling(context: RunContext) -> dict[str, Any]:
    """The fields of a request, by the names that the API, vLLM and llama.cpp have for them."""
    if (sampling := context.task.config.sampling) is None:
        return {}
    fields = sampling.given
    if sampling.repetition_penalty is not None:
        fields["repeat_penalty"] = sampling.repetition_penalty  # llama.cpp's name for it
    return fields


def _warn_of_unknown_usage(context: RunContext, reply: Completion) -> None:
    config, is_first = context.task.config, context.events.provider_usage.turns == 0
    limits = [name for name, limit in (("maxTokens", config.max_tokens), ("maxCostUsd", config.max_cost_usd)) if limit]
    if limits and is_first and not reply.usage.tokens:
        what = " and ".join(f"config.{name}" for name in limits)
        context.events.log(f"[the model's server reports no usage: {what} cannot be checked]")

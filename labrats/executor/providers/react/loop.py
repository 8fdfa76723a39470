"""The loop: ask the model, do what it calls for, tell it what came of that, until it is done or a limit ends it."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

from labrats.executor.context import RunContext
from labrats.executor.providers.chat_client import ChatClient, Completion, ErrorResponse, ServerUnreachable
from labrats.executor.providers.cli_events import report_tool_call, report_tool_result
from labrats.executor.providers.completion import ask, empty_completion_failure
from labrats.executor.providers.local import TOKENS_PER_CHARACTER
from labrats.executor.providers.react.arguments import (
    EditFile,
    Finish,
    InvalidToolCall,
    RunCommand,
    ToolArguments,
    WriteFile,
    parse_tool_call,
)
from labrats.executor.providers.react.observations import Observation
from labrats.executor.providers.react.repetition import REMINDER, RepetitionDetector
from labrats.executor.providers.react.tool_call_formats import FALLBACK_FORMATS, NATIVE, ToolCallFormat
from labrats.executor.providers.react.tools import Tools
from labrats.executor.providers.react.transcript import Call, Transcript, Turn, characters_in
from labrats.executor.providers.silence_limit import SilenceTimer
from labrats.model.config import ResolvedConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_CALLS_AT_ONCE: Final = 16
_NAME_CHARACTERS: Final = 40
_REPAIRS: Final = 2
_LONGEST_REPLY_TOKENS: Final = 8192
_SHORTEST_REPLY_TOKENS: Final = 512
_ROOM_LEFT: Final = 0.75
"""How full a talk is left that was shortened. To shorten it a little on every turn would make the server read it anew
each time: what it has in its cache is the beginning."""

_NOT_UNDERSTOOD: Final = frozenset({400, 422})
_INNER_ERRORS: Final = frozenset({500, 501})
_CHANGING: Final = (WriteFile, EditFile, RunCommand)

_ASK_FOR_ANSWER: Final = "Your answer is empty. Say in a few sentences what you found or did."
_ASK_FOR_CALL: Final = "That is no call of a tool. Answer with one JSON object, such as: "
_ASK_FOR_LESS: Final = "Your answer was cut off, because it was too long. Write less at once."


async def work(context: RunContext, server: ChatClient, silence: SilenceTimer) -> str:
    """Let the model work on the prompt with tools. Returns its answer. Raises GiveUp, Refusal or Unreachable;
    what was done until then is in the log.
    """
    window = server.window_tokens
    transcript = Transcript(context.instructions, context.prompt)
    agent = Agent(
        context, server, silence, Tools.of(context, window), transcript, min(window // 4, _LONGEST_REPLY_TOKENS)
    )
    try:
        return await agent.work()
    except (GiveUp, ErrorResponse, ServerUnreachable, asyncio.CancelledError):
        context.events.log(f"[ended before it was done; so far: {agent.summary}]")
        raise


@dataclass
class Agent:
    """A model at work. reply_tokens: how long an answer may be. manner: how it is asked to write calls. Both as found
    out so far.
    """

    context: RunContext
    server: ChatClient
    silence: SilenceTimer
    tools: Tools
    transcript: Transcript
    reply_tokens: int
    tool_call_format: ToolCallFormat = NATIVE
    repetition: RepetitionDetector = field(default_factory=RepetitionDetector)
    tokens_per_character: float = TOKENS_PER_CHARACTER
    made: "Counter[str]" = field(default_factory=Counter)
    repairs: int = 0
    was_asked_for_answer: bool = False

    async def work(self) -> str:
        """Ask, act, repeat, until the model answers or a limit is reached."""
        turns = ResolvedConfig(config=self.context.task.config).max_turns
        for _ in range(turns):
            reply = await self._ask()
            if (answer := await self._act(reply)) is not None:
                return answer if answer.strip() else self._in_its_place(reply)
            if self.repetition.is_hopeless:
                raise GiveUp(FailedCode.AGENT_ERROR, f"the model makes the same calls over and over; {self.summary}")
        reason = f"the run took its {turns} turns without coming to an end (raise config.maxTurns); {self.summary}"
        raise GiveUp(FailedCode.MAX_TURNS, reason)

    @property
    def summary(self) -> str:
        """What was done, in a line."""
        calls = ", ".join(f"{name} {count} times" for name, count in sorted(self.made.items()))
        return f"{self.context.events.usage.turns} turns, {calls or 'no calls'}"

    async def _ask(self) -> Completion:
        while True:
            self.transcript = self._shortened()
            try:
                reply = await ask(
                    self.context,
                    self.server,
                    self.silence,
                    self.tool_call_format.messages(self.transcript),
                    self._fields(),
                    shows_text=self.tool_call_format.streams_text,
                )
            except ErrorResponse as refusal:
                self._adapt_to(refusal)
                continue
            self._learn_from(reply)
            return reply

    def _in_its_place(self, reply: Completion) -> str:
        """Return a text in place of an empty answer: what the model did. Raises GiveUp where it did nothing."""
        if not self.made:
            raise empty_completion_failure(replace(reply, calls=()))
        return f"The model gave no answer. What it did: {self.summary}."

    async def _act(self, reply: Completion) -> str | None:
        """Do what the model calls for. Its answer, if that is the end."""
        calls = self.tool_call_format.calls_in(reply)[:_CALLS_AT_ONCE]
        if not calls:
            return self._without_calls(reply)
        self.repairs = 0
        observed = []
        for call in calls:
            answer = _answer_in(call)
            if answer is not None and self._is_enough(answer):
                return answer
            observed.append(await self._make(call) if answer is None else Observation(_ASK_FOR_ANSWER, is_error=True))
        self._remember(Turn(reply.text, calls, observed, _ASK_FOR_LESS if reply.is_cut else ""))
        return None

    def _without_calls(self, reply: Completion) -> str | None:
        if self.tool_call_format is not NATIVE:
            return self._without_format(reply)
        if not self.made:
            self._simplify("the model has called no tool")
            return None
        if self._is_enough(reply.text):
            return reply.text
        self._remember(Turn(reply.text, remark=_ASK_FOR_ANSWER))
        return None

    def _without_format(self, reply: Completion) -> str | None:
        self.repairs += 1
        if self.repairs > _REPAIRS and not reply.text:
            raise empty_completion_failure(reply)
        if self.repairs > _REPAIRS:
            self.context.events.log("[the model does not keep to the format: its text is taken for its answer]")
            return reply.text
        example = json.dumps({"tool": Finish.tool, "arguments": {"answer": "…"}}, ensure_ascii=False)
        self._remember(Turn(reply.text, remark=_ASK_FOR_LESS if reply.is_cut else _ASK_FOR_CALL + example))
        return None

    def _is_enough(self, answer: str) -> bool:
        """Whether to be content with `answer`. An empty one is asked for once more, and then taken."""
        enough = self.was_asked_for_answer or bool(answer.strip())
        self.was_asked_for_answer = True
        return enough

    async def _make(self, call: Call) -> Observation:
        call_id = f"call-{self.made.total() + 1}"
        self.made[call.name[:_NAME_CHARACTERS]] += 1
        report_tool_call(self.context.events, call_id, call.name, call.arguments, _about(call.arguments))
        self.silence.heard(waits_for_model=False)
        observed = await self._observe(call)
        self.silence.heard()
        report_tool_result(self.context.events, call_id, observed.text, is_error=observed.is_error)
        return observed

    async def _observe(self, call: Call) -> Observation:
        signature = f"{call.name} {json.dumps(call.arguments, sort_keys=True)}"
        if self.repetition.is_pointless(signature):
            return Observation(REMINDER, is_error=True)
        try:
            asked: ToolArguments | None = parse_tool_call(call.name, call.arguments)
        except InvalidToolCall as error:
            asked, observed = None, Observation(str(error), is_error=True)
        if asked is not None:
            observed = await self.tools.use(asked)
        self.repetition.note(signature, observed.text, may_change=isinstance(asked, _CHANGING))
        return observed

    def _remember(self, latest: Turn) -> None:
        self.transcript = self.transcript.and_then(latest)

    def _adapt_to(self, refusal: ErrorResponse) -> None:
        """Ask in another way from now on. Raises the refusal where there is none."""
        if refusal.code is FailedCode.CONTEXT_TOO_LONG and self._can_ask_for_less:
            self.tokens_per_character *= 1.5
            self.reply_tokens = max(self.reply_tokens // 2, _SHORTEST_REPLY_TOKENS)  # some servers count it in
        elif self.tool_call_format in FALLBACK_FORMATS and self._blames_the_manner(refusal):
            self._simplify(str(refusal))
        else:
            raise refusal

    def _blames_the_manner(self, refusal: ErrorResponse) -> bool:
        """Whether it is for how calls are asked for. An inner error of a server that has carried out calls is not."""
        if refusal.code is not FailedCode.AGENT_ERROR:
            return False
        return refusal.status in _NOT_UNDERSTOOD or (refusal.status in _INNER_ERRORS and not self.made)

    def _simplify(self, why: str) -> None:
        self.tool_call_format = FALLBACK_FORMATS[self.tool_call_format]
        self.context.events.log(f"[{why}: calls are asked for as {self.tool_call_format.name} from now on]")

    @property
    def _can_ask_for_less(self) -> bool:
        return self.transcript.dropped < len(self.transcript.rounds) - 1 or self.reply_tokens > _SHORTEST_REPLY_TOKENS

    def _shortened(self) -> Transcript:
        limit = int((self.server.window_tokens - self.reply_tokens) / self.tokens_per_character)
        if self._size(self.transcript) <= limit:
            return self.transcript
        return self.transcript.shrunk(self._size, int(limit * _ROOM_LEFT))

    def _size(self, transcript: Transcript) -> int:
        return characters_in(self.tool_call_format.messages(transcript)) + len(str(self.tool_call_format.fields))

    def _learn_from(self, reply: Completion) -> None:
        """Learn how many tokens a character is, for this model and this talk."""
        read = reply.usage.input_tokens + reply.usage.cache_read_tokens
        if read:
            self.tokens_per_character = read / self._size(self.transcript)

    def _fields(self) -> dict[str, Any]:
        limit = self.context.task.config.max_tokens
        used = self.context.events.usage.input_tokens + self.context.events.usage.output_tokens
        left = self.reply_tokens if limit is None else max(limit - used, 1)
        return {**self.tool_call_format.fields, "max_tokens": min(self.reply_tokens, left)}


def _answer_in(call: Call) -> str | None:
    """The answer with which a call ends the work; None where it is no such call, or a wrong one."""
    try:
        asked = parse_tool_call(call.name, call.arguments)
    except InvalidToolCall:
        return None
    return asked.answer if isinstance(asked, Finish) else None


def _about(arguments: Any) -> str:
    """The argument that says best, in a line, what a call is about."""
    if not isinstance(arguments, dict):
        return str(arguments)
    return str(next((arguments[name] for name in ("command", "pattern", "path") if name in arguments), ""))

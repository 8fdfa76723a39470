"""The loop: ask the model, execute its calls, return the results, until it finishes or a limit is reached."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Final

from labrats.executor.context import RunContext
from labrats.executor.providers.chat_client import TOKENS_PER_CHARACTER, ChatClient
from labrats.executor.providers.chat_errors import ErrorResponse, ServerUnreachable
from labrats.executor.providers.chat_stream import Completion
from labrats.executor.providers.cli_events import report_tool_call, report_tool_result
from labrats.executor.providers.completion import empty_completion_failure, request_completion
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
from labrats.executor.providers.react.transcript import ToolCall, Transcript, Turn, characters_in
from labrats.executor.providers.silence_limit import SilenceTimer
from labrats.executor.usage_limits import UsageLimits
from labrats.model.config import ResolvedConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

_MAX_CALLS: Final = 16
_NAME_CHARACTERS: Final = 40
_TEXT_CHARACTERS: Final = 1000
_MAX_FORMAT_ERRORS: Final = 2
_LONGEST_ANSWER_TOKENS: Final = 8192
_SHORTEST_ANSWER_TOKENS: Final = 512
_FILL_AFTER_SHRINKING: Final = 0.75
"""Share of the window that a shrunk conversation fills. Shrinking a little on every turn would change the start of the
conversation each time, so that the server could not use its cache.
"""

_INVALID_REQUEST: Final = frozenset({400, 422})
_SERVER_ERRORS: Final = frozenset({500, 501})
_CHANGING_TOOLS: Final = (WriteFile, EditFile, RunCommand)

_ASK_FOR_ANSWER: Final = "Your answer is empty. Say in a few sentences what you found or did."
_ASK_TO_FINISH: Final = "Call `finish` with your answer, or act."
_ASK_FOR_CALL: Final = "That is not a tool call. Answer with one JSON object, such as: "
_ASK_FOR_LESS: Final = "Your answer was cut off, because it was too long. Write less at once."


async def run_loop(context: RunContext, client: ChatClient, silence_timer: SilenceTimer) -> str:
    """Let the model work on the prompt with tools. Return its final answer.

    Raises GiveUp, ErrorResponse or ServerUnreachable; a summary of the work so far is then in the log.
    """
    window = client.window_tokens
    agent = ReactAgent(
        context,
        client,
        silence_timer,
        Tools.of(context, window),
        Transcript(context.instructions, context.prompt),
        min(window // 4, _LONGEST_ANSWER_TOKENS),
    )
    try:
        return await agent.work()
    except (GiveUp, ErrorResponse, ServerUnreachable, asyncio.CancelledError):
        context.events.log(f"[ended before completion; so far: {agent.summary}]")
        raise


@dataclass
class ReactAgent:
    """A model that works with tools.

    answer_tokens:        the limit on the length of an answer, lowered if the server rejects a request as too long.
    tokens_per_character: estimated from the usage of the last completion.
    call_counts:          the number of executed calls by tool.
    format_errors:        the number of consecutive answers without a call.
    has_changed_a_file:   True once a call has written or edited one.
    last_command_failed:  False as long as there is none.
    """

    context: RunContext
    client: ChatClient
    silence_timer: SilenceTimer
    tools: Tools
    transcript: Transcript
    answer_tokens: int
    tool_call_format: ToolCallFormat = NATIVE
    repetition: RepetitionDetector = field(default_factory=RepetitionDetector)
    tokens_per_character: float = TOKENS_PER_CHARACTER
    call_counts: "Counter[str]" = field(default_factory=Counter)
    format_errors: int = 0
    was_asked_for_answer: bool = False
    was_asked_to_finish: bool = False
    has_changed_a_file: bool = False
    last_command_failed: bool = False

    async def work(self) -> str:
        """Ask, execute calls, and repeat, until the model answers or a limit is reached."""
        turns = ResolvedConfig(config=self.context.task.config).max_turns
        for turn in range(1, turns + 1):
            completion = await self._ask()
            self.was_asked_to_finish = self.was_asked_to_finish or turn == turns  # no turn is left for the question
            if (answer := await self._handle(completion)) is not None:
                return answer if answer.strip() else self._substitute_answer(completion)
            if self.repetition.is_stuck:
                raise GiveUp(FailedCode.AGENT_ERROR, f"the model keeps repeating the same calls; {self.summary}")
        reason = f"the run used all {turns} turns without finishing (raise config.maxTurns); {self.summary}"
        raise GiveUp(FailedCode.MAX_TURNS, reason)

    @property
    def summary(self) -> str:
        """The number of turns and calls so far, in one line."""
        field = self.context.events.field
        calls = ", ".join(f"{field(name)} {count} times" for name, count in sorted(self.call_counts.items()))
        return f"{self.context.events.totals.usage.turns} turns, {calls or 'no calls'}"

    async def _ask(self) -> Completion:
        while True:
            self.transcript = self._fit_to_window()
            try:
                completion = await request_completion(
                    self.context,
                    self.client,
                    self.silence_timer,
                    self.tool_call_format.messages(self.transcript),
                    self._fields(),
                    shows_text=self.tool_call_format.streams_text,
                )
            except ErrorResponse as error:
                self._adapt_to(error)
                continue
            self._update_tokens_per_character(completion)
            return completion

    def _substitute_answer(self, completion: Completion) -> str:
        """Return a summary in place of an empty answer. Raises GiveUp if the model has called no tool."""
        if not self.call_counts:
            raise empty_completion_failure(replace(completion, calls=()))
        return f"The model gave no answer. Its work: {self.summary}."

    async def _handle(self, completion: Completion) -> str | None:
        """Execute the calls in a completion. Return the final answer if it contains one."""
        calls = self.tool_call_format.calls_in(completion)[:_MAX_CALLS]
        if not calls:
            return self._handle_text(completion)
        self.format_errors = 0
        observations = []
        for call in calls:
            answer = _answer_in(call)
            if answer is not None and self._accepts(answer):
                return answer
            empty_answer = Observation(_ASK_FOR_ANSWER, is_error=True)
            observations.append(await self._execute(call) if answer is None else empty_answer)
        remark = _ASK_FOR_LESS if completion.is_truncated else ""
        self._append(Turn(completion.text, calls, observations, remark))
        return None

    def _handle_text(self, completion: Completion) -> str | None:
        if self.tool_call_format is not NATIVE:
            return self._handle_format_error(completion)
        if not self.call_counts:
            self._use_fallback_format("the model has called no tool")
            return None
        text = completion.text
        if not text.strip():
            if self._accepts(text):
                return text
            self._append(Turn(text, remark=_ASK_FOR_ANSWER))
        elif self.was_asked_to_finish:
            self._check_finished(text)
            return text
        else:
            self.was_asked_to_finish = True
            self._append(Turn(text, remark=_ASK_TO_FINISH))
        return None

    def _check_finished(self, text: str) -> None:
        """Raise GiveUp if the model has announced work in place of doing it, as far as its calls show that."""
        if self.last_command_failed and not self.has_changed_a_file:
            problem = "its last command failed and it changed no file"
            reason = f"the model ended without `finish`, although {problem}: {text[:_TEXT_CHARACTERS]}"
            raise GiveUp(FailedCode.AGENT_ERROR, reason)

    def _handle_format_error(self, completion: Completion) -> str | None:
        self.format_errors += 1
        if self.format_errors > _MAX_FORMAT_ERRORS and not completion.text:
            raise empty_completion_failure(completion)
        if self.format_errors > _MAX_FORMAT_ERRORS:
            self.context.events.log("[the model does not use the format; its text is used as the answer]")
            return completion.text
        example = json.dumps({"tool": Finish.tool, "arguments": {"answer": "…"}}, ensure_ascii=False)
        remark = _ASK_FOR_LESS if completion.is_truncated else _ASK_FOR_CALL + example
        self._append(Turn(completion.text, remark=remark))
        return None

    def _accepts(self, answer: str) -> bool:
        """Return whether to accept a final answer. An empty answer is accepted the second time."""
        accepted = self.was_asked_for_answer or bool(answer.strip())
        self.was_asked_for_answer = True
        return accepted

    async def _execute(self, call: ToolCall) -> Observation:
        """Execute a call, and report the call and its result."""
        call_id = f"call-{self.call_counts.total() + 1}"
        self.call_counts[call.name[:_NAME_CHARACTERS]] += 1
        report_tool_call(self.context.events, call_id, call.name, call.arguments, _describe(call.arguments))
        self.silence_timer.reset(waits_for_model=False)
        observation = await self._observe(call)
        self.silence_timer.reset()
        report_tool_result(self.context.events, call_id, observation.text, is_error=observation.is_error)
        return observation

    async def _observe(self, call: ToolCall) -> Observation:
        signature = f"{call.name} {json.dumps(call.arguments, sort_keys=True)}"
        if self.repetition.refuses(signature):
            return Observation(REMINDER, is_error=True)
        try:
            arguments: ToolArguments | None = parse_tool_call(call.name, call.arguments)
        except InvalidToolCall as error:
            arguments, observation = None, Observation(str(error), is_error=True)
        if arguments is not None:
            observation = await self.tools.use(arguments)
            self._note(arguments, observation)
        self.repetition.add(signature, observation.text, may_change=isinstance(arguments, _CHANGING_TOOLS))
        return observation

    def _note(self, call: ToolArguments, observation: Observation) -> None:
        """Take note of what decides whether a text without `finish` is the answer."""
        if isinstance(call, RunCommand):
            self.last_command_failed = observation.is_error
        elif isinstance(call, _CHANGING_TOOLS) and not observation.is_error:
            self.has_changed_a_file = True

    def _append(self, turn: Turn) -> None:
        self.transcript = self.transcript.with_turn(turn)

    def _adapt_to(self, error: ErrorResponse) -> None:
        """Change the next request so that the server may accept it. Raises the error if nothing is left to change."""
        if error.code is FailedCode.CONTEXT_TOO_LONG and self._can_shrink and not error.is_too_large:
            self.tokens_per_character *= 1.5
            # Some servers add the limit on the answer to the length of the prompt.
            self.answer_tokens = max(self.answer_tokens // 2, _SHORTEST_ANSWER_TOKENS)
        elif self.tool_call_format in FALLBACK_FORMATS and self._rejects_format(error):
            self._use_fallback_format(str(error))
        else:
            raise error

    def _rejects_format(self, error: ErrorResponse) -> bool:
        """Return whether the error may be due to the format of calls. A server error after an executed call is not."""
        if error.code is not FailedCode.AGENT_ERROR:
            return False
        return error.status in _INVALID_REQUEST or (error.status in _SERVER_ERRORS and not self.call_counts)

    def _use_fallback_format(self, reason: str) -> None:
        self.tool_call_format = FALLBACK_FORMATS[self.tool_call_format]
        self.context.events.log(f"[{reason}: requesting calls as {self.tool_call_format.name} from now on]")

    @property
    def _can_shrink(self) -> bool:
        return self.transcript.dropped < len(self.transcript.turns) - 1 or self.answer_tokens > _SHORTEST_ANSWER_TOKENS

    def _fit_to_window(self) -> Transcript:
        limit = int((self.client.window_tokens - self.answer_tokens) / self.tokens_per_character)
        if self._size(self.transcript) <= limit:
            return self.transcript
        return self.transcript.shrunk(self._size, int(limit * _FILL_AFTER_SHRINKING))

    def _size(self, transcript: Transcript) -> int:
        return characters_in(self.tool_call_format.messages(transcript)) + len(str(self.tool_call_format.fields))

    def _update_tokens_per_character(self, completion: Completion) -> None:
        """Compute the number of tokens per character for this model and conversation."""
        read = completion.usage.input_tokens + completion.usage.cache_read_tokens
        if read:
            self.tokens_per_character = read / self._size(self.transcript)

    def _fields(self) -> dict[str, Any]:
        limit = UsageLimits.of(self.context.task).tokens_left
        used = self.context.events.totals.usage.input_tokens + self.context.events.totals.usage.output_tokens
        left = self.answer_tokens if limit is None else max(limit - used, 1)
        return {**self.tool_call_format.fields, "max_tokens": min(self.answer_tokens, left)}


def _answer_in(call: ToolCall) -> str | None:
    """Return the final answer in a valid call of `finish`; None for any other call."""
    try:
        arguments = parse_tool_call(call.name, call.arguments)
    except InvalidToolCall:
        return None
    return arguments.answer if isinstance(arguments, Finish) else None


def _describe(arguments: Any) -> str:
    """Return the argument that describes a call best, for the log."""
    if not isinstance(arguments, dict):
        return str(arguments)
    return str(next((arguments[name] for name in ("command", "pattern", "path") if name in arguments), ""))

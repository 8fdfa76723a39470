"""Run a provider whose result must match the job's JSON Schema, and check the result. The agent is not trusted to.

A result that does not match is repaired once: the agent gets the problems, in its session if it has one, and answers
again.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from labrats.executor.context import RunContext, SchemaRefused, SessionLost, StructuredAnswer
from labrats.executor.limited_subprocess import output_of_limited
from labrats.executor.providers.registry import TAKES_SCHEMA
from labrats.executor.schema_checker import Findings, Question
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.nesting import is_too_deep
from labrats.model.protocol import Resumption
from labrats.model.record import encode
from labrats.model.result_schema import DATA_BYTES, DATA_DEPTH

_CHECKER: Final = "labrats.executor.schema_checker"
_FENCE: Final = re.compile(r"```[\w-]*[ \t]*")
_CLOSING_FENCE: Final = re.compile(r"```[ \t]*")
_ANSWER_BYTES: Final = 64 * 1024
"""Largest part of an invalid answer that a provider without sessions gets back."""

_SCHEMA_NOTE: Final = (
    "When your work is done, answer with one JSON value and nothing else. It must be valid under this JSON Schema:"
)
_REPAIR_PROMPT: Final = """\
Your result does not match the JSON Schema that was given for it:

{problem}

Do not repeat your work. Answer with the corrected JSON value alone.
"""
"""Prompt for an agent that resumes its session to correct its result."""


@dataclass(frozen=True)
class CheckedResult:
    """The result of a provider. data: the value in it that matches the job's schema; None without a schema."""

    result: Any
    data: Any = None


class _Mismatch(Exception):
    """The result does not match the schema. The message says why, without parts of the result."""


async def checked_result(context: RunContext, provider: Callable[[RunContext], Awaitable[Any]]) -> CheckedResult:
    """Run the provider and check its result.

    Raises GiveUp with the code `result_invalid` if the repaired result does not match either.
    """
    if (schema := context.task.result_schema) is None:
        return CheckedResult(await provider(context))
    takes_schema = TAKES_SCHEMA.get(context.task.config.provider or "")
    if takes_schema and takes_schema(schema):
        asking = replace(context, program_schema=schema)
    else:
        asking = _with_schema_in_prompt(context, schema)
    try:
        answer = await provider(asking)
    except SchemaRefused:
        asking = _with_schema_in_prompt(context, schema)
        answer = await provider(asking)
    try:
        return await _check(context, schema, answer)
    except _Mismatch as mismatch:
        context.events.log(f"[the result does not match the job's resultSchema: {mismatch}]")
        problem = str(mismatch)
    context.events.log("[asking the agent to correct its result]")
    context.events.totals.begin_provider()
    try:
        return await _check(context, schema, await provider(_repairing(asking, _text_of(answer), problem)))
    except SessionLost as lost:
        raise _failure(problem) from lost
    except _Mismatch as mismatch:
        raise _failure(str(mismatch)) from mismatch


def _with_schema_in_prompt(context: RunContext, schema: dict[str, Any]) -> RunContext:
    return replace(context, prompt=f"{context.prompt}\n\n{_SCHEMA_NOTE}\n\n{encode(schema).decode()}")


def _failure(problem: str) -> GiveUp:
    return GiveUp(FailedCode.RESULT_INVALID, f"the result does not match the job's resultSchema: {problem}")


def _repairing(context: RunContext, answer: str, problem: str) -> RunContext:
    """Return the context in which the agent corrects its answer: its session, or the conversation as one prompt."""
    prompt = _REPAIR_PROMPT.format(problem=problem)
    if session := context.events.session:
        place = Resumption(session=session, workspace=str(context.workspace), folder=str(context.folder))
        return replace(context, prompt=prompt, resumption=place, is_repair=True)
    mark = f"answer-{secrets.token_hex(8)}"
    shown = answer.encode()[:_ANSWER_BYTES].decode(errors="ignore")
    earlier = f"You have answered between <{mark}> and </{mark}>:\n\n<{mark}>\n{shown}\n</{mark}>"
    return replace(context, prompt=f"{context.prompt}\n\n{earlier}\n\n{prompt}", is_repair=True)


async def _check(context: RunContext, schema: dict[str, Any], answer: Any) -> CheckedResult:
    """Return the answer with its value. Raises _Mismatch."""
    value = _value_in(answer)
    content = msgspec.json.encode(value)
    if is_too_deep(content, DATA_DEPTH):
        raise _Mismatch(f"it is nested more than {DATA_DEPTH} levels deep")
    # Redaction may lengthen the value, and the redacted one is stored.
    size = max(len(content), len(msgspec.json.encode(context.events.redact_value(value))))
    if size > DATA_BYTES:
        raise _Mismatch(f"it has {size} bytes as JSON, and may have at most {DATA_BYTES}")
    question = encode(Question(schema=schema, value=value))
    output = await output_of_limited(_CHECKER, context, question)
    if output is None:
        raise GiveUp(FailedCode.RESULT_INVALID, "checking the result takes more time or memory than allowed")
    if problems := msgspec.json.decode(output, type=Findings).problems:
        raise _Mismatch("; ".join(problems))
    return CheckedResult(_text_of(answer) if isinstance(answer, StructuredAnswer) else answer, value)


def _text_of(answer: Any) -> str:
    if isinstance(answer, StructuredAnswer):
        return answer.text or _text_of(answer.value)
    return answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()


def _value_in(answer: Any) -> Any:
    """Return the value of an answer: that of the agent's program, the whole text, or the only code block in it."""
    if isinstance(answer, StructuredAnswer):
        return answer.value
    if not isinstance(answer, str):
        return answer
    blocks = list(_code_blocks(answer))
    for text in (answer, *blocks) if len(blocks) == 1 else (answer,):
        content = text.strip().encode("utf-8", "replace")
        if is_too_deep(content, DATA_DEPTH):
            raise _Mismatch(f"it is nested more than {DATA_DEPTH} levels deep")
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError:
            continue
    raise _Mismatch("it is not JSON: the answer must be the JSON value alone, or have it in its only code block")


def _code_blocks(answer: str) -> Iterator[str]:
    """Yield the content of each code block that is closed."""
    block: list[str] | None = None
    for line in answer.split("\n"):
        if block is None:
            block = [] if _FENCE.fullmatch(line) else None
        elif _CLOSING_FENCE.fullmatch(line):
            yield "\n".join(block)
            block = None
        else:
            block.append(line)

"""The script that the mock provider plays: `metadata.mock.steps` of a job, checked when it is submitted."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from labrats.model.errors import Invalid, Problem
from labrats.model.job import Usage

_MOST: Final = 10**12  # sums of such numbers still fit into 64 bits
_Count = Annotated[int, Meta(ge=0, le=_MOST)]
_Positive = Annotated[int, Meta(ge=1, le=_MOST)]


_S = TypeVar("_S")


class _Closed(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Refuses fields it does not know, so that a typo is not silently lost."""


class Log(_Closed, frozen=True):
    """Logs `log`, in which `{n}` counts from 1, `times` times with `every_ms` between."""

    log: str
    times: _Positive = 1
    every_ms: _Count = 0


class Sleep(_Closed, frozen=True):
    """Waits."""

    sleep_ms: _Count


class TextFile(_Closed, frozen=True):
    """A file by its path below the workspace."""

    path: Annotated[str, Meta(min_length=1)]
    text: str


class Write(_Closed, frozen=True):
    """Writes a file."""

    write: TextFile


class Amount(_Closed, frozen=True):
    """What a step consumes."""

    input_tokens: _Count = 0
    output_tokens: _Count = 0
    cache_read_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    cost_usd: Annotated[float, Meta(ge=0, le=_MOST)] = 0.0
    turns: _Count = 0

    def as_usage(self) -> Usage:
        return Usage(**msgspec.structs.asdict(self))


class Consume(_Closed, frozen=True):
    """Adds to the usage."""

    usage: Amount


class SetResult(_Closed, frozen=True):
    """Sets the result; the last one counts."""

    result: Any


class Fail(_Closed, frozen=True):
    """Ends Failed, for this reason."""

    fail: str


class Exit(_Closed, frozen=True):
    """The executor exits so, without an outcome."""

    exit: Annotated[int, Meta(ge=0, le=255)]


class Die(_Closed, frozen=True):
    """The executor dies of this signal, without an outcome."""

    signal: Annotated[int, Meta(ge=1, le=64)]


class Hang(_Closed, frozen=True):
    """Waits for ever."""

    hang: bool


class IgnoreSignals(_Closed, frozen=True):
    """From here on SIGTERM and SIGINT do nothing."""

    ignore_signals: bool


class Child(_Closed, frozen=True):
    """A process that sleeps; `detached` from its parent and its session."""

    seconds: _Positive
    detached: bool = False


class Fork(_Closed, frozen=True):
    """Leaves a child process behind."""

    fork: Child


Action = Log | Sleep | Write | Consume | SetResult | Fail | Exit | Die | Hang | IgnoreSignals | Fork


class OnAttempt(msgspec.Struct, frozen=True):
    """Actions for the attempt of this number alone."""

    number: int
    steps: tuple[Action, ...]


Step = Action | OnAttempt


class _OnAttemptShape(_Closed, frozen=True):
    on_attempt: _Positive
    steps: list[Any]


_STEPS_PATH: Final = "metadata.mock.steps"

_ACTIONS: Final[Mapping[str, type[Action]]] = {
    "log": Log,
    "sleepMs": Sleep,
    "write": Write,
    "usage": Consume,
    "result": SetResult,
    "fail": Fail,
    "exit": Exit,
    "signal": Die,
    "hang": Hang,
    "ignoreSignals": IgnoreSignals,
    "fork": Fork,
}


def parse_script(metadata: Mapping[str, Any]) -> list[Step] | None:
    """The steps in a job's `metadata`, or None where it has no script. Raises Invalid, as parse_steps does."""
    if "mock" not in metadata:
        return None
    mock = metadata["mock"]
    if not isinstance(mock, dict) or mock.keys() != {"steps"}:
        raise Invalid(Problem("metadata.mock", "must be an object with one field, `steps`"))
    return parse_steps(mock["steps"])


def parse_steps(value: Any) -> list[Step]:
    """The steps of `metadata.mock.steps`. Raises Invalid with a problem for each step that is wrong, by its path."""
    problems: list[Problem] = []
    steps = list(_read_steps(value, _STEPS_PATH, problems))
    if problems:
        raise Invalid(*problems)
    return steps


def _read_steps(value: Any, path: str, problems: list[Problem]) -> Iterator[Step]:
    for item, item_path in _items(value, path, problems):
        if isinstance(item, dict) and "onAttempt" in item:
            shape = _convert(item, _OnAttemptShape, item_path, problems)
            if shape:
                actions = tuple(_read_actions(shape.steps, f"{item_path}.steps", problems))
                yield OnAttempt(shape.on_attempt, actions)
        elif action := _read_action(item, item_path, problems):
            yield action


def _read_actions(value: Any, path: str, problems: list[Problem]) -> Iterator[Action]:
    for item, item_path in _items(value, path, problems):
        if action := _read_action(item, item_path, problems):
            yield action


def _items(value: Any, path: str, problems: list[Problem]) -> list[tuple[Any, str]]:
    if isinstance(value, list):
        return [(item, f"{path}[{index}]") for index, item in enumerate(value)]
    problems.append(Problem(path, "must be an array of steps"))
    return []


def _read_action(item: Any, path: str, problems: list[Problem]) -> Action | None:
    kinds = [kind for kind in _ACTIONS if kind in item] if isinstance(item, dict) else []
    if len(kinds) != 1:
        problems.append(Problem(path, f"must be an object with exactly one of {', '.join(_ACTIONS)}"))
        return None
    action = _convert(item, _ACTIONS[kinds[0]], path, problems)
    if isinstance(action, Hang | IgnoreSignals) and not item[kinds[0]]:
        problems.append(Problem(f"{path}.{kinds[0]}", "must be true; leave the step out otherwise"))
    return action


def _convert(item: Any, shape: type[_S], path: str, problems: list[Problem]) -> _S | None:
    try:
        return msgspec.convert(item, shape)
    except msgspec.ValidationError as error:
        problems.append(_problem_of(error, path))
        return None


_FIELD_SAID: Final = re.compile(r"Object (?P<said>contains unknown|missing required) field `(?P<name>.*)`")
_BOUND_SAID: Final = re.compile(r"Expected `(?:int|float)` (?P<sign>[<>])= (?P<bound>.+)")
_TYPES_SAID: Final = {
    "int": "must be a whole number",
    "float": "must be a number",
    "str": "must be a string",
    "bool": "must be true or false",
    "object": "must be an object",
    "array": "must be an array",
}


def _problem_of(error: msgspec.ValidationError, path: str) -> Problem:
    """msgspec says "What is wrong - at `$.field`", in the words of Python."""
    said, _, place = str(error).partition(" - at `$")
    field = path + place.rstrip("`")
    if found := _FIELD_SAID.fullmatch(said):
        unknown = found["said"] == "contains unknown"
        return Problem(f"{field}.{found['name']}", "there is no such field" if unknown else "is required")
    if found := _BOUND_SAID.fullmatch(said):
        return Problem(field, f"must be at {'least' if found['sign'] == '>' else 'most'} {float(found['bound']):.15g}")
    if said == "Expected `str` of length >= 1":
        return Problem(field, "must not be empty")
    if (found := re.match(r"Expected `(\w+)`, got ", said)) and found[1] in _TYPES_SAID:
        return Problem(field, _TYPES_SAID[found[1]])
    return Problem(field, said[0].lower() + said[1:])

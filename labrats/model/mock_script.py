"""The script of the mock provider: `metadata.mock.steps` of a job, validated on submission."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from labrats.model.errors import Invalid, Problem
from labrats.model.job import Usage
from labrats.model.json_problems import problem_of

_MAX: Final = 10**12  # sums of such numbers still fit into 64 bits
_Count = Annotated[int, Meta(ge=0, le=_MAX)]
_Positive = Annotated[int, Meta(ge=1, le=_MAX)]


_S = TypeVar("_S")


class _Closed(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A record that refuses unknown fields, so that a typo is noticed."""


class Log(_Closed, frozen=True):
    """A step that logs `log` `times` times, `every_ms` apart.

    `{n}` in it counts from 1. `{prompt}` stands for the prompt, and `{env:NAME}` for a variable of the agent's
    environment.
    """

    log: str
    times: _Positive = 1
    every_ms: _Count = 0


class Sleep(_Closed, frozen=True):
    """A step that sleeps."""

    sleep_ms: _Count


class TextFile(_Closed, frozen=True):
    """A file, by its path in the workspace."""

    path: Annotated[str, Meta(min_length=1)]
    text: str


class Write(_Closed, frozen=True):
    """A step that writes a file."""

    write: TextFile


class Amount(_Closed, frozen=True):
    """The usage of a step. cost_usd: None if the cost is unknown."""

    input_tokens: _Count = 0
    output_tokens: _Count = 0
    cache_read_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    cost_usd: Annotated[float, Meta(ge=0, le=_MAX)] | None = 0.0
    turns: _Count = 0

    def as_usage(self) -> Usage:
        return Usage(**msgspec.structs.asdict(self))


class Consume(_Closed, frozen=True):
    """A step that adds to the usage."""

    usage: Amount


class SetResult(_Closed, frozen=True):
    """A step that sets the result. The last one counts."""

    result: Any


class Fail(_Closed, frozen=True):
    """A step that fails the job with this reason."""

    fail: str


class Exit(_Closed, frozen=True):
    """A step that exits the executor with this status, without an outcome."""

    exit: Annotated[int, Meta(ge=0, le=255)]


class Die(_Closed, frozen=True):
    """A step that kills the executor with this signal, without an outcome."""

    signal: Annotated[int, Meta(ge=1, le=64)]


class Hang(_Closed, frozen=True):
    """A step that waits forever."""

    hang: bool


class IgnoreSignals(_Closed, frozen=True):
    """A step that makes the executor ignore SIGTERM and SIGINT."""

    ignore_signals: bool


class Child(_Closed, frozen=True):
    """A sleeping process; `detached` from its parent and session."""

    seconds: _Positive
    detached: bool = False


class Remember(_Closed, frozen=True):
    """A step that adds the prompt to the mock's session, and logs all prompts in it."""

    remember: bool


class Read(_Closed, frozen=True):
    """A step that logs the text of a file in the workspace."""

    read: Annotated[str, Meta(min_length=1)]


class Fork(_Closed, frozen=True):
    """A step that leaves a child process behind."""

    fork: Child


Action = Log | Sleep | Write | Consume | SetResult | Fail | Exit | Die | Hang | IgnoreSignals | Fork | Remember | Read


class OnAttempt(msgspec.Struct, frozen=True):
    """Actions for one attempt only."""

    number: int
    steps: tuple[Action, ...]


class OnRepair(msgspec.Struct, frozen=True):
    """Actions for the run that corrects a result which does not match the job's schema."""

    steps: tuple[Action, ...]


Step = Action | OnAttempt | OnRepair


class _OnAttemptShape(_Closed, frozen=True):
    on_attempt: _Positive
    steps: list[Any]


class _OnRepairShape(_Closed, frozen=True):
    on_repair: list[Any]


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
    "remember": Remember,
    "read": Read,
}


def parse_script(metadata: Mapping[str, Any]) -> list[Step] | None:
    """Return the steps in a job's `metadata`; None if it has no script. Raises Invalid as parse_steps does."""
    if "mock" not in metadata:
        return None
    mock = metadata["mock"]
    if not isinstance(mock, dict) or mock.keys() != {"steps"}:
        raise Invalid(Problem("metadata.mock", "must be an object with one field, `steps`"))
    return parse_steps(mock["steps"])


def parse_steps(value: Any) -> list[Step]:
    """Parse `metadata.mock.steps`. Raises Invalid with a problem for each invalid step."""
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
        elif isinstance(item, dict) and "onRepair" in item:
            if repair := _convert(item, _OnRepairShape, item_path, problems):
                yield OnRepair(tuple(_read_actions(repair.on_repair, f"{item_path}.onRepair", problems)))
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
    if isinstance(action, Hang | IgnoreSignals | Remember) and not item[kinds[0]]:
        problems.append(Problem(f"{path}.{kinds[0]}", "must be true; leave the step out otherwise"))
    return action


def _convert(item: Any, shape: type[_S], path: str, problems: list[Problem]) -> _S | None:
    try:
        return msgspec.convert(item, shape)
    except msgspec.ValidationError as error:
        problems.append(problem_of(error, path))
        return None

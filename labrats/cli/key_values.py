"""Options that are given several times as KEY=VALUE."""

import json
import math
from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Parameter

from labrats.cli.errors import CommandError, ExitCode

RepeatedOption = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=(), show_default=False)]


def parse_pairs(option: str, texts: Iterable[str]) -> dict[str, Any]:
    """Parse each KEY=VALUE text. A value that is valid JSON becomes that JSON; any other stays text.

    option: the option that the texts belong to, for the CommandError of an invalid one.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise CommandError(f"{option} {text}: write KEY=VALUE", ExitCode.USAGE)
        try:
            pairs[key] = _json_or_text(value)
        except RecursionError as error:
            raise CommandError(f"{option} {key}: the JSON is nested too deeply", ExitCode.USAGE) from error
    return pairs


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError:
        return text


def _finite(text: str) -> float:
    """Return the number. Raises ValueError for one that is too large, such as a commit 12345e678."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON, although Python's parser accepts it")

"""Environment variables of agents and their tools, with values of their own or from Secrets."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from labrats.model.record import Record

VARIABLE_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
LONGEST_VARIABLE: Final = 200
MAX_VARIABLES: Final = 100
VARIABLES_BYTES: Final = 16 * 1024
"""The limit on all variables of a job together, as JSON. They are part of its settings, which stay small."""

_SET_BY_ENGINE: Final = frozenset({"HOME", "TMPDIR"})
_RESERVED_PREFIXES: Final = ("LABRATS_", "ANTHROPIC_", "CLAUDE_", "OPENAI_", "CODEX_")


class SecretKey(Record):
    """A value of a Secret. secret: its name. key: the key in its data."""

    secret: str
    key: str


Variables = Mapping[str, str | SecretKey]


def problem_of_variables(variables: Variables) -> str | None:
    """Return the first problem of the variables; None if all are valid."""
    if len(variables) > MAX_VARIABLES:
        return f"must have at most {MAX_VARIABLES} variables"
    for name, value in variables.items():
        if not re.fullmatch(VARIABLE_NAME, name) or len(name) > LONGEST_VARIABLE:
            return f"the name {name[:100]!r} must be letters, digits and underscores, and not begin with a digit"
        if name in _SET_BY_ENGINE or name.startswith(_RESERVED_PREFIXES):
            return f"{name} is set by the engine"
        if isinstance(value, str) and "\0" in value:
            return f"{name} must not contain the character NUL"
    if len(msgspec.json.encode(variables)) > VARIABLES_BYTES:
        return f"must be at most {VARIABLES_BYTES // 1024} KiB in total"
    return None


def variable_file(name: str, key: str) -> str:
    """Return the name, among the secrets of an attempt, of the value of a variable."""
    return f"env.{name}.{key}"  # no variable has a dot in its name

"""Concurrency keys of new jobs: the placeholders of a template are replaced once, and the result is plain text."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from msgspec.structs import replace

from labrats.intake.prompts import ABSENT, VALUE_BYTES, value_at, values_of
from labrats.intake.request import JobRequest
from labrats.model.agent import AiAgent
from labrats.model.concurrency import KEY_LENGTH, Concurrency
from labrats.model.errors import Invalid, Problem
from labrats.model.outside_text import text_within

FIELD: Final = "concurrency.key"

_PLACEHOLDER: Final = re.compile(
    r"\{\{[ \t]*(agent|repo|number|source|event|(?:payload|metadata)(?:\.[\w$@-]+)+)[ \t]*\}\}"
)
_SHORT_NAMES: Final = {"repo": "metadata.repo", "number": "metadata.number"}
_HASH_DIGITS: Final = 32


def concurrency_of(request: JobRequest, agent: AiAgent | None) -> Concurrency | None:
    """Return the concurrency of the requested job, with the placeholders of its key replaced.

    In the job of an event, a placeholder with no value becomes `(none)`, and a key that is too long ends in a hash.
    Raises Invalid where either happens in a submission. A rerun or follow-up has the key of the first job.
    """
    if request.concurrency is None or request.first:
        return request.concurrency
    values = values_of(request) | {"agent": agent.spec.trigger_name if agent else None}
    missing: list[str] = []
    key = _PLACEHOLDER.sub(lambda found: _text_of(found[1], values, missing), request.concurrency.key)
    if request.event is None:
        _check_submitted(key, missing)
    key = key if len(key) <= KEY_LENGTH else _shortened(key)
    printable = "".join(character if character.isprintable() else "\ufffd" for character in key)
    return replace(request.concurrency, key=printable)


def _text_of(name: str, values: Mapping[str, Any], missing: list[str]) -> str:
    """Return the text for a placeholder. Add its name to `missing` if it has no value."""
    value = value_at(values, _SHORT_NAMES.get(name, name).split("."))
    if value is None:
        missing.append(name)
        return ABSENT
    return text_within(value, VALUE_BYTES)


def _check_submitted(key: str, missing: list[str]) -> None:
    if missing:
        name = _SHORT_NAMES.get(missing[0], missing[0])
        hint = "name an agent in agentRole" if name == "agent" else f"set {name}"
        if name == "event" or name.startswith("payload."):
            hint = "only jobs of events have one"
        raise Invalid(Problem(FIELD, f"has the placeholder {{{{ {missing[0]} }}}}, which has no value: {hint}"))
    if len(key) > KEY_LENGTH:
        raise Invalid(Problem(FIELD, f"must be at most {KEY_LENGTH} characters with the values of its placeholders"))


def _shortened(key: str) -> str:
    return f"{key[: KEY_LENGTH - _HASH_DIGITS - 1]}…{sha256(key.encode()).hexdigest()[:_HASH_DIGITS]}"

"""Find the models that a request names besides its own: those that the model's server would ask for advice or help."""

import re
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, Final, TypeGuard

import msgspec

from labrats.executor.key_proxy.reach import TooManyValues, is_run_by_the_agent

Fields = MutableMapping[str, msgspec.Raw]

_NAMES: Final = ("model", "models")
_MAY_NAME_A_MODEL: Final = re.compile(rb"model|\\u00", re.IGNORECASE)
"""A name, or an escape that may hide one. What has neither is not decoded."""

_MOST_BYTES: Final = 1024 * 1024
_NULL: Final = msgspec.Raw(b"null")

_CONTENT: Final = frozenset(
    {"model", "messages", "input", "prompt", "system", "instructions", "tools"}
    | {"text", "response_format", "output_config", "output_format", "metadata", "client_metadata"}
)
"""Fields whose parts may have any names: texts, calls of tools, schemas, and the data of the program."""


def further_models(fields: Fields, tools: Sequence[Fields]) -> Iterator[str]:
    """Yield what a request names as models besides the field `model`.

    Each object that may name a model is replaced by one with each of its fields once: parsers differ in which of two
    equal fields they use. Raises TooManyValues if one is too large to be examined, and DecodeError or
    UnicodeDecodeError if it is not JSON.

    fields: of the request. tools: those of its field `tools`.
    """
    for name in fields.keys() - _CONTENT:
        yield from _models_of(fields, name)
    for tool in tools:
        # The agent's program runs the other ones, whose schemas may have any names.
        is_of_server = not is_run_by_the_agent(msgspec.json.decode(tool.get("type", _NULL)))
        for name in tool:
            if is_of_server or _is_of_models(name):
                yield from _models_of(tool, name)


def _models_of(fields: Fields, name: str) -> Iterator[str]:
    """Yield the models in a field, or in a part of it."""
    content = bytes(fields[name])
    if not _is_of_models(name) and _MAY_NAME_A_MODEL.search(content) is None:
        return
    if len(content) > _MOST_BYTES:
        raise TooManyValues
    value = msgspec.json.decode(content)
    fields[name] = msgspec.Raw(msgspec.json.encode(value))
    pending: list[Any] = [{name: value}]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            for key, inner in part.items():
                if _is_of_models(key):
                    yield from filter(_is_text, inner if isinstance(inner, list) else [inner])
            pending += part.values()  # what is no name may be the schema of a field with this name


def _is_of_models(name: str) -> bool:
    return name.casefold().strip() in _NAMES


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str)

"""Find what lets the model's server reach other hosts for an agent: its own tools, and the addresses of files.

An agent with a network rule could otherwise send data to any host, in the address of a picture.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

MOST_VALUES: Final = 200_000
"""Limit on the values in a request, each of which takes up to some 200 bytes of memory when it is read."""

_RUN_BY_THE_AGENT: Final = re.compile(
    "function|custom|namespace|local_shell|apply_patch|computer.*|tool_search.*|(bash|text_editor|memory)_.*"
)
"""Types of the tools that run in the agent's own program. The model's server runs all others."""

_ADDRESS_FIELDS: Final = ("url", "image_url", "file_url", "document_url", "video_url", "audio_url")
_CONTENT_FIELDS: Final = ("file_data", "data")
"""Fields with the content of a file, in which some gateways accept an address instead."""

_MEDIA: Final = frozenset(
    {"image", "audio", "video", "file", "input_audio", "source", "media", *_ADDRESS_FIELDS, *_CONTENT_FIELDS}
)
"""Fields of a part of a message with a picture, a sound, a video or a file, or with its address."""

_NOT_FETCHED: Final = "search_result"
"""Type of a part that has an address only to say where its text is from."""

_ADDRESS: Final = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_FIELDS_OF_SERVER: Final = ("mcp_servers", "web_search_options")
"""Fields of a request that let the server search the web, or connect to other servers."""

_FIELDS_OF_UNTYPED_TOOL: Final = ("input_schema", "function")
"""The agent's program runs a tool without a type if it has one of these fields."""

_SCHEMAS: Final = ("input_schema", "output_schema", "parameters", "schema")
"""Fields with the schema of a tool or of an answer, whose properties may have any name."""

_EXAMINED: Final = frozenset({"type", "tools", "input", *_MEDIA, *_SCHEMAS, *_FIELDS_OF_UNTYPED_TOOL})
"""Names of fields that decide what a part of a request is. Some servers ignore their case."""

_SEARCHING_MODEL: Final = re.compile(r"-search(-|$)|:online$|(^|/)(sonar|compound)(-|$)|deep-research", re.IGNORECASE)
"""Names of models that search the web by themselves."""


class TooManyValues(Exception):
    """The request has more values than can be examined."""


class ReachesOthers(Exception):
    """The request makes the model's server reach other hosts. The message names what does, as part of a sentence."""


def without_reach(body: bytes) -> bytes:
    """Return a request that makes the model's server reach no other host, with each field once in its object.

    Parsers differ in which of two equal fields they use. Raises ReachesOthers and TooManyValues.
    """
    if len(body) - len(body.translate(None, b"{[,")) > MOST_VALUES:
        raise TooManyValues
    try:
        request = msgspec.json.decode(body, type=dict[str, Any])
    except RecursionError:
        raise TooManyValues from None
    for found in _reaching(request):
        raise ReachesOthers(found)
    return msgspec.json.encode(request)


def searches_by_itself(model: str) -> bool:
    """Return whether a model opens pages of the web although the request has no tool for it."""
    return _SEARCHING_MODEL.search(model) is not None


def is_run_by_the_agent(kind: Any) -> bool:
    """Return whether the agent's own program runs a tool of this type, which may be None."""
    return kind is None or (isinstance(kind, str) and _RUN_BY_THE_AGENT.fullmatch(kind) is not None)


def _reaching(request: Mapping[str, Any]) -> Iterator[str]:
    # An empty object enables the search, too.
    yield from (f"the field `{name}`" for name in _FIELDS_OF_SERVER if request.get(name) not in (None, []))
    if isinstance(request.get("prompt"), dict):
        yield "a stored `prompt`, which may have tools,"
    pending: list[Any] = [request]  # objects and lists
    names = set[str]()  # that were compared: most parts have the same
    examined = set[int]()  # by id: parts of parts with an address are examined once
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += [part for part in value if isinstance(part, (dict, list))]
        else:
            if not names.issuperset(value):
                yield from (f"the field `{name[:100]}`" for name in value if _is_examined_in_another_case(name))
                names.update(value)
            if "tools" in value:
                yield from _tools_of_server(value["tools"])
            if not _MEDIA.isdisjoint(value):
                yield from (f"the address {address[:100]!r}" for address in _addresses_in(value, examined))
            # A model's call of a tool, and the schema of a tool, may have fields of any name. The request is no call,
            # although that of the Responses API has its messages in `input`, and some servers ignore a `type` in it.
            is_call = value is not request and "input" in value and _is_tool_use(value.get("type"))
            for name, part in value.items():
                if isinstance(part, (dict, list)) and name not in _SCHEMAS and not (is_call and name == "input"):
                    pending.append(part)


def _tools_of_server(tools: Any) -> Iterator[str]:
    for tool in tools if isinstance(tools, Sequence) else ():
        if not isinstance(tool, dict):
            continue
        kind = tool.get("type")
        if kind is None and not any(name in tool for name in _FIELDS_OF_UNTYPED_TOOL):
            yield f"a tool without a type and `{_FIELDS_OF_UNTYPED_TOOL[0]}`"
        elif not is_run_by_the_agent(kind):
            yield f"the tool `{kind[:100] if isinstance(kind, str) else 'of an unknown type'}`"


def _addresses_in(part: Mapping[str, Any], examined: set[int]) -> Iterator[str]:
    """Yield the addresses that a part of a message names in place of a content, under any name.

    examined: ids of the objects and lists that were examined, to which those in the part are added.
    """
    pending = [(name, part[name]) for name in _MEDIA if name in part and _is_media(part, name)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, str):
            is_expected = name in _ADDRESS_FIELDS and value and not value.lower().startswith("data:")
            if is_expected or _ADDRESS.match(value):
                yield value
        elif isinstance(value, dict) and id(value) not in examined:
            examined.add(id(value))
            pending += ((field.casefold().strip(), each) for field, each in value.items())
        elif isinstance(value, list) and id(value) not in examined:
            examined.add(id(value))
            pending += ((name, each) for each in value)


def _is_media(part: Mapping[str, Any], name: str) -> bool:
    """Return whether a server could fetch what a field names. A text may begin with an address."""
    kind, value = part.get("type"), part[name]
    if name == "url":
        return bool(kind == "url")
    if name in _CONTENT_FIELDS:
        return bool(kind != "text")
    if name == "source":
        is_of_text = isinstance(value, dict) and value.get("type") in ("text", "content")
        return kind != _NOT_FETCHED and not (kind == "document" and is_of_text)
    return True


def _is_examined_in_another_case(name: str) -> bool:
    return name not in _EXAMINED and name.casefold().strip() in _EXAMINED


def _is_tool_use(kind: Any) -> bool:
    return isinstance(kind, str) and kind.endswith("tool_use")

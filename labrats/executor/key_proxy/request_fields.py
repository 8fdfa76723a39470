"""Allow lists of the fields of a request, for each API, and the models that a request names besides its own."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from labrats.executor.key_proxy.reach import is_run_by_the_agent
from labrats.executor.key_proxy.responses import Refused
from labrats.model.config import Sampling

Fields = dict[str, msgspec.Raw]

_MESSAGES: Final = frozenset(
    "cache_control compaction context_management diagnostics inference_geo max_tokens mcp_servers messages metadata "
    "model output_config output_format service_tier speed stop_sequences stream system temperature thinking "
    "tool_choice tools top_k top_p".split()
)
_RESPONSES: Final = frozenset(
    "background client_metadata context_management conversation include input instructions max_output_tokens "
    "max_tool_calls metadata model parallel_tool_calls previous_response_id prompt prompt_cache_key "
    "prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature text "
    "tool_choice tools top_logprobs top_p truncation user".split()
)
_CHAT: Final = frozenset(
    "frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages metadata model "
    "parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort "
    "response_format safety_identifier seed service_tier stop store stream stream_options temperature tool_choice "
    "tools top_logprobs top_p user verbosity web_search_options".split()
).union(Sampling.__struct_fields__)
_LISTS: Final[Mapping[str, frozenset[str]]] = {
    "/messages": _MESSAGES,
    "/messages/count_tokens": _MESSAGES,
    "/responses": _RESPONSES,
    "/responses/compact": _RESPONSES,
    "/chat/completions": _CHAT,
}
"""The fields that are forwarded, by the end of the path. They are fields of the API, or settings of local models.

Gateways find another model, server, key or price in other fields. Of the API's own fields, the lists omit those that
name other models (`fallbacks`), the payer (`workspace_id`), stored content (`container`, `thread`) or a number of
answers (`n`): no agent's program needs them.
"""

_TOOL: Final = frozenset(
    "allowed_callers cache_control defer_loading description display_height display_height_px display_number "
    "display_width display_width_px eager_input_streaming enable_zoom environment execution format function "
    "input_examples input_schema max_characters name output_schema parameters strict tools type".split()
)
"""The fields that are forwarded of a tool that the agent's program runs."""

_CONVERSATIONS: Final = ("messages", "input")
_TOOL_NESTING: Final = 3
"""Depth of tools in namespaces."""

MOST_REMOVED: Final = 20
"""Most names of removed fields that are reported for one request."""

_NAME_CHARACTERS: Final = 100

_MODEL_NAMES: Final = ("model", "models")
_MAY_NAME_A_MODEL: Final = re.compile(rb"model|\\u00", re.IGNORECASE)
"""A name, or an escape that may hide one. A field with neither is not decoded."""

_MOST_BYTES: Final = 1024 * 1024
_CONTENT: Final = frozenset(
    {"model", "messages", "input", "prompt", "system", "instructions", "tools"}
    | {"text", "response_format", "output_config", "output_format", "metadata", "client_metadata"}
)
"""Fields whose parts may have any names: texts, calls of tools, schemas, and the data of the program."""

_NULL: Final = msgspec.Raw(b"null")


@dataclass
class FieldFilter:
    """Keeps the listed fields of one request, and a repeated field once: parsers differ in which of two they use.

    removed: the names of the removed fields. models: those that the request names besides its own.
    """

    removed: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)

    def keep_listed(self, path: str, fields: Fields) -> Fields:
        """Return the fields of a request that are forwarded. Raises Refused if a field cannot be examined."""
        listed = next((names for end, names in _LISTS.items() if path.endswith(end)), frozenset[str]())
        kept = self._listed(fields, listed)
        for name in kept.keys() - _CONTENT:
            self._examine(kept, name)
        if "tools" in kept:
            kept["tools"] = self._tools(kept["tools"])
        for name in _CONVERSATIONS:
            if name in kept and _may_have_tools(bytes(kept[name])):
                kept[name] = self._conversation(kept[name])
        return kept

    def _listed(self, fields: Fields, listed: frozenset[str], prefix: str = "") -> Fields:
        for name in fields:
            if name not in listed and len(self.removed) < MOST_REMOVED:
                self.removed.append(f"{prefix}{name}"[:_NAME_CHARACTERS])
        return {name: value for name, value in fields.items() if name in listed}

    def _conversation(self, items: msgspec.Raw) -> msgspec.Raw:
        """Return a conversation in whose items the lists of tools are filtered."""
        if not bytes(items).startswith(b"["):
            return items
        return _encoded([self._item(item) for item in _decoded("messages", items, list[msgspec.Raw])])

    def _item(self, item: msgspec.Raw) -> msgspec.Raw:
        content = bytes(item)
        if not (content.startswith(b"{") and _may_have_tools(content)):
            return item
        fields = _decoded("messages", item, Fields)
        if "tools" not in fields:
            return item
        return _encoded(fields | {"tools": self._tools(fields["tools"])})

    def _tools(self, tools: msgspec.Raw, nesting: int = _TOOL_NESTING) -> msgspec.Raw:
        if not nesting:
            raise Refused(400, "the tools of a request are nested too deeply")
        given: list[Fields] = _decoded("tools", tools, list[Fields] | None) or []
        return _encoded([self._tool(tool, nesting) for tool in given])

    def _tool(self, tool: Fields, nesting: int) -> Fields:
        if not is_run_by_the_agent(_decoded("tools", tool.get("type", _NULL), Any)):
            for name in tool:
                self._examine(tool, name)
            return tool
        kept = self._listed(tool, _TOOL, "tools.")
        if "tools" in kept:
            kept["tools"] = self._tools(kept["tools"], nesting - 1)
        return kept

    def _examine(self, fields: Fields, name: str) -> None:
        """Find the models in a field. One that may name some is replaced by one with each of its fields once."""
        content = bytes(fields[name])
        if not _is_of_models(name) and _MAY_NAME_A_MODEL.search(content) is None:
            return
        if len(content) > _MOST_BYTES:
            raise Refused(413, "a field of the body that may name a model is too large")
        value = _decoded(name, fields[name], Any)
        fields[name] = _encoded(value)
        self.models += _models_in({name: value})


def _may_have_tools(items: bytes) -> bool:
    """Return whether an item of a conversation may have a list of tools, as Codex sends them, maybe as an escape."""
    return b'"tools"' in items or b"\\u00" in items


def _models_in(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            for key, inner in part.items():
                if _is_of_models(key):
                    yield from (
                        each for each in (inner if isinstance(inner, list) else [inner]) if isinstance(each, str)
                    )
            pending += part.values()  # a value that is no name may be the schema of a field with this name


def _is_of_models(name: str) -> bool:
    return name.casefold().strip() in _MODEL_NAMES


def _decoded(name: str, value: msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(400, f"the field `{name[:_NAME_CHARACTERS]}` of the body cannot be read") from None


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))

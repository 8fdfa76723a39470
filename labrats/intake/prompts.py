"""The texts for an agent. Text from outside is inserted as data, between marks that it cannot forge."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from labrats.index.catalog import Catalog
from labrats.intake.request import JobRequest, Texts
from labrats.model.agent import AiAgent, Trigger
from labrats.model.job import PROMPT_BYTES
from labrats.model.outside_text import Marks, as_text, shortened, text_within

INSTRUCTIONS_BYTES: Final = 120 * 1024
"""The bound on instructions, which share a ConfigMap with the prompt."""

VALUE_BYTES: Final = 64 * 1024
"""The bound on the value of a placeholder."""

ABSENT: Final = "(none)"
"""Shown for a placeholder with no value."""

FIND_CAUSE: Final = "Find the cause of the errors below, and say how to fix it."
"""The prompt of an error report without one."""

_PLACEHOLDER: Final = re.compile(
    r"\{\{[ \t]*"
    r"(source|event|parent\.result|parent\.data(?:\.[\w$@-]+)*|(?:payload|metadata)(?:\.[\w$@-]+)+)"
    r"[ \t]*\}\}"
)


def texts_of(request: JobRequest, agent: AiAgent | None, catalog: Catalog) -> Texts:
    """Write the texts of the requested job, within their bounds. Reruns and follow-ups have those of the first job."""
    if first := request.first:
        return replace(first.texts, prompt=request.prompt or first.texts.prompt)
    writer = Writer(values_of(request))
    instructions = writer.fill(_instructions(agent, request.trigger, catalog))
    if request.prompt is None and request.event:
        return Texts(writer.finish([instructions, *_data(request, writer)], PROMPT_BYTES))
    task = request.prompt or (FIND_CAUSE if request.errors else "")
    prompt = writer.finish([task, *_data(request, writer)], PROMPT_BYTES)
    return Texts(prompt, writer.finish([instructions], INSTRUCTIONS_BYTES) if instructions else None)


def _instructions(agent: AiAgent | None, trigger: Trigger | None, catalog: Catalog) -> str:
    """Return the agent's instructions, followed by the trigger's where it is not one of them."""
    found = catalog.instructions_of(agent) if agent else ()
    texts = [each.spec.content for each in found]
    if trigger and trigger.instruction and trigger.instruction not in {each.name for each in found}:
        named = catalog.instruction(trigger.instruction)
        texts.append(named.spec.content if named else trigger.instruction)
    return "\n\n".join(text.strip() for text in texts)


def values_of(request: JobRequest) -> dict[str, Any]:
    """Return the values of placeholders."""
    event = request.event
    opened = request.parent_pull_request
    parent = {"result": request.parent_result, "data": request.parent_data}
    parent |= {"pullRequestUrl": opened.url} if opened else {}
    values: dict[str, Any] = {"source": request.source, "metadata": request.metadata, "parent": parent}
    if event:
        values |= {"event": event.name, "payload": event.payload}
    return values


def _data(request: JobRequest, writer: "Writer") -> list[str]:
    """Return the data for the prompt, the largest last, because a long prompt is cut at its end."""
    blocks = []
    if request.errors:
        errors = writer.mark("errors", text_within(request.errors, PROMPT_BYTES))
        blocks.append(f"These errors were observed:\n\n{errors}")
    if request.parent_result is not None:
        answer = writer.mark("parent.result", as_text(request.parent_result))
        blocks.append(f"The agent before you in this chain answered:\n\n{answer}")
    if opened := request.parent_pull_request:
        blocks.append(f"The pull request of this chain is {opened.url}. Its commits are checked out.")
    if request.event:
        blocks.append(f"This event is why you were started:\n\n{writer.mark('event', request.event.as_text)}")
    return blocks


class Writer:
    """Writes texts with values from outside between marks."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._marks = Marks()

    def fill(self, template: str) -> str:
        """Return `template` with its placeholders replaced. Placeholders in the values are not replaced."""
        return _PLACEHOLDER.sub(lambda found: self._value(found[1]), template)

    def mark(self, label: str, text: str) -> str:
        """Return `text` between marks. label: the origin of the text."""
        return self._marks.mark(label, text)

    def finish(self, paragraphs: Sequence[str], limit: int) -> str:
        """Join the paragraphs to at most `limit` bytes, and explain the marks if there are any."""
        text = "\n\n".join(filter(None, paragraphs))
        start, end = self._marks.start, self._marks.end
        if start in text:
            text = f"{self._marks.note}\n\n{text}"
        if len(text.encode()) <= limit:
            return text
        cut = shortened(text, limit - len(end))
        return cut + end if cut.count(start) > cut.count(end) else cut

    def _value(self, path: str) -> str:
        found = value_at(self._values, path.split("."))
        return ABSENT if found is None else self.mark(path, text_within(found, VALUE_BYTES))


def value_at(value: Any, path: Sequence[str]) -> Any:
    """Return the value at `path` in a JSON value; None if it is missing. A number selects an item of a list."""
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value

"""What happened elsewhere: which agents it starts, and which repository it is about."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Final

from msgspec.structs import replace

from labrats.model.agent import AiAgent, Trigger
from labrats.model.job import PROMPT_BYTES
from labrats.model.outside_text import as_text, shortened

_LONGEST_REF: Final = 255
_LONGEST_PATH: Final = 500
_LONGEST_NOTE: Final = 500
"""In characters. What an event says at greater length about itself goes into no field of a job."""


@dataclass(frozen=True)
class IncomingEvent:
    """Something that happened at `source`. name: as in `pull_request.opened`. payload: what the source says of it."""

    source: str
    name: str
    payload: Mapping[str, Any]

    @cached_property
    def as_text(self) -> str:
        """All of it that fits into a prompt. Written once for however many it starts: it may be large."""
        return shortened(as_text({"source": self.source, "event": self.name, "payload": self.payload}), PROMPT_BYTES)

    def find(self, *path: str) -> Any:
        """The value at a path of object keys; None where there is none."""
        value: Any = self.payload
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def text(self, *path: str) -> str | None:
        """The text at a path; None where there is none, or one that is too long for a field of a job."""
        value = self.find(*path)
        return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_NOTE else None


def triggered_agents(event: IncomingEvent, agents: Sequence[AiAgent]) -> list[tuple[AiAgent, Trigger]]:
    """The enabled agents that `event` starts, each with the first of its triggers that matches."""
    found = ((agent, _first_match(agent, event)) for agent in agents if agent.spec.enabled)
    return [(agent, trigger) for agent, trigger in found if trigger]


def trigger_in_chain(agent: AiAgent, event: IncomingEvent) -> Trigger | None:
    """The trigger by which `agent` works in a chain that `event` began.

    Also one that is switched off, where no other matches: it starts nothing, but its agent may be the next of a chain.
    """
    triggers = sorted(agent.spec.event_triggers, key=lambda trigger: not trigger.enabled)
    return next((each for each in triggers if _matches(replace(each, enabled=True), event)), None)


def listens_to(trigger: Trigger, source: str | None, event_name: str | None) -> bool:
    """Whether it is enabled for such events, whatever is in them. None stands for any source, or any event."""
    hears_source = source is None or trigger.source == source
    hears_event = event_name is None or any(fnmatchcase(event_name, pattern) for pattern in trigger.events)
    return trigger.enabled and hears_source and hears_event


def why_nobody(event: IncomingEvent, agents: Iterable[AiAgent]) -> str:
    """Return why the event starts none of the agents."""
    triggers = [(agent, trigger) for agent in agents for trigger in agent.spec.event_triggers]
    heard = [
        (agent, trigger)
        for agent, trigger in triggers
        if listens_to(replace(trigger, enabled=True), event.source, event.name)
    ]
    what = f"{event.name} of {event.source}"
    if not heard:
        return f"no agent has a trigger for {what}"
    if not any(agent.spec.enabled and trigger.enabled for agent, trigger in heard):
        return f"every trigger for {what}, or its agent, is disabled"
    return f"no trigger for {what} has filters that hold"


def problem_of_filters(filters: Mapping[str, Any]) -> str | None:
    """Why these can never be compared with a payload; None where they can."""
    for path, wanted in filters.items():
        if not path or len(path) > _LONGEST_PATH or "" in path.split("."):
            return f"{path[:100]!r} is no path: it must be keys with dots between them"
        if any(isinstance(each, dict | list) for each in (wanted if isinstance(wanted, list) else [wanted])):
            return f"{path!r} must be compared with a text, a number, true, false, null, or a list of these"
    return None


def _first_match(agent: AiAgent, event: IncomingEvent) -> Trigger | None:
    return next((trigger for trigger in agent.spec.event_triggers if _matches(trigger, event)), None)


def _matches(trigger: Trigger, event: IncomingEvent) -> bool:
    filters = trigger.filters.items()
    return listens_to(trigger, event.source, event.name) and all(
        _holds(wanted, path, event) for path, wanted in filters
    )


def _holds(wanted: Any, path: str, event: IncomingEvent) -> bool:
    """Whether one of the values at `path` is `wanted`, or one of those in a list of them."""
    alternatives = wanted if isinstance(wanted, list) else [wanted]
    return any(_is(each, value) for value in values_at(event.payload, path.split(".")) for each in alternatives)


def _is(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return wanted == value or fnmatchcase(value, wanted)
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)  # Python's True is its 1


def values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """What stands at `path` in a JSON value. A number leads into a list; any other key goes on in each of its items."""
    if isinstance(value, list) and not (path and path[0].isdecimal()):
        for item in value:
            yield from values_at(item, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping) and path[0] in value:
        yield from values_at(value[path[0]], path[1:])
    elif isinstance(value, list) and int(path[0]) < len(value):
        yield from values_at(value[int(path[0])], path[1:])


def clone_url_of(event: IncomingEvent) -> str | None:
    """Where the repository that it is about is cloned from, as GitHub's payloads say it."""
    return event.text("repository", "clone_url")


def git_ref_of(event: IncomingEvent) -> str | None:
    """What of the repository it is about: the pull request's head, the branch or tag, or else the default branch."""
    ref = _pull_request_ref(event) or _branch_ref(event) or event.text("repository", "default_branch")
    return ref if ref and len(ref) <= _LONGEST_REF else None


def _pull_request_ref(event: IncomingEvent) -> str | None:
    pull_request, number = event.find("pull_request"), event.find("number")
    if isinstance(pull_request, Mapping):
        number = pull_request.get("number", number)
        own_branch = event.find("pull_request", "head", "repo", "full_name") == event.find("repository", "full_name")
        # Of a closed one the branch may be gone, and of one from a fork it never was here: GitHub keeps the head.
        if own_branch and pull_request.get("state") == "open":
            return event.text("pull_request", "head", "ref")
    elif event.find("issue", "pull_request"):  # a comment: it says the number only
        number = event.find("issue", "number")
    else:
        return None
    return f"refs/pull/{number}/head" if isinstance(number, int) else None


_REFS: Final = (
    ("workflow_run", "head_branch"),
    ("check_suite", "head_branch"),
    ("check_run", "check_suite", "head_branch"),
    ("release", "tag_name"),
    ("deployment", "ref"),
    ("ref",),
)


def _branch_ref(event: IncomingEvent) -> str | None:
    if event.name.partition(".")[0] == "delete" or event.find("deleted") is True:
        return None  # it has gone
    ref = next(filter(None, (event.text(*path) for path in _REFS)), None)
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/") if ref else None


_SUBJECTS: Final = ("pull_request", "issue", "discussion", "release", "workflow_run", "check_run", "check_suite")


def metadata_of(event: IncomingEvent) -> dict[str, Any]:
    """What a job made of it shows: where it is about, in GitHub's words, as far as the payload says so."""
    notes = {
        "event": event.name,
        "repo": event.text("repository", "full_name"),
        "sender": event.text("sender", "login"),
    }
    for subject in _SUBJECTS:
        if isinstance(about := event.find(subject), Mapping):
            number = about.get("number")
            notes |= {"title": event.text(subject, "title"), "url": event.text(subject, "html_url")}
            return {key: value for key, value in (notes | {"number": number}).items() if value is not None}
    return {key: value for key, value in notes.items() if value is not None}

"""Events from outside: the agents they start, and the repository they are about."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain
from typing import Any, Final

from msgspec.structs import replace

from labrats.model.agent import AiAgent, Trigger
from labrats.model.git_repo import is_plain_branch
from labrats.model.job import PROMPT_BYTES
from labrats.model.outside_text import text_within

_LARGE_BYTES: Final = 64 * 1024
_LONGEST_REF: Final = 255
_LONGEST_PATH: Final = 500
_LONGEST_TEXT: Final = 500
"""The longest text of an event, in characters, that becomes a field of a job."""


@dataclass(frozen=True)
class IncomingEvent:
    """An event at `source`. name: such as `pull_request.opened`. payload: the source's description of it.

    size: bytes of the payload as it was received, None if unknown.
    """

    source: str
    name: str
    payload: Mapping[str, Any]
    size: int | None = field(default=None, compare=False)

    @cached_property
    def as_text(self) -> str:
        """The event as JSON, cut to fit into a prompt. Cached for all agents of the event, because it may be large."""
        return text_within({"source": self.source, "event": self.name, "payload": self.payload}, PROMPT_BYTES)

    @property
    def is_large(self) -> bool:
        """True if `as_text` or the comparison with a trigger may take more than some milliseconds."""
        return self.size is None or self.size > _LARGE_BYTES

    def find(self, *path: str) -> Any:
        """Return the value at a path of object keys; None if it is missing."""
        value: Any = self.payload
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def text(self, *path: str) -> str | None:
        """Return the text at a path; None if it is missing, or too long for a field of a job."""
        value = self.find(*path)
        return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT else None


class Mismatch(StrEnum):
    """The first reason why an event does not start an agent by one of its triggers."""

    SOURCE = "source"
    EVENT = "event"
    FILTER = "filter"
    TRIGGER_DISABLED = "trigger_disabled"
    AGENT_DISABLED = "agent_disabled"
    EARLIER_TRIGGER = "earlier_trigger"
    CI_LOOP = "ci_loop"


def triggered_agents(event: IncomingEvent, agents: Sequence[AiAgent]) -> list[tuple[AiAgent, Trigger]]:
    """Return the enabled agents that `event` starts, each with its first trigger that matches."""
    found = ((agent, _first_match(agent, event)) for agent in agents if agent.spec.enabled)
    return [(agent, trigger) for agent, trigger in found if trigger]


def trigger_in_chain(agent: AiAgent, event: IncomingEvent) -> Trigger | None:
    """Return the trigger of `agent` that applies in a chain that `event` started.

    A disabled trigger applies if no enabled one matches: it starts no agent, but its agent may follow in a chain.
    """
    triggers = sorted(agent.spec.event_triggers, key=lambda trigger: not trigger.enabled)
    return next((each for each in triggers if mismatch_of(each, event) in (None, Mismatch.TRIGGER_DISABLED)), None)


def listens_to(trigger: Trigger, source: str | None, event_name: str | None) -> bool:
    """Return whether the trigger is enabled for events of that source and name. None stands for any source or name."""
    matches_source = source is None or trigger.source == source
    return trigger.enabled and matches_source and (event_name is None or _has_event(trigger, event_name))


def why_no_agent(event: IncomingEvent, agents: Iterable[AiAgent]) -> str:
    """Return why the event starts none of the agents, as a sentence."""
    triggers = [(agent, trigger) for agent in agents for trigger in agent.spec.event_triggers]
    listening = [
        (agent, trigger)
        for agent, trigger in triggers
        if listens_to(replace(trigger, enabled=True), event.source, event.name)
    ]
    kind = f"{event.name} of {event.source}"
    if not listening:
        return f"no agent has a trigger for {kind}"
    if not any(agent.spec.enabled and trigger.enabled for agent, trigger in listening):
        return f"every trigger for {kind}, or its agent, is disabled"
    return f"no trigger for {kind} has filters that match"


def problem_of_filters(filters: Mapping[str, Any]) -> str | None:
    """Return why the filters are invalid; None if they are valid."""
    for path, wanted in filters.items():
        if not path or len(path) > _LONGEST_PATH or "" in path.split("."):
            return f"{path[:100]!r} is not a path: it must be keys separated by dots"
        if any(isinstance(each, dict | list) for each in (wanted if isinstance(wanted, list) else [wanted])):
            return f"{path!r} must be compared with a text, a number, true, false, null, or a list of these"
    return None


def _first_match(agent: AiAgent, event: IncomingEvent) -> Trigger | None:
    return next((trigger for trigger in agent.spec.event_triggers if mismatch_of(trigger, event) is None), None)


def mismatch_of(trigger: Trigger, event: IncomingEvent) -> Mismatch | None:
    """Return the first reason why the trigger does not match the event; None if it matches."""
    if trigger.source != event.source:
        return Mismatch.SOURCE
    if not _has_event(trigger, event.name):
        return Mismatch.EVENT
    if failed_filter(trigger, event) is not None:
        return Mismatch.FILTER
    if not trigger.enabled:
        return Mismatch.TRIGGER_DISABLED
    return Mismatch.CI_LOOP if trigger.ci_loop else None


def _has_event(trigger: Trigger, event_name: str) -> bool:
    return any(fnmatchcase(event_name, pattern) for pattern in trigger.events)


def failed_filter(trigger: Trigger, event: IncomingEvent) -> str | None:
    """Return the path of the first filter that does not hold; None if all hold."""
    return next((path for path, wanted in trigger.filters.items() if not _holds(wanted, path, event)), None)


def _holds(wanted: Any, path: str, event: IncomingEvent) -> bool:
    """Return whether a value at `path` matches `wanted`, or one of its items if `wanted` is a list."""
    alternatives = wanted if isinstance(wanted, list) else [wanted]
    return any(_value_matches(each, value) for value in values_at(event.payload, path) for each in alternatives)


def _value_matches(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return wanted == value or fnmatchcase(value, wanted)
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)  # True equals 1 in Python


def values_at(payload: Any, path: str) -> Iterator[Any]:
    """Yield the values at a dotted path. A number selects an item of a list; another key, all of its items."""
    yield from _values_at(payload, path.split("."))


def _values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    if isinstance(value, list) and not (path and path[0].isdecimal()):
        for item in value:
            yield from _values_at(item, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _values_at(value[path[0]], path[1:])
    elif isinstance(value, list) and int(path[0]) < len(value):
        yield from _values_at(value[int(path[0])], path[1:])


def clone_url_of(event: IncomingEvent) -> str | None:
    """Return the clone URL of the event's repository, as in GitHub's payloads."""
    return event.text("repository", "clone_url")


def git_ref_of(event: IncomingEvent) -> str | None:
    """Return the ref that the event is about: the pull request's head, a branch or tag, or else the default branch."""
    ref = _pull_request_ref(event) or _branch_ref(event) or event.text("repository", "default_branch")
    return ref if ref and len(ref) <= _LONGEST_REF else None


def _pull_request_ref(event: IncomingEvent) -> str | None:
    pull_request, number = event.find("pull_request"), event.find("number")
    if isinstance(pull_request, Mapping):
        number = pull_request.get("number", number)
        is_same_repo = event.find("pull_request", "head", "repo", "full_name") == event.find("repository", "full_name")
        # The branch of a closed one may be deleted, and that of a fork is elsewhere: refs/pull exists in both cases.
        if is_same_repo and pull_request.get("state") == "open":
            return event.text("pull_request", "head", "ref")
    elif event.find("issue", "pull_request"):  # a comment on a pull request, with its number only
        number = event.find("issue", "number")
    else:
        return None
    return f"refs/pull/{number}/head" if isinstance(number, int) else None


CHECKS: Final = ("check_run", "check_suite", "workflow_job", "workflow_run")
"""The objects of events about checks."""

_BRANCH: Final = "head_branch"
_REFS: Final = (
    ("workflow_run", _BRANCH),
    ("check_suite", _BRANCH),
    ("check_run", "check_suite", _BRANCH),
    ("release", "tag_name"),
    ("deployment", "ref"),
    ("ref",),
)


def _branch_ref(event: IncomingEvent) -> str | None:
    if event.name.partition(".")[0] == "delete" or event.find("deleted") is True:
        return None  # the ref is deleted
    for path in _REFS:
        if ref := event.text(*path):
            # A fork's author chooses the name of its branch, which must not be read as a commit or another kind of ref.
            is_ambiguous = path[-1] == _BRANCH and not is_plain_branch(ref)
            return f"refs/heads/{ref}" if is_ambiguous else _short(ref)
    return None


def refs_of(event: IncomingEvent) -> set[str]:
    """Return the names of all branches and tags that the event is about, also those of a fork."""
    paths = (("pull_request", "head", "ref"), ("workflow_job", _BRANCH), *_REFS)
    of_commit = values_at(event.payload, "branches.name")  # of an event about the status of a commit
    of_checks = (values_at(event.find(check), "pull_requests.head.ref") for check in CHECKS)
    found = [*(event.find(*path) for path in paths), *of_commit, *chain.from_iterable(of_checks)]
    return {_short(ref) for ref in found if isinstance(ref, str)}


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


_SUBJECTS: Final = ("pull_request", "issue", "discussion", "release", "workflow_run", "check_run", "check_suite")


METADATA: Final = frozenset({"event", "repo", "sender", "title", "url", "number"})
"""The names in the metadata of an event's job."""


def metadata_of(event: IncomingEvent) -> dict[str, Any]:
    """Return the metadata of an event's job: repository, sender and subject, as far as the payload contains them."""
    notes = {
        "event": event.name,
        "repo": event.text("repository", "full_name"),
        "sender": event.text("sender", "login"),
    }
    for subject in _SUBJECTS:
        if isinstance(found := event.find(subject), Mapping):
            number = found.get("number")
            notes |= {"title": event.text(subject, "title"), "url": event.text(subject, "html_url")}
            return {key: value for key, value in (notes | {"number": number}).items() if value is not None}
    return {key: value for key, value in notes.items() if value is not None}

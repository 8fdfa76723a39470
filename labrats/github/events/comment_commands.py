"""Commands in comments on GitHub: `/labrats cancel`, `retry`, `publish`, `run AGENT` and `help`.

A mention of the engine's account may stand for `/labrats`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.intake.event_authorization import is_external_author
from labrats.intake.events import IncomingEvent, failed_filter
from labrats.intake.report_targets import target_of
from labrats.model.agent import AiAgent, Trigger
from labrats.model.outside_text import AGENT_MARK, without_hidden
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import GITHUB, WebhookSource

WORD: Final = "/labrats"
EVENT: Final = "issue_comment.created"
REFUSED: Final = "confused"
"""The reaction to a command that is not carried out."""

MEMBERS_ONLY: Final = "Only owners, members and collaborators of the repository can start an agent in a comment."

_GATES: Final = frozenset({"repository", "organization", "sender"})
"""Parts of an event that a comment has in common with each event of its repository and author."""

_FENCE: Final = re.compile(r" {0,3}(?:(`{3,})[^`]*|(~{3,}).*)")
_CLOSING_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")
_VERBS: Final = frozenset(ThreadAction) - {
    ThreadAction.REPLY,
    ThreadAction.MENTION,
    ThreadAction.REPAIR,
    ThreadAction.RERUN,
}
_LONGEST_VALUE: Final = 200
_USAGE: Final = (
    "- `/labrats cancel` stops the jobs of this thread; `/labrats cancel AGENT` those of one agent.\n"
    "- `/labrats retry` retries its last job, if that has failed; `/labrats retry model=MODEL` runs it again with "
    "another model.\n"
    "- `/labrats publish` writes the report of its last job again, without running the agent.\n"
    "- `/labrats run AGENT` starts an agent, with `model=MODEL` on another model than usual.\n"
    "- `/labrats help` shows this list."
)


@dataclass(frozen=True)
class Command:
    """A command. problem: what is wrong with it, as a sentence; None if it is valid."""

    action: ThreadAction
    agent: str | None = None
    model: str | None = None
    problem: str | None = None


def command_in(text: str) -> Command | None:
    """Return the first command of a comment: a line that begins with `/labrats`, outside of quotes and code."""
    line = next((line for line in _lines_of_prose(without_hidden(text)) if _is_command(line)), None)
    return None if line is None else _parsed(line.split()[1:])


def mention_in(text: str, login: str | None) -> Command | None:
    """Return the command in the first mention of an account: a line that begins with `@login`, as for `command_in`.

    It is a MENTION unless the next word is that of a command. login: of an App with `[bot]`, which people leave out.
    """
    if login is None:
        return None
    name = re.escape(login.removesuffix("[bot]"))
    mention = re.compile(rf"@{name}(?:\[bot\])?(?![\w/-])[,:]?(.*)", re.IGNORECASE)
    found = next(filter(None, map(mention.fullmatch, _lines_of_prose(without_hidden(text)))), None)
    if found is None:
        return None
    words = found[1].split()
    return _parsed(words) if words and words[0].lower() in _VERBS else Command(ThreadAction.MENTION)


def _lines_of_prose(text: str) -> Iterable[str]:
    """Yield the lines that are in no block of code between fences, as GitHub reads them.

    Only a line feed ends a line here, also after a carriage return. Another separator, such as U+2028, would make a
    line of a part of a quoted one.
    """
    fence = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        if fence:
            closing = _CLOSING_FENCE.fullmatch(line)
            fence = "" if closing and closing[1].startswith(fence) else fence
        elif opened := _FENCE.fullmatch(line):
            fence = opened[1] or opened[2]
        else:
            yield line


def _is_command(line: str) -> bool:
    return line == WORD or line.startswith((f"{WORD} ", f"{WORD}\t"))


def _parsed(words: Sequence[str]) -> Command:
    if not words:
        return Command(ThreadAction.HELP)
    verb, rest = words[0].lower(), words[1:]
    if verb not in _VERBS:
        return Command(ThreadAction.HELP, problem=f"`{_short(verb)}` is no command.")
    action = ThreadAction(verb)
    options = [word for word in rest if "=" in word]
    names = [word for word in rest if "=" not in word]
    models = [word.removeprefix("model=") for word in options if word.startswith("model=")]
    if unknown := [word for word in options if not word.startswith("model=") or word == "model="]:
        return Command(action, problem=f"`{_short(unknown[0])}` is no option: there is only `model=MODEL`.")
    if len(names) > 1 or len(models) > 1 or any(len(value) > _LONGEST_VALUE for value in (*names, *models)):
        return Command(action, problem=f"`{WORD} {verb}` takes one agent at most, and one model.")
    command = Command(action, agent=next(iter(names), None), model=next(iter(models), None))
    if action is ThreadAction.RUN and command.agent is None:
        return Command(action, problem=f"`{WORD} run` needs the name of an agent.")
    if action in (ThreadAction.CANCEL, ThreadAction.PUBLISH) and command.model:
        return Command(action, problem=f"`{WORD} {verb}` takes no model.")
    return command


def _short(word: str) -> str:
    """Return a word of a comment for an answer, in which a mark could end its code."""
    return word[:40].replace("`", "")


def command_of(event: IncomingEvent, source: WebhookSource, catalog: Catalog, now: datetime) -> ThreadRequest | None:
    """Return the request in a comment on GitHub; None if it has no command.

    The caller checks the author. A request that cannot be carried out has its answer already.
    """
    if event.name != EVENT or not isinstance(body := event.find("comment", "body"), str):
        return None
    command, target = command_in(body) or mention_in(body, source.status.login), target_of(event, source)
    if command is None or target is None or target.number is None or target.comment is None:
        return None
    is_external = is_external_author(event, source.spec)
    agents = [] if is_external else [*runnable_agents(event, source, catalog)]
    return ThreadRequest(
        id=f"comment-{target.comment}",
        action=command.action,
        event=event.name,
        target=target,
        received_at=now,
        url=event.text("issue", "html_url"),
        agent=command.agent,
        model=command.model,
        untrusted=is_external,
        answer=_answer_to(command, agents, is_external=is_external),
    )


def refused_mention(request: ThreadRequest, event: IncomingEvent, source: WebhookSource) -> Sequence[ThreadRequest]:
    """Return the reaction to a mention by somebody who may command nothing; none for a program, or where nobody may.

    request: the command in the comment.
    """
    override = source.spec.override_of(request.target.repository)
    body = event.text("comment", "body") or ""
    is_asked = source.spec.credentials_ref is not None and mention_in(body, source.status.login) is not None
    is_by_person = event.text("sender", "type") != "Bot" and AGENT_MARK not in body
    if not is_asked or not is_by_person or (override and not override.enabled):
        return []
    refused = ThreadAnswer(reaction=REFUSED)
    return [replace(request, action=ThreadAction.MENTION, agent=None, model=None, untrusted=True, answer=refused)]


def _answer_to(command: Command, agents: Sequence[str], *, is_external: bool) -> ThreadAnswer | None:
    """Return the answer to a command that asks for help or cannot be carried out. agents: those that it may start."""
    problem = command.problem
    if problem is None and command.action is ThreadAction.RUN:
        if is_external:
            return ThreadAnswer(reaction=REFUSED, text=MEMBERS_ONLY)
        if command.agent not in agents:
            problem = f"No agent `{_short(command.agent or '')}` can be started here."
    if problem is None and command.action is not ThreadAction.HELP:
        return None
    names = ", ".join(f"`{name}`" for name in sorted(agents)) or "none"
    text = "\n\n".join(filter(None, [problem, _USAGE, f"Agents: {names}."]))
    return ThreadAnswer(reaction=REFUSED if problem else "+1", text=text)


def runnable_agents(
    event: IncomingEvent, source: WebhookSource, catalog: Catalog
) -> dict[str, tuple[AiAgent, Trigger | None]]:
    """Return the agents that a comment may start, by `triggerName`, each with the trigger that applies.

    They are those that events of the repository and of the author of the comment may start. An agent has no trigger
    only if the source names it for the repository.
    """
    override = source.spec.override_of(event.text("repository", "full_name"))
    named = override.agent_trigger_name if override else None
    found: dict[str, tuple[AiAgent, Trigger | None]] = {}
    for name, agent in catalog.agents_by_trigger_name.items():
        if not agent.spec.enabled or named not in (None, name):
            continue
        triggers = [each for each in agent.spec.event_triggers if each.enabled and each.source == GITHUB]
        if (trigger := _trigger_of(triggers, event)) or (name == named and not triggers):
            found[name] = agent, trigger
    return found


def _trigger_of(triggers: Sequence[Trigger], event: IncomingEvent) -> Trigger | None:
    """Return the trigger that applies: the first for such a thread whose gates hold, or else the first of the others.

    The other filters describe events of another kind, such as the label that is added, so they do not apply.
    """
    open_ones = [each for each in triggers if _has_open_gates(each, event)]
    is_pull_request = (event.find("pull_request") or event.find("issue", "pull_request")) is not None
    prefix = "pull_request" if is_pull_request else "issue"
    fitting = (each for each in open_ones if any(name.startswith(prefix) for name in each.events))
    return next(fitting, open_ones[0] if open_ones else None)


def _has_open_gates(trigger: Trigger, event: IncomingEvent) -> bool:
    gates = {path: wanted for path, wanted in trigger.filters.items() if path.partition(".")[0] in _GATES}
    return failed_filter(replace(trigger, filters=gates), event) is None

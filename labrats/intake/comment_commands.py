"""Commands in comments on GitHub: `/labrats cancel`, `retry`, `run AGENT` and `help`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from labrats.index.catalog import Catalog
from labrats.intake.event_authorization import is_external_author
from labrats.intake.events import IncomingEvent
from labrats.intake.report_targets import target_of
from labrats.model.agent import AiAgent
from labrats.model.outside_text import without_hidden
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import GITHUB, WebhookSource

WORD: Final = "/labrats"
EVENT: Final = "issue_comment.created"
REFUSED: Final = "confused"
"""The reaction to a command that is not carried out."""

_FENCE: Final = re.compile(r" {0,3}(?:(`{3,})[^`]*|(~{3,}).*)")
_CLOSING_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")
_VERBS: Final = frozenset(ThreadAction) - {ThreadAction.REPLY, ThreadAction.REPAIR}
_LONGEST_VALUE: Final = 200
_USAGE: Final = (
    "- `/labrats cancel` stops the jobs of this thread; `/labrats cancel AGENT` those of one agent.\n"
    "- `/labrats retry` retries its last job, if that has failed; `/labrats retry model=MODEL` runs it again with "
    "another model.\n"
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
    if action is ThreadAction.CANCEL and command.model:
        return Command(action, problem=f"`{WORD} cancel` takes no model.")
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
    command, target = command_in(body), target_of(event, source)
    if command is None or target is None or target.number is None or target.comment is None:
        return None
    return ThreadRequest(
        id=f"comment-{target.comment}",
        action=command.action,
        event=event.name,
        target=target,
        received_at=now,
        url=event.text("issue", "html_url"),
        agent=command.agent,
        model=command.model,
        untrusted=is_external_author(event, source.spec),
        answer=_answer_to(command, source, catalog),
    )


def _answer_to(command: Command, source: WebhookSource, catalog: Catalog) -> ThreadAnswer | None:
    """Return the answer to a command that asks for help or cannot be carried out."""
    agents = runnable_agents(source, catalog)
    problem = command.problem
    if problem is None and command.action is ThreadAction.RUN and command.agent not in agents:
        problem = f"No agent `{_short(command.agent or '')}` can be started here."
    if problem is None and command.action is not ThreadAction.HELP:
        return None
    names = ", ".join(f"`{name}`" for name in sorted(agents)) or "none"
    text = "\n\n".join(filter(None, [problem, _USAGE, f"Agents: {names}."]))
    return ThreadAnswer(reaction=REFUSED if problem else "+1", text=text)


def runnable_agents(source: WebhookSource, catalog: Catalog) -> dict[str, AiAgent]:
    """Return the agents that a comment may start, by `triggerName`: those that events of the source start, too."""
    named = {override.agent_trigger_name for override in source.spec.repo_overrides.values()}
    return {
        name: agent
        for name, agent in catalog.agents_by_trigger_name.items()
        if agent.spec.enabled
        and (name in named or any(each.enabled and each.source == GITHUB for each in agent.spec.event_triggers))
    }

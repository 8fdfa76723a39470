"""The default agents, which an administrator can add to an engine.

Each instruction is a Markdown file in this folder; the file's name is the instruction's name.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from msgspec.structs import replace

from labrats.model.agent import AiAgent, AiAgentSpec, CiLoop, Trigger
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.instruction import AiInstruction, AiInstructionSpec
from labrats.model.record import Metadata
from labrats.model.report import CheckReport, CommentMode, PublishPolicy, PullRequestReport, Report, ReviewReport

CONDUCT: Final = "conduct"
"""The instruction that all default agents share."""

PUBLISH: Final = "publish"
"""The instruction of the default agents with a report to GitHub."""

_TITLES: Final = {
    CONDUCT: "How to work",
    PUBLISH: "What the engine publishes",
    "implement-issue": "Implement an issue",
    "code-review": "Review a pull request",
    "triage-issue": "Triage a new issue",
    "write-documentation": "Update the documentation",
    "analyse-errors": "Find the cause of errors",
    "repair-checks": "Repair failed checks",
}

_FORMER_REVIEWER: Final = Trigger(
    source="github",
    events=("pull_request.opened", "pull_request.reopened", "pull_request.ready_for_review"),
    filters={"pull_request.draft": False},
    instruction="code-review",
)
"""The trigger of the reviewer in earlier versions, which stored agents keep."""

_TRIGGERS: Final = {
    "ai-developer": Trigger(
        source="github",
        events=("issues.labeled",),
        filters={"label.name": "ai-implement"},
        instruction="implement-issue",
    ),
    "ai-reviewer": replace(
        _FORMER_REVIEWER,
        events=(*_FORMER_REVIEWER.events, "pull_request.synchronize"),
        concurrency=Concurrency(key="{{ agent }} {{ repo }}#{{ number }}", on_new=OnNew.SUPERSEDE, debounce_seconds=30),
    ),
    "ai-triager": Trigger(source="github", events=("issues.opened",), instruction="triage-issue"),
    "ai-documenter": Trigger(
        source="github",
        events=("issues.labeled", "pull_request.labeled"),
        filters={"label.name": "ai-document"},
        instruction="write-documentation",
    ),
    "error-analyst": Trigger(source="error-reporting", events=("error", "error.*"), instruction="analyse-errors"),
}


_TEMPLATE_TRIGGERS: Final = {
    "ci-fixer": Trigger(
        source="github",
        events=("check_run.completed", "workflow_run.completed"),
        instruction="repair-checks",
        ci_loop=CiLoop(),
    ),
}
"""The triggers of agents that are added only when somebody asks for them."""

_HARMLESS_LABELS: Final = ("bug", "documentation", "duplicate", "enhancement", "invalid", "question")
"""Labels of every new repository on GitHub, which start nothing."""

_CHANGES: Final = Report(comment=CommentMode.STICKY, reactions=True, pull_request=PullRequestReport())
_REPORTS: Final = {
    "ai-developer": _CHANGES,
    "ai-reviewer": Report(check=CheckReport(), review=ReviewReport(), reactions=True),
    "ai-triager": Report(comment=CommentMode.STICKY, policy=PublishPolicy(labels=_HARMLESS_LABELS)),
    "ai-documenter": _CHANGES,
    "ci-fixer": _CHANGES,
}


@cache
def default_agents() -> Sequence[tuple[AiAgent, Sequence[AiInstruction]]]:
    """Return each default agent with the instructions that it names."""
    return [_agent(name, trigger) for name, trigger in _TRIGGERS.items()]


def github_agents() -> Sequence[tuple[AiAgent, Sequence[AiInstruction]]]:
    """Return the default agents that GitHub's events start, with the instructions that they name."""
    return [
        each for each in default_agents() if any(trigger.source == "github" for trigger in each[0].spec.event_triggers)
    ]


def has_former_triggers(agent: AiAgent) -> bool:
    """Return whether an agent has the triggers of the default agent of an earlier version, unchanged."""
    return agent.name == "ai-reviewer" and agent.spec.event_triggers == (_FORMER_REVIEWER,)


@cache
def templates() -> Mapping[str, tuple[AiAgent, Sequence[AiInstruction]]]:
    """Return the further agents by their names, each with the instructions that it names."""
    return {name: _agent(name, trigger) for name, trigger in _TEMPLATE_TRIGGERS.items()}


def _agent(name: str, trigger: Trigger) -> tuple[AiAgent, Sequence[AiInstruction]]:
    assert trigger.instruction, "the trigger of a default agent must name an instruction"
    report = _REPORTS.get(name)
    names = (CONDUCT, *([PUBLISH] if report else []), trigger.instruction)
    spec = AiAgentSpec(trigger_name=name, event_triggers=(trigger,), instructions=names, report=report)
    return AiAgent(metadata=Metadata(name=name), spec=spec), [_instruction(each) for each in names]


def _instruction(name: str) -> AiInstruction:
    content = files(__name__).joinpath(f"{name}.md").read_text("utf-8")
    return AiInstruction(
        metadata=Metadata(name=name), spec=AiInstructionSpec(display_name=_TITLES[name], content=content)
    )

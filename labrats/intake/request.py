"""What is to become a job."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from labrats.files.attachments import Content
from labrats.index.catalog import Catalog
from labrats.intake.event_authorization import is_outsiders
from labrats.intake.events import IncomingEvent, metadata_of, triggered_agents
from labrats.model.agent import AiAgent, Trigger
from labrats.model.config import JobConfig
from labrats.model.errors import Invalid, Problem
from labrats.model.git_repo import GitRepo
from labrats.model.job import DEFAULT_PRIORITY, Chain, Job, Pipeline, new_job_id
from labrats.model.webhook_source import WebhookSource

NAME_TRIES: Final = 5
"""Names are random, or made from a hash: even the second one is hardly ever needed."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One job to make. Whoever took the request in has checked its fields, and that the repository may be reached.

    owner:   the id of the API key, or of the webhook source, that the job belongs to.
    api_key_ref: the Secret of that key, if it is stored.
    prompt:  what the agent is asked. Without one, its instructions and the event are the prompt.
    errors:  what was observed, for `error-reporting`: goes into the prompt as data.
    agent:   lends its instructions and its defaults. trigger: the one of the agent that the event matched.
    chain:   where the job stands in a chain; its parent's result goes into the prompt as data.
    token_from: the Secret of which a token for `repo` is made for each attempt, in the place of its credential.
    files:   name in the workspace, contents; those that were uploaded before, too.
    untrusted: an outsider wrote what made it, whom a person has let in.
    """

    source: str
    type: str
    owner: str
    api_key_ref: str | None = None
    prompt: str | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    event: IncomingEvent | None = None
    agent: AiAgent | None = None
    trigger: Trigger | None = None
    webhook_source: WebhookSource | None = None
    chain: Chain | None = None
    parent_result: Any = None
    config: JobConfig = field(default_factory=JobConfig)
    priority: int | float = DEFAULT_PRIORITY
    repo: GitRepo | None = None
    token_from: str | None = None
    git_ref: str | None = None
    git_depth: int | None = None
    files: Sequence[tuple[str, Content]] = ()
    untrusted: bool = False
    pipeline: Pipeline | None = None
    callback_url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def goes_on(self) -> bool:
        """Whether another agent may follow it in its chain."""
        return self.chain is not None and self.chain.next is not None

    @property
    def repo_name(self) -> str | None:
        """The `owner/repo` that it is about, where it says so."""
        name = self.metadata.get("repo")
        return name if isinstance(name, str) else None


def agent_named(role: str, catalog: Catalog) -> AiAgent:
    """The agent that `agentRole` calls by its `triggerName`. Raises Invalid when there is none, or it is disabled."""
    if (agent := catalog.agents_by_trigger_name.get(role)) is None:
        raise Invalid(Problem("agentRole", "names no agent: it must be the `triggerName` of one"))
    if not agent.spec.enabled:
        raise Invalid(Problem("agentRole", f"the agent {agent.name!r} is disabled"))
    return agent


def event_requests(
    event: IncomingEvent, catalog: Catalog, owner: str, webhook_source: WebhookSource | None = None
) -> list[JobRequest]:
    """One for each agent that the event starts. Where its repository is cloned from has yet to be judged."""
    started = triggered_agents(event, list(catalog.agents_by_trigger_name.values()))
    if webhook_source and (name := _agent_of_repository(event, webhook_source)):
        started = _for_this_agent(catalog.agents_by_trigger_name.get(name), started)
    return [
        JobRequest(
            source=event.source,
            type=type_of(event, trigger, catalog),
            owner=owner,
            event=event,
            agent=agent,
            trigger=trigger,
            webhook_source=webhook_source,
            token_from=webhook_source.spec.credentials_ref if webhook_source else None,
            chain=_first_link(agent, trigger),
            untrusted=webhook_source is not None and is_outsiders(event, webhook_source.spec),
            metadata=metadata_of(event),
        )
        for agent, trigger in started
    ]


def _agent_of_repository(event: IncomingEvent, source: WebhookSource) -> str | None:
    """The `triggerName` of the agent that a webhook source names for the event's repository, if it names one."""
    override = source.spec.override_of(event.text("repository", "full_name"))
    return override.agent_trigger_name if override else None


def _for_this_agent(agent: AiAgent | None, started: Sequence[tuple[AiAgent, Trigger]]) -> list[tuple[AiAgent, Trigger]]:
    """`agent` in the place of whomever the event starts, by its own trigger where it is among them.

    Which events start an agent at all stays a matter of triggers.
    """
    if agent is None or not agent.spec.enabled or not started:
        return []
    own = [trigger for each, trigger in started if each is agent]
    return [(agent, own[0] if own else started[0][1])]


def type_of(event: IncomingEvent, trigger: Trigger, catalog: Catalog) -> str:
    """What the job is called: its task, where that has a name, or else what happened."""
    named = trigger.instruction and catalog.instruction(trigger.instruction)
    return named.name if named else event.name


def _first_link(agent: AiAgent, trigger: Trigger) -> Chain | None:
    if trigger.next is None:
        return None
    return Chain(id=str(uuid.uuid4()), path=(agent.spec.trigger_name,), next=trigger.next)


def _never_made(_: Job) -> bool:
    return False


@dataclass(frozen=True)
class JobNames:
    """Under which names a job may be stored, best first, and how it is known again where it was stored before.

    annotations: what it carries. made: whether a job that has one of the names is this one.
    """

    candidates: Sequence[str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    made: Callable[[Job], bool] = _never_made

    @property
    def are_found_again(self) -> bool:
        """Whether the same request, made again, has the same names."""
        return self.made is not _never_made


def fresh_names() -> JobNames:
    """Random ones, for a job that cannot have been made before."""
    return JobNames([new_job_id() for _ in range(NAME_TRIES)])

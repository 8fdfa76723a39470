"""The jobs that one event requests: one for each agent that it starts."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from labrats.index.catalog import Catalog
from labrats.intake.event_authorization import is_by_external_contributor
from labrats.intake.events import IncomingEvent, clone_url_of, git_ref_of, metadata_of, triggered_agents
from labrats.intake.job_names import JobNames, NamesOfAgent, random_names
from labrats.intake.request import JobRequest, RepoAddress
from labrats.model.agent import AiAgent, Trigger
from labrats.model.job import Chain, Job
from labrats.model.webhook_source import WebhookSource

AGENTS_ANNOTATION: Final = "labrats.work/event-agents"
"""Annotation on a job of an event that may come again: the names of all agents that the event started."""

CLONE_URL_FIELD: Final = "payload.repository.clone_url"


async def event_requests(
    event: IncomingEvent,
    catalog: Catalog,
    owner: str,
    webhook_source: WebhookSource | None = None,
) -> list[JobRequest]:
    """Return a request for each agent that the event starts. They differ in agent, trigger, type and chain."""
    agents = catalog.agents_by_trigger_name
    started = await _triggered(event, list(agents.values()), catalog)
    if webhook_source and (name := _agent_of_repository(event, webhook_source)):
        started = _only(agents.get(name), started)
    return [request_of(event, agent, trigger, catalog, owner, webhook_source) for agent, trigger in started]


async def _triggered(
    event: IncomingEvent, agents: Sequence[AiAgent], catalog: Catalog
) -> list[tuple[AiAgent, Trigger]]:
    """Return what `triggered_agents` does. A large event has many values, which each filter compares."""
    if not event.is_large:
        return triggered_agents(event, agents)
    async with catalog.comparing:
        return await asyncio.to_thread(triggered_agents, event, agents)


def request_of(
    event: IncomingEvent,
    agent: AiAgent,
    trigger: Trigger | None,
    catalog: Catalog,
    owner: str,
    webhook_source: WebhookSource | None,
) -> JobRequest:
    """Return the request for a job of `agent` about the event. trigger: gives its instruction, report and chain."""
    clone_url = clone_url_of(event)
    return JobRequest(
        source=event.source,
        type=type_of(event, trigger, catalog) if trigger else event.name,
        owner=owner,
        event=event,
        agent=agent,
        trigger=trigger,
        webhook_source=webhook_source,
        repo=RepoAddress(clone_url, CLONE_URL_FIELD) if clone_url else None,
        git_ref=git_ref_of(event) if clone_url else None,
        token_from=webhook_source.spec.credentials_ref if webhook_source else None,
        chain=_first_link(agent, trigger) if trigger else None,
        concurrency=trigger.concurrency if trigger else None,
        untrusted=webhook_source is not None and is_by_external_contributor(event, webhook_source.spec),
        metadata=metadata_of(event),
    )


def _agent_of_repository(event: IncomingEvent, source: WebhookSource) -> str | None:
    """Return the `triggerName` of the agent that a webhook source names for the event's repository, if any."""
    override = source.spec.override_of(event.text("repository", "full_name"))
    return override.agent_trigger_name if override else None


def _only(agent: AiAgent | None, started: Sequence[tuple[AiAgent, Trigger]]) -> list[tuple[AiAgent, Trigger]]:
    """Return `agent` instead of the agents that the event starts, with its own matching trigger if it has one.

    Triggers still decide whether the event starts any agent.
    """
    if agent is None or not agent.spec.enabled or not started:
        return []
    own = [trigger for each, trigger in started if each is agent]
    return [(agent, own[0] if own else started[0][1])]


def type_of(event: IncomingEvent, trigger: Trigger, catalog: Catalog) -> str:
    """Return the type of an event's job: the name of the trigger's instruction, or else the name of the event."""
    named = trigger.instruction and catalog.instruction(trigger.instruction)
    return named.name if named else event.name


def _first_link(agent: AiAgent, trigger: Trigger) -> Chain | None:
    if trigger.next is None:
        return None
    return Chain(id=str(uuid.uuid4()), path=(agent.spec.trigger_name,), next=trigger.next)


def agent_name(request: JobRequest) -> str:
    """Return the name of the agent that an event has started."""
    assert request.agent is not None, "an event starts agents"
    return request.agent.name


def missing_requests(requests: Sequence[JobRequest], stored: Mapping[str, Job]) -> Sequence[JobRequest]:
    """Return the requests whose jobs are missing.

    stored: jobs of the same event from an earlier call, by agent name. Only agents that the event started at that time
    get a job.
    """
    if not stored:
        return requests
    first = next(iter(stored.values()))
    started = set(first.metadata.annotations.get(AGENTS_ANNOTATION, "").split(","))
    return [each for each in requests if agent_name(each) in started - stored.keys()]


def names_for(requests: Sequence[JobRequest], names_of: NamesOfAgent | None) -> list[JobNames]:
    """Return the names for each request's job. names_of: None for an event that cannot come again."""
    if names_of is None:
        return [random_names() for _ in requests]
    started = {AGENTS_ANNOTATION: ",".join(map(agent_name, requests))}
    names = [names_of(agent_name(each)) for each in requests]
    return [replace(each, annotations={**each.annotations, **started}) for each in names]

"""Jobs of deliveries: the controller compares each with the agent and the source that are stored.

On a cluster a receiver of webhooks creates them, which faces the internet. The API server's policies make sure that it
creates no other kind of job; they cannot read the agent.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace as with_fields
from typing import Any

from msgspec.structs import fields, replace

from labrats.index.catalog import Catalog
from labrats.intake.event_requests import request_of
from labrats.intake.events import METADATA, IncomingEvent, listens_to
from labrats.intake.job_spec import PreparedJob, spec_of
from labrats.intake.request import JobRequest
from labrats.intake.validation import enabled_agent
from labrats.model.agent import AiAgent, Trigger
from labrats.model.config import ResolvedConfig
from labrats.model.errors import Invalid, Problem
from labrats.model.job import OWNER_PREFIX, Job, JobSpec, WorkspaceSetup, git_secret_name
from labrats.model.report import ReportTarget
from labrats.model.webhook_source import GITHUB, WebhookSource


def delivered_requests(job: Job, catalog: Catalog) -> Sequence[JobRequest]:
    """Return a request for each trigger by which a delivery may have started the job. Raises Invalid if none may have.

    The event itself is not stored: a trigger counts if it is for the event's source and name, whatever its filters say.
    """
    name = job.spec.owner.removeprefix(OWNER_PREFIX)
    source = catalog.webhook_source(name)
    if source is None or not source.spec.enabled:
        raise Invalid(Problem("owner", f"names the webhook source {name!r}, which is missing or disabled"))
    agent = enabled_agent(job.spec.agent_role or "", catalog)
    event = _described_event(job, source)
    requests = [
        with_fields(
            request_of(event, agent, trigger, catalog, job.spec.owner, source),
            untrusted=job.spec.untrusted,
            metadata=job.spec.metadata,
            concurrency=None,
        )
        for trigger in _triggers(agent, event, source, catalog)
    ]
    if not requests:
        raise Invalid(Problem("agentRole", f"the agent {agent.name!r} has no trigger for {event.name} of {name!r}"))
    return requests


def settings_of_delivered(
    job: Job, requests: Sequence[JobRequest], prepare: Callable[[JobRequest], PreparedJob]
) -> ResolvedConfig:
    """Return the settings that the agent and the source give the job. Raises Invalid if its spec has other values.

    Where several triggers give the same spec, the job's own settings decide between them.
    """
    found, problem = [], None
    for request in requests:
        try:
            prepared = prepare(request)
            _check_spec(job.spec, _delivered_spec(job, prepared), prepared)
        except Invalid as error:
            problem = problem or error
        else:
            found.append(prepared.resolved)
    if not found:
        assert problem is not None, "there is a request"
        raise problem
    return job.spec.resolved if job.spec.resolved in found else found[0]


def _described_event(job: Job, source: WebhookSource) -> IncomingEvent:
    """Return an event with what the job's spec tells of it."""
    setup, metadata = job.spec.workspace_setup, job.spec.metadata
    repository: dict[str, Any] = {"full_name": metadata.get("repo")}
    if setup:
        repository |= {"clone_url": setup.git_repo, "default_branch": setup.git_ref}
    name = metadata.get("event")
    of = GITHUB if source.spec.type == GITHUB else source.name
    return IncomingEvent(of, name if isinstance(name, str) else "", {"repository": repository}, size=0)


def _triggers(agent: AiAgent, event: IncomingEvent, source: WebhookSource, catalog: Catalog) -> Iterator[Trigger]:
    """Yield the triggers that may have started the agent.

    They are its own, and those of all agents if the source names the agent for the repository.
    """
    override = source.spec.override_of(event.text("repository", "full_name"))
    chosen = override.agent_trigger_name if override else None
    if (override and not override.enabled) or chosen not in (None, agent.spec.trigger_name):
        return
    for each in catalog.agents if chosen else [agent]:
        for trigger in each.spec.event_triggers:
            if each.spec.enabled and trigger.ci_loop is None and listens_to(trigger, event.source, event.name):
                yield trigger


def _delivered_spec(job: Job, prepared: PreparedJob) -> JobSpec:
    """Return the spec of a prepared job, with the values of `job` where they come from the event alone."""
    spec, trigger = job.spec, prepared.request.trigger
    expected = spec_of(prepared, job.id, ())
    chain, concurrency, report = expected.chain, trigger and trigger.concurrency, expected.report
    return replace(
        expected,
        chain=replace(chain, id=spec.chain.id) if chain and spec.chain else chain,
        concurrency=replace(concurrency, key=spec.concurrency.key) if concurrency and spec.concurrency else concurrency,
        report=replace(report, target=_target(report.target, spec)) if report else None,
        workspace_setup=_setup(job, expected.workspace_setup),
        metadata={name: value for name, value in spec.metadata.items() if name in METADATA},
    )


def _setup(job: Job, expected: WorkspaceSetup | None) -> WorkspaceSetup | None:
    """Return the setup of the workspace, with the job's own Secret if the event's address had a credential."""
    own, setup = git_secret_name(job.id), job.spec.workspace_setup
    return replace(expected, credentials_ref=own) if expected and setup and setup.credentials_ref == own else expected


def _target(expected: ReportTarget | None, spec: JobSpec) -> ReportTarget | None:
    """Return the target of the job's report, in the repository and by the source that are expected."""
    target = spec.report.target if spec.report else None
    return replace(target, repository=expected.repository, source=expected.source) if target and expected else expected


def _check_spec(spec: JobSpec, expected: JobSpec, prepared: PreparedJob) -> None:
    """Raise Invalid with a problem for each field that differs, except for the settings, which nobody reads."""
    assert prepared.agent is not None, "a delivery starts an agent"
    problem = f"is not as the agent {prepared.agent.name!r} and its triggers define it for an event"
    differing = (
        Problem(field.encode_name, problem)
        for field in fields(JobSpec)
        if field.name != "resolved" and getattr(spec, field.name) != getattr(expected, field.name)
    )
    if problems := [*differing]:
        raise Invalid(*problems)

"""Builders of records for tests. Each fills in the fields that the test is not about."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from labrats.model.agent import AiAgent, AiAgentSpec, Trigger
from labrats.model.ai_model import AiModel, AiModelSpec
from labrats.model.config import ConfigLayer, JobConfig, ResolvedConfig, resolve_config
from labrats.model.instruction import AiInstruction, AiInstructionSpec
from labrats.model.isolation import Isolation
from labrats.model.job import AgentSession, FailedCode, Job, JobSpec, JobStatus, Usage, new_job_ids
from labrats.model.phases import ENDED, Phase
from labrats.model.protocol import ErrorEvent, LogEvent, ResultEvent
from labrats.model.record import Metadata
from labrats.ports import Attempt, Gone, OutputTail
from tests.fakes.clock import NOON


def a_config(**settings: Any) -> ResolvedConfig:
    """Return resolved settings, by default for the mock provider. settings: fields of JobConfig."""
    return resolve_config([ConfigLayer("request", JobConfig(**{"provider": "mock"} | settings))])


def a_spec(steps: Sequence[Any] | None = None, *, config: dict[str, Any] | None = None, **fields: Any) -> JobSpec:
    """Return the spec of a submitted job. steps: the mock provider's script. fields: of JobSpec."""
    usual: dict[str, Any] = {
        "source": "manual",
        "type": "code-review",
        "prompt": "Review the change.",
        "resolved": a_config(**(config or {})),
        "metadata": {} if steps is None else {"mock": {"steps": list(steps)}},
    }
    return JobSpec(**usual | fields)


def an_applied_spec(steps: Sequence[Any] | None = None, **fields: Any) -> JobSpec:
    """Return the spec of a job applied with kubectl, whose settings are not resolved yet. fields: of JobSpec."""
    usual: dict[str, Any] = {"source": "kubectl", "config": JobConfig(provider="mock"), "resolved": None}
    return replace(a_spec(steps), **usual | fields)


def a_job(
    phase: Phase = Phase.PENDING,
    *,
    job_id: str | None = None,
    spec: JobSpec | None = None,
    created_at: datetime = NOON,
    resource_version: str = "1",
    **status: Any,
) -> Job:
    """Return a job in `phase`. Unless it is Pending, it has had one attempt. status: fields of JobStatus."""
    usual: dict[str, Any] = {"phase": phase}
    if phase is not Phase.PENDING:
        usual |= {"attempts": 1, "started_at": created_at, "slot": "mock/mock"}
    if phase in ENDED:
        usual |= {"finished_at": created_at + timedelta(minutes=1)}
    return Job(
        metadata=Metadata(name=job_id or new_job_ids(1)[0], created_at=created_at, resource_version=resource_version),
        spec=spec or a_spec(),
        status=JobStatus(**usual | status),
    )


def isolated(attempt: Attempt, level: Isolation | None) -> Attempt:
    """Return the attempt of a job that gets this isolation; None for a job of an earlier version."""
    job = attempt.job
    resolved = replace(job.resolved, isolation=level)
    return dataclasses.replace(attempt, job=replace(job, spec=replace(job.spec, resolved=resolved)))


def an_attempt(steps: Sequence[Any] | None = None, *, job_id: str | None = None, number: int = 1) -> Attempt:
    """Return an attempt of a new Running job whose script is `steps`."""
    return Attempt(a_job(Phase.RUNNING, job_id=job_id, spec=a_spec(steps), attempts=number))


def an_ai_model(
    name: str = "mock-1", *, provider: str = "mock", model: str = "mock", slots: int = 1, **fields: Any
) -> AiModel:
    """Return a model, by default the one that jobs with `a_config()` run on. fields: of AiModelSpec."""
    return AiModel(
        metadata=Metadata(name=name), spec=AiModelSpec(provider=provider, model=model, slots=slots, **fields)
    )


def a_trigger(*events: str, source: str = "github", **fields: Any) -> Trigger:
    """Return a trigger for `events`, by default `issues.labeled`. fields: of Trigger."""
    return Trigger(source=source, events=events or ("issues.labeled",), **fields)


def an_agent(name: str = "ai-developer", *triggers: Trigger, created_at: datetime = NOON, **fields: Any) -> AiAgent:
    """Return an agent whose trigger name is its own name. fields: of AiAgentSpec."""
    spec = AiAgentSpec(**{"trigger_name": name, "event_triggers": triggers} | fields)
    return AiAgent(
        metadata=Metadata(name=name, uid=f"uid-{name}", resource_version="1", created_at=created_at), spec=spec
    )


def an_instruction(name: str = "implement", content: str = "Do it well.", **fields: Any) -> AiInstruction:
    """Return an instruction. fields: of AiInstructionSpec."""
    metadata = Metadata(name=name, uid=f"uid-{name}", resource_version="1")
    return AiInstruction(metadata=metadata, spec=AiInstructionSpec(content=content, **fields))


def a_log(seq: int = 1, text: str = "tick", at: datetime = NOON) -> LogEvent:
    return LogEvent(seq=seq, at=at, text=text)


def a_result(result: Any = "done", *, seq: int = 1, at: datetime = NOON, **fields: Any) -> ResultEvent:
    return ResultEvent(seq=seq, at=at, result=result, **fields)


def an_error(
    code: FailedCode = FailedCode.AGENT_ERROR,
    message: str = "it broke",
    *,
    seq: int = 1,
    at: datetime = NOON,
    **fields: Any,
) -> ErrorEvent:
    return ErrorEvent(seq=seq, at=at, code=code, message=message, **fields)


def a_session(attempt: int = 1, *, provider: str = "mock", session_id: str = "0190-test") -> AgentSession:
    """Return a session that began in the given attempt."""
    return AgentSession(provider=provider, id=session_id, attempt=attempt)


def gone_with(
    outcome: ResultEvent | ErrorEvent | None,
    *,
    usage: Usage | None = None,
    session: AgentSession | None = None,
    **fields: Any,
) -> Gone:
    """Return an ended attempt with its outcome, usage and session. fields: of Gone."""
    return Gone(outcome, tail=OutputTail(usage=usage or Usage(), session=session), **fields)

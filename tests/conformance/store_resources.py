"""Builders of resources for the tests of stores, and helpers that write and wait."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from msgspec.structs import replace

from labrats.model.ai_model import AiModel, AiModelSpec, Prices
from labrats.model.config import ConfigLayer, JobConfig, resolve_config
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import Conflict
from labrats.model.job import (
    AgentSession,
    FailedCode,
    Job,
    JobSpec,
    JobStatus,
    KeyReference,
    Outputs,
    Usage,
    WorkspaceSetup,
)
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from labrats.ports import Store
from tests.support.watch_recorder import record_watch

R = TypeVar("R", bound=Resource)


async def until_gone(store: Store, kind: type[R], name: str) -> None:
    """Wait until the resource is deleted."""
    async with record_watch(store, kind) as seen:
        await seen.until(lambda: seen.synced and name not in seen.current)


async def add_a_slot(store: Store, name: str) -> None:
    """Increment the number of slots; read again after a conflict."""
    while True:
        model = await store.get(AiModel, name)
        try:
            await store.update(with_slots(model, model.spec.slots + 1))
        except Conflict:
            continue
        return


def a_model(name: str, *, slots: int = 1) -> AiModel:
    spec = AiModelSpec(provider="mock", model=name, slots=slots, prices=Prices(input=0.25))
    return AiModel(metadata=Metadata(name=name), spec=spec)


def with_name(model: AiModel, name: str) -> AiModel:
    return replace(model, metadata=Metadata(name=name))


def with_slots(model: AiModel, slots: int) -> AiModel:
    return replace(model, spec=replace(model.spec, slots=slots))


def a_job(name: str) -> Job:
    return Job(metadata=Metadata(name=name), spec=JobSpec(source="manual", type="code-review", prompt="Review this."))


def a_prompt(name: str, text: str = "Review this.") -> ConfigMap:
    return ConfigMap(metadata=Metadata(name=name), data={"prompt": text})


def a_secret(name: str, labels: dict[str, str] | None = None) -> Secret:
    return Secret(metadata=Metadata(name=name, labels=labels or {}), data={"password": "test-secret-password"})


def a_finished_job(name: str) -> Job:
    """Return a job with a value in every field."""
    config = JobConfig(provider="claude", model="opus", effort="high", fast=True, timeout_ms=60_000, max_cost_usd=1.5)
    noon = datetime(2030, 1, 2, 12, 0, 0, tzinfo=UTC)
    metadata: dict[str, Any] = {"repo": "octo/rats", "nested": {"list": [1, 2.5, None, True, "ü"]}, "": ""}
    return Job(
        metadata=Metadata(name=name, labels={"team": "red"}, annotations={"note": "by hand"}),
        spec=JobSpec(
            source="github",
            type="implement-issue",
            prompt_ref=KeyReference(name=f"{name}-prompt", key="prompt"),
            priority=1.5,
            workspace_setup=WorkspaceSetup(
                git_repo="https://git.example/rats.git", git_ref="main", git_depth=1, credentials_ref=f"{name}-git"
            ),
            config=config,
            resolved=resolve_config([ConfigLayer("request", config)]),
            result_schema={"$ref": "#/$defs/risk", "$defs": {"risk": {"type": ["integer", "null"]}}},
            metadata=metadata,
            owner="key-1",
        ),
        status=JobStatus(
            phase=Phase.FAILED,
            attempts=2,
            slot="opus",
            started_at=noon,
            deadline_at=noon + timedelta(hours=1),
            finished_at=noon + timedelta(minutes=5),
            not_before=noon - timedelta(minutes=1),
            cancel_requested_at=noon + timedelta(minutes=4),
            failed_code=FailedCode.AGENT_ERROR,
            failed_reason="the agent gave up",
            result={"found": ["a", "b"]},
            result_cut=True,
            result_data={"risk": 2.5, "": [None, {}]},
            logs=("one", "two ü"),
            usage=Usage(input_tokens=10, output_tokens=5, cache_read_tokens=1, cost_usd=0.01, turns=2),
            outputs=Outputs(branch="rats/1", commit="c0ffee", pull_request_url="https://git.example/rats/pulls/1"),
            session=AgentSession(provider="claude", id="0b6c7c5e-3f0a-4b7e-9c55-3d1f6a2b8e90", attempt=1),
        ),
    )

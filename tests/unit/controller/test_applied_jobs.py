"""Jobs applied with kubectl: the controller resolves them, and they run like submitted jobs."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.applied_jobs import NEW_FOR
from labrats.intake.applied import INLINE_PROMPT_BYTES
from labrats.model.agent import AiAgent
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig, AiConfigSpec, ProviderConfig
from labrats.model.concurrency import Concurrency
from labrats.model.config import JobConfig
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import NotFound
from labrats.model.instruction import Scope
from labrats.model.job import (
    FailedCode,
    Job,
    KeyReference,
    retried,
)
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.variables import SecretKey
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from tests.fakes.clock import NOON
from tests.support.builders import a_job, an_agent, an_applied_spec, an_instruction
from tests.unit.controller.lab import Lab

P = Phase


async def apply(lab: Lab, steps: list[Any] | None = None, **fields: Any) -> Job:
    """Create a job as kubectl does. fields: fields of JobSpec."""
    return await lab.store.create(a_job(spec=an_applied_spec(steps, **fields), resource_version=""))


async def texts_at(lab: Lab, ref: KeyReference | None) -> str:
    assert ref
    return (await lab.store.get(ConfigMap, ref.name)).data[ref.key]


async def failed_reason(lab: Lab, **fields: Any) -> str:
    """Return why a job with these fields fails before its first attempt."""
    async with lab.controller():
        ended = await lab.ended(await apply(lab, **fields))
    assert (ended.phase, ended.status.failed_code, ended.status.attempts) == (P.FAILED, FailedCode.INVALID, 0)
    return ended.status.failed_reason or ""


# Settings and texts


async def test_an_applied_job_runs_and_stores_its_settings_in_its_status(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await apply(lab, [{"result": 42}]))
    assert (ended.phase, ended.status.result, ended.spec.resolved) == (P.SUCCEEDED, 42, None)
    assert ended.status.resolved == ended.resolved
    assert (ended.resolved.max_turns, ended.resolved.origins["maxTurns"]) == (25, "built-in")


async def test_an_applied_job_gets_the_defaults_of_its_agent_and_of_the_engine(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", default_provider="mock", default_effort="high"))
    config = AiConfigSpec(providers={"mock": ProviderConfig(model="big")}, executor_image="executor:2")
    await lab.store.create(AiConfig(metadata=Metadata(name=AI_CONFIG_NAME), spec=config))
    async with lab.controller():
        ended = await lab.ended(await apply(lab, agent_role="developer", config=JobConfig(max_turns=3)))
    config_of_job, origins = ended.resolved.config, ended.resolved.origins
    assert (ended.phase, ended.status.slot) == (P.SUCCEEDED, "mock/big")
    assert (config_of_job.effort, config_of_job.executor_image, config_of_job.max_turns) == ("high", "executor:2", 3)
    assert (origins["provider"], origins["model"], origins["maxTurns"]) == (
        "agent",
        "ai-config.providers.mock",
        "request",
    )


async def test_a_secret_that_becomes_that_of_a_source_is_refused_at_the_start(lab: Lab) -> None:
    source = WebhookSourceSpec(type="github", credentials_ref="app")
    config = JobConfig(provider="mock", env={"A": SecretKey(secret="app", key="token")})
    async with lab.controller():
        job = await apply(lab, config=config, concurrency=Concurrency(key="later", debounce_seconds=60))
        await asyncio.sleep(1)
        assert (await lab.job(job)).is_resolved
        await lab.store.create(WebhookSource(metadata=Metadata(name="github"), spec=source))
        ended = await lab.ended(job)
    assert (ended.status.failed_code, ended.status.attempts) == (FailedCode.AUTH, 1)
    assert "config.env.A: must not name 'app'" in (ended.status.failed_reason or "")


async def test_the_stored_instructions_of_an_applied_job_are_deleted_with_it(lab: Lab) -> None:
    await lab.store.create(an_instruction("rules", "Be kind.", scope=Scope.GLOBAL))
    await lab.store.create(an_instruction("implement", "Mend {{ metadata.repo }}."))
    await lab.store.create(an_agent("developer", instructions=("implement",)))
    async with lab.controller():
        job = await apply(lab, agent_role="developer", metadata={"repo": "octo/rats"})
        ended = await lab.ended(job)
        text = await texts_at(lab, ended.instructions_ref)
        await lab.store.delete(Job, job.id)
    assert text.startswith("Text between <data-")
    assert "Be kind.\n\nMend <data-" in text
    assert ">octo/rats<" in text
    assert ended.instructions_ref
    with pytest.raises(NotFound):
        await lab.store.get(ConfigMap, ended.instructions_ref.name)


async def test_an_applied_job_waits_for_a_slot_of_its_resolved_model(lab: Lab) -> None:
    await lab.set_slots(1, model="big")
    await lab.store.create(an_agent("developer", default_model="big"))
    async with lab.controller():
        first = await apply(lab, [{"sleepMs": 60_000}], agent_role="developer")
        second = await apply(lab, agent_role="developer", priority=1)
        await lab.started(first)
        assert (await lab.ended(second)).status.started_at == (await lab.ended(first)).status.finished_at


async def test_a_prompt_too_long_for_a_pod_is_stored_in_a_config_map(lab: Lab) -> None:
    long = "Rats! " * INLINE_PROMPT_BYTES
    async with lab.controller():
        job, short = await apply(lab, prompt=long), await apply(lab, prompt="Rats!")
        assert await texts_at(lab, (await lab.ended(job)).prompt_ref) == long
        assert (await lab.ended(short)).prompt_ref is None


async def test_an_applied_job_is_resolved_once_although_the_leader_changes(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", default_model="old"))
    async with lab.controller():
        job = await apply(lab, [{"sleepMs": 60_000}], agent_role="developer")
        await lab.started(job)
    agent = await lab.store.get(AiAgent, "developer")
    await lab.store.update(replace(agent, spec=replace(agent.spec, default_model="new")))
    async with lab.controller():
        assert (await lab.ended(job)).resolved.model == "old"


async def test_a_job_applied_before_the_engine_started_is_resolved(lab: Lab) -> None:
    job = await apply(lab)
    async with lab.controller():
        assert (await lab.ended(job)).status.resolved


# Resources applied together arrive in any order


async def test_the_agent_may_be_applied_after_its_job(lab: Lab) -> None:
    async with lab.controller():
        job = await apply(lab, agent_role="developer")
        await lab.clock.sleep(2)
        await lab.store.create(an_agent("developer", default_model="big"))
        ended = await lab.ended(job)
    assert (ended.phase, ended.resolved.model) == (P.SUCCEEDED, "big")


async def test_an_instruction_of_the_agent_may_be_applied_after_the_job(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", instructions=("implement",)))
    async with lab.controller():
        job = await apply(lab, agent_role="developer")
        await lab.clock.sleep(2)
        await lab.store.create(an_instruction("implement", "Do it well."))
        assert await texts_at(lab, (await lab.ended(job)).instructions_ref) == "Do it well."


async def test_a_missing_instruction_is_ignored_after_the_grace_period(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", instructions=("implement",)))
    async with lab.controller():
        ended = await lab.ended(await apply(lab, agent_role="developer"))
    assert (ended.phase, ended.instructions_ref) == (P.SUCCEEDED, None)


# Invalid jobs


async def test_a_missing_agent_fails_the_job_after_the_grace_period(lab: Lab) -> None:
    reason = await failed_reason(lab, agent_role="nobody")
    assert reason == "agentRole: no agent has the `triggerName` 'nobody'"
    assert lab.clock.now() >= NOON + NEW_FOR


async def test_a_disabled_agent_fails_the_job(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", enabled=False))
    assert "agentRole: the agent 'developer' is disabled" in await failed_reason(lab, agent_role="developer")


async def test_an_invalid_mock_script_fails_the_job(lab: Lab) -> None:
    reason = await failed_reason(lab, metadata={"mock": {"steps": [{"sing": "la"}]}})
    assert reason.startswith("metadata.mock.steps")


async def test_an_invalid_job_can_be_retried_once_its_agent_exists(lab: Lab) -> None:
    async with lab.controller():
        failed = await lab.ended(await apply(lab, agent_role="developer"))
        await lab.store.create(an_agent("developer"))
        await lab.store.update(retried(failed))
        assert (await lab.reaches(failed, P.SUCCEEDED)).status.resolved


async def test_a_job_that_waits_for_its_agent_can_be_cancelled(lab: Lab) -> None:
    async with lab.controller():
        job = await apply(lab, agent_role="nobody")
        await lab.clock.sleep(1)
        await lab.cancel(job)
        await lab.clock.sleep(2 * NEW_FOR.total_seconds())
        assert (await lab.job(job)).phase is P.CANCELLED

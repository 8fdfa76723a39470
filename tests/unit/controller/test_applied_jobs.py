"""Jobs that people wrote as resources: the same as submitted ones, though nobody resolved them before."""

from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.applied_jobs import NEW_FOR
from labrats.intake.applied import INLINE_PROMPT_BYTES
from labrats.model.agent import AiAgent
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfig, AiConfigSpec, ProviderConfig
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
from tests.fakes.clock import NOON
from tests.support.builders import a_job, an_agent, an_applied_spec, an_instruction
from tests.unit.controller.lab import Lab

P = Phase


async def write(lab: Lab, steps: list[Any] | None = None, **fields: Any) -> Job:
    """A job that a person has just written. fields: of JobSpec."""
    return await lab.store.create(a_job(spec=an_applied_spec(steps, **fields), resource_version=""))


async def texts_at(lab: Lab, ref: KeyReference | None) -> str:
    assert ref
    return (await lab.store.get(ConfigMap, ref.name)).data[ref.key]


async def why_it_fails(lab: Lab, **fields: Any) -> str:
    """What a job with these fields is told, which never started."""
    async with lab.controller():
        ended = await lab.ended(await write(lab, **fields))
    assert (ended.phase, ended.status.failed_code, ended.status.attempts) == (P.FAILED, FailedCode.INVALID, 0)
    return ended.status.failed_reason or ""


# What it gets


async def test_it_runs_and_keeps_the_settings_that_it_ran_with(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await write(lab, [{"result": 42}]))
    assert (ended.phase, ended.status.result, ended.spec.resolved) == (P.SUCCEEDED, 42, None)
    assert ended.status.resolved == ended.resolved
    assert (ended.resolved.max_turns, ended.resolved.origins["maxTurns"]) == (25, "built-in")


async def test_it_gets_the_defaults_of_its_agent_and_of_the_engine(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", default_provider="mock", default_effort="high"))
    config = AiConfigSpec(providers={"mock": ProviderConfig(model="big")}, executor_image="executor:2")
    await lab.store.create(AiConfig(metadata=Metadata(name=AI_CONFIG_NAME), spec=config))
    async with lab.controller():
        ended = await lab.ended(await write(lab, agent_role="developer", config=JobConfig(max_turns=3)))
    config_of_job, origins = ended.resolved.config, ended.resolved.origins
    assert (ended.phase, ended.status.slot) == (P.SUCCEEDED, "mock/big")
    assert (config_of_job.effort, config_of_job.executor_image, config_of_job.max_turns) == ("high", "executor:2", 3)
    assert (origins["provider"], origins["model"], origins["maxTurns"]) == (
        "agent",
        "ai-config.providers.mock",
        "request",
    )


async def test_it_gets_the_instructions_of_its_agent_and_they_go_when_it_goes(lab: Lab) -> None:
    await lab.store.create(an_instruction("rules", "Be kind.", scope=Scope.GLOBAL))
    await lab.store.create(an_instruction("implement", "Mend {{ metadata.repo }}."))
    await lab.store.create(an_agent("developer", instructions=("implement",)))
    async with lab.controller():
        job = await write(lab, agent_role="developer", metadata={"repo": "octo/rats"})
        ended = await lab.ended(job)
        text = await texts_at(lab, ended.instructions_ref)
        await lab.store.delete(Job, job.id)
    assert text.startswith("Text between <data-")
    assert "Be kind.\n\nMend <data-" in text
    assert ">octo/rats<" in text
    assert ended.instructions_ref
    with pytest.raises(NotFound):
        await lab.store.get(ConfigMap, ended.instructions_ref.name)


async def test_it_waits_for_a_slot_of_the_model_that_its_settings_come_to(lab: Lab) -> None:
    await lab.set_slots(1, model="big")
    await lab.store.create(an_agent("developer", default_model="big"))
    async with lab.controller():
        first = await write(lab, [{"sleepMs": 60_000}], agent_role="developer")
        second = await write(lab, agent_role="developer", priority=1)
        await lab.started(first)
        assert (await lab.ended(second)).status.started_at == (await lab.ended(first)).status.finished_at


async def test_a_prompt_too_long_for_a_pod_is_brought_to_it(lab: Lab) -> None:
    long = "Rats! " * INLINE_PROMPT_BYTES
    async with lab.controller():
        job, short = await write(lab, prompt=long), await write(lab, prompt="Rats!")
        assert await texts_at(lab, (await lab.ended(job)).prompt_ref) == long
        assert (await lab.ended(short)).prompt_ref is None


async def test_it_is_resolved_once_whoever_leads(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", default_model="old"))
    async with lab.controller():
        job = await write(lab, [{"sleepMs": 60_000}], agent_role="developer")
        await lab.started(job)
    agent = await lab.store.get(AiAgent, "developer")
    await lab.store.update(replace(agent, spec=replace(agent.spec, default_model="new")))
    async with lab.controller():
        assert (await lab.ended(job)).resolved.model == "old"


async def test_one_that_waited_before_the_engine_came_is_resolved_too(lab: Lab) -> None:
    job = await write(lab)
    async with lab.controller():
        assert (await lab.ended(job)).status.resolved


# What is applied together comes in any order


async def test_its_agent_may_come_after_it(lab: Lab) -> None:
    async with lab.controller():
        job = await write(lab, agent_role="developer")
        await lab.clock.sleep(2)
        await lab.store.create(an_agent("developer", default_model="big"))
        ended = await lab.ended(job)
    assert (ended.phase, ended.resolved.model) == (P.SUCCEEDED, "big")


async def test_an_instruction_of_its_agent_may_come_after_it(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", instructions=("implement",)))
    async with lab.controller():
        job = await write(lab, agent_role="developer")
        await lab.clock.sleep(2)
        await lab.store.create(an_instruction("implement", "Do it well."))
        assert await texts_at(lab, (await lab.ended(job)).instructions_ref) == "Do it well."


async def test_an_instruction_that_never_comes_is_passed_over(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", instructions=("implement",)))
    async with lab.controller():
        ended = await lab.ended(await write(lab, agent_role="developer"))
    assert (ended.phase, ended.instructions_ref) == (P.SUCCEEDED, None)


# What makes no sense


async def test_an_agent_that_never_comes_fails_it_after_a_while(lab: Lab) -> None:
    reason = await why_it_fails(lab, agent_role="nobody")
    assert reason == "the job is invalid: agentRole: names no agent: it must be the `triggerName` of one"
    assert lab.clock.now() >= NOON + NEW_FOR


async def test_an_agent_that_is_switched_off_takes_no_job(lab: Lab) -> None:
    await lab.store.create(an_agent("developer", enabled=False))
    assert "agentRole: the agent 'developer' is disabled" in await why_it_fails(lab, agent_role="developer")


async def test_a_script_that_makes_no_sense_fails_it(lab: Lab) -> None:
    reason = await why_it_fails(lab, metadata={"mock": {"steps": [{"sing": "la"}]}})
    assert reason.startswith("the job is invalid: metadata.mock.steps")


async def test_one_that_failed_so_can_be_retried_when_what_it_lacked_is_there(lab: Lab) -> None:
    async with lab.controller():
        failed = await lab.ended(await write(lab, agent_role="developer"))
        await lab.store.create(an_agent("developer"))
        await lab.store.update(retried(failed))
        assert (await lab.reaches(failed, P.SUCCEEDED)).status.resolved


async def test_one_that_waits_for_its_agent_can_be_cancelled(lab: Lab) -> None:
    async with lab.controller():
        job = await write(lab, agent_role="nobody")
        await lab.clock.sleep(1)
        await lab.cancel(job)
        await lab.clock.sleep(2 * NEW_FOR.total_seconds())
        assert (await lab.job(job)).phase is P.CANCELLED

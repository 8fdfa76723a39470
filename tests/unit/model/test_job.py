"""What a job knows about itself, and the slots it competes for."""

import re

from labrats.model.ai_model import Slots, slots_for
from labrats.model.attempt_name import AttemptName
from labrats.model.config import JobConfig
from labrats.model.job import PERMANENT, FailedCode, JobSpec, Usage, new_job_id
from labrats.model.phases import Phase
from tests.support.builders import a_job, a_spec, an_ai_model


def test_a_name_is_ir_and_8_hex_digits_and_fresh() -> None:
    names = {new_job_id() for _ in range(1000)}
    assert len(names) == 1000
    assert all(re.fullmatch("ir-[0-9a-f]{8}", name) for name in names)


def test_an_attempt_is_named_by_job_and_number() -> None:
    assert a_job(Phase.RUNNING, job_id="ir-0000000a", attempts=3).attempt_name == AttemptName("ir-0000000a", 3)


def test_a_job_without_recorded_settings_resolves_its_own() -> None:
    """As an InferenceRequest written by hand is."""
    job = a_job(spec=JobSpec(source="kubectl", type="code-review", config=JobConfig(provider="codex")))
    assert (job.resolved.provider, job.resolved.model) == ("codex", "codex")


def test_a_failure_that_needs_a_person_is_not_repeated() -> None:
    assert {FailedCode.AUTH, FailedCode.QUOTA, FailedCode.MODEL_NOT_FOUND} <= PERMANENT


def test_usage_adds_up_field_by_field() -> None:
    one = Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cost_usd=0.25, turns=4)
    assert one + one == Usage(input_tokens=2, output_tokens=4, cache_read_tokens=6, cost_usd=0.5, turns=8)
    assert one + Usage() == one


def test_usage_that_no_run_can_have_is_brought_within_reason() -> None:
    absurd = Usage(input_tokens=-1, output_tokens=10**30, cost_usd=-1e300, turns=-2)
    assert absurd.within_reason() == Usage(output_tokens=10**12, cost_usd=0.0)
    plain = Usage(input_tokens=1, cost_usd=0.25, turns=4, seconds=1.5)
    assert plain.within_reason() == plain


def test_a_job_takes_the_slots_of_the_model_it_resolves_to() -> None:
    job = a_job(spec=a_spec(config={"provider": "claude", "model": "opus"}))
    opus, sonnet = (an_ai_model(f"{name}-1", provider="claude", model=name, slots=3) for name in ("opus", "sonnet"))
    ai_models = {("claude", "opus"): opus, ("claude", "sonnet"): sonnet}
    assert slots_for(job, ai_models, 4) == Slots(name="opus-1", count=3, ai_model=opus)


def test_a_model_that_nobody_configured_has_implicit_slots_by_provider_and_model() -> None:
    job = a_job(spec=a_spec(config={"provider": "claude", "model": "opus"}))
    other = an_ai_model(provider="codex", model="opus")
    assert slots_for(job, {("codex", "opus"): other}, 4) == Slots(name="claude/opus", count=4)

"""Properties of a job, and the slots that it competes for."""

import re

from labrats.model.ai_model import Slots, slots_for
from labrats.model.attempt_name import AttemptName
from labrats.model.config import JobConfig
from labrats.model.job import PERMANENT, FailedCode, JobSpec, Usage, new_job_ids
from labrats.model.phases import Phase
from labrats.model.record import encode
from tests.support.builders import a_job, a_spec, an_ai_model


def test_a_job_id_is_ir_and_8_random_hex_digits() -> None:
    names = set(new_job_ids(1000))
    assert len(names) == 1000
    assert all(re.fullmatch("ir-[0-9a-f]{8}", name) for name in names)


def test_an_attempt_is_named_after_job_and_number() -> None:
    assert a_job(Phase.RUNNING, job_id="ir-0000000a", attempts=3).attempt_name == AttemptName("ir-0000000a", 3)


def test_an_unresolved_job_has_the_settings_that_it_requests() -> None:
    """An InferenceRequest applied with kubectl is unresolved at first."""
    job = a_job(spec=JobSpec(source="kubectl", type="code-review", config=JobConfig(provider="codex")))
    assert (job.resolved.provider, job.resolved.model) == ("codex", "codex")


def test_a_job_without_a_result_schema_is_stored_as_by_earlier_versions() -> None:
    assert b"result" not in encode(a_job(Phase.SUCCEEDED))
    assert (a_job().result_schema, a_job().status.result_data) == (None, None)


def test_failures_that_would_recur_are_permanent() -> None:
    assert {FailedCode.AUTH, FailedCode.QUOTA, FailedCode.MODEL_NOT_FOUND} <= PERMANENT


def test_usage_adds_up_field_by_field() -> None:
    one = Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cost_usd=0.25, turns=4)
    assert one + one == Usage(input_tokens=2, output_tokens=4, cache_read_tokens=6, cost_usd=0.5, turns=8)
    assert one + Usage() == one


def test_impossible_usage_is_clamped() -> None:
    absurd = Usage(input_tokens=-1, output_tokens=10**30, cost_usd=-1e300, turns=-2)
    assert absurd.clamped() == Usage(output_tokens=10**12, cost_usd=0.0)
    plain = Usage(input_tokens=1, cost_usd=0.25, turns=4, seconds=1.5)
    assert plain.clamped() == plain


def test_a_job_competes_for_the_slots_of_its_resolved_model() -> None:
    job = a_job(spec=a_spec(config={"provider": "claude", "model": "opus"}))
    opus, sonnet = (an_ai_model(f"{name}-1", provider="claude", model=name, slots=3) for name in ("opus", "sonnet"))
    ai_models = {("claude", "opus"): opus, ("claude", "sonnet"): sonnet}
    assert slots_for(job, ai_models, 4) == Slots(name="opus-1", count=3, ai_model=opus)


def test_an_unconfigured_model_has_implicit_slots() -> None:
    job = a_job(spec=a_spec(config={"provider": "claude", "model": "opus"}))
    other = an_ai_model(provider="codex", model="opus")
    assert slots_for(job, {("codex", "opus"): other}, 4) == Slots(name="claude/opus", count=4)

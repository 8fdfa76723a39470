"""Tests of the example provider in docs/develop.md, which is extracted and run in a real attempt."""

import subprocess
import sys
from pathlib import Path

from labrats.model.config import JobConfig
from labrats.model.job import FailedCode, Usage
from tests.unit.executor.attempts import AttemptFolder, an_attempt

DEVELOP = Path(__file__).parents[4] / "docs" / "develop.md"

EXECUTOR_WITH_PARROT = """\
import sys
from pathlib import Path

import parrot_provider
from labrats.executor import attempt
from labrats.executor.providers import registry

registry.PROVIDERS["parrot"] = parrot_provider.run
sys.exit(attempt.execute(Path(sys.argv[1])))
"""


def run_example(tmp_path: Path, program: str, config: JobConfig | None = None) -> AttemptFolder:
    """Run the documented provider with a shell script as its program."""
    parrot = tmp_path / "parrot"
    parrot.write_text(f"#!/bin/sh\n{program}\n")
    parrot.chmod(0o700)
    (tmp_path / "parrot_provider.py").write_text(documented_provider())
    (tmp_path / "executor.py").write_text(EXECUTOR_WITH_PARROT)
    attempt = an_attempt(
        tmp_path,
        prompt="Say hello.",
        secrets={"PARROT_KEY": "test-parrot-key"},
        config=config or JobConfig(provider="parrot"),
        programs={"parrot": str(parrot)},
    )
    with attempt.output.open("wb") as output:
        subprocess.run([sys.executable, str(tmp_path / "executor.py"), str(attempt.path)], stdout=output, check=False)
    return attempt


def documented_provider() -> str:
    section = DEVELOP.read_text().partition("## Adding a provider")[2]
    return section.partition("```python\n")[2].partition("```")[0]


def test_example_logs_the_programs_output_and_returns_its_last_line(tmp_path: Path) -> None:
    program = """\
read prompt
echo '{"say": "I was asked: '"$prompt"'", "tokens": 3}'
echo 'not an event'
test "$PARROT_KEY" = test-parrot-key && echo '{"say": "Hello.", "tokens": 4}'"""

    attempt = run_example(tmp_path, program)

    assert attempt.result == "Hello."
    assert attempt.logs == ["I was asked: Say hello.", "Hello."]
    assert attempt.outcome.usage == Usage(output_tokens=7, turns=2)


def test_example_reports_the_reason_of_a_failed_program(tmp_path: Path) -> None:
    attempt = run_example(tmp_path, "echo no seeds >&2; exit 3")

    assert attempt.failure == (FailedCode.AGENT_ERROR, "Parrot exited with code 3: no seeds")


def test_example_ends_at_a_limit(tmp_path: Path) -> None:
    config = JobConfig(provider="parrot", max_tokens=5)

    attempt = run_example(tmp_path, """echo '{"say": "Hello.", "tokens": 6}'; sleep 300""", config)

    assert attempt.failure[0] is FailedCode.BUDGET

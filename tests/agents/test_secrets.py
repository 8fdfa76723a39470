"""Tests of secrets and untrusted repositories with the real agent programs."""

import base64
from pathlib import Path

import pytest

from labrats.model.provider_spec import provider_spec
from tests.agents.agent_cli import KEY, AgentCli, words
from tests.agents.claude import CLAUDE
from tests.agents.codex import CODEX
from tests.agents.conftest import Prepare
from tests.support.scripted_model import Says
from tests.unit.executor.attempts import a_repository, commit_all, in_a_clone_of


@pytest.mark.parametrize(("cli", "name"), [(cli, name) for cli in (CLAUDE, CODEX) for name in cli.key_names], ids=str)
def test_key_is_used_and_no_tool_can_read_it(
    cli: AgentCli, name: str, attempt_on: Prepare, unique_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Search the environments of tool and program, and all files."""
    monkeypatch.setenv("ENGINE_VARIABLE", "test-engine-secret")
    in_environments = "tr '\\0' '\\n' < /proc/$PPID/environ; env"
    in_files = f"grep -rls '{KEY[:-1]}[{KEY[-1]}]' .."  # the pattern does not match itself
    with cli.serve(cli.shell(f"{in_environments}; {in_files}; echo searched"), Says("ok")) as server:
        attempt = attempt_on(server, secrets={name: KEY})
        attempt.run()

    found = (attempt.tool_events[-1].output or "").splitlines()
    assert server.key == KEY
    assert {f"HOME={attempt.path}/home", f"LABRATS_ATTEMPT={unique_name}"} < set(found)
    assert found[-1] == "searched"
    variables = {line.partition("=")[0] for line in found}
    assert variables & {"ENGINE_VARIABLE", *provider_spec(cli.provider).keys} == set()
    assert [line for line in found if "[redacted]" in line or "../attempt" in line] == []
    assert KEY not in attempt.output.read_text()


@pytest.mark.parametrize(
    "command",
    [
        "echo {secret}",
        "printf {secret} | base64",
        "printf {secret} | od -An -v -tx1 | tr -d ' \\n'",
        "set -x; : {secret}",
    ],
)
def test_secret_printed_by_a_tool_is_redacted(cli: AgentCli, attempt_on: Prepare, command: str) -> None:
    """Check the tool's output and the program's report of the call."""
    secret = "test-git-token-0123456789"
    encoded = (secret, base64.b64encode(secret.encode()).decode().rstrip("="), secret.encode().hex())
    with cli.serve(cli.shell(command.format(secret=secret)), Says(f"It is {secret}.")) as server:
        attempt = attempt_on(server, secrets=cli.secrets | {"git-password": secret})
        attempt.run()

    assert attempt.result == "It is [redacted]."
    assert "[redacted]" in (attempt.tool_events[-1].output or "")
    output = attempt.output.read_text()
    assert [form for form in encoded if form in output] == []


def test_repositorys_instructions_are_read_and_its_commands_are_not_run(
    cli: AgentCli, attempt_on: Prepare, tmp_path: Path
) -> None:
    repository = a_repository(tmp_path / "repo")
    files = cli.traps(f"touch {tmp_path}/trapped") | {"AGENTS.md": "instructions of the repository\n"}
    for name, content in files.items():
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(content)
    commit_all(repository)
    with cli.serve(cli.shell("echo trap=$TRAP"), Says("ok")) as server:
        attempt = attempt_on(server, **in_a_clone_of(repository))
        attempt.run()

    assert attempt.result == "ok"
    assert not (tmp_path / "trapped").exists()
    assert (attempt.tool_events[-1].output or "").rstrip() == "trap="
    assert "instructions of the repository" in words(server.requests[0][cli.conversation])

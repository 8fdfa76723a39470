"""Tests of resuming a session of the real agent programs."""

import shutil
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.executor.attempt import RESUME_PROMPT
from labrats.model.job import AgentSession, Outputs
from labrats.model.protocol import Resumption
from labrats.model.record import encode
from labrats.processes import send_signal, with_environment
from tests.agents.agent_cli import KEY, AgentCli, words
from tests.agents.conftest import EACH_VERSION, Prepare
from tests.support.scripted_model import Refuses, Says
from tests.unit.executor.attempts import AttemptFolder, a_repository, git, in_a_clone_of, the_next_attempt, wait_until

REFUSAL = Refuses(400, "invalid_request_error", "no")


@pytest.fixture(params=EACH_VERSION, ids=str)
def cli(request: pytest.FixtureRequest) -> AgentCli:
    """Return each of the programs, also in its newest version."""
    program: AgentCli = request.param
    return program


def test_attempt_resumes_the_session_in_its_workspace(cli: AgentCli, attempt_on: Prepare, tmp_path: Path) -> None:
    with cli.serve(cli.shell("sed -i s/old/new/ notes.txt"), REFUSAL) as server:
        first = attempt_on(server, instructions="Never push.", **in_a_clone_of(a_repository(tmp_path / "repo")))
        first.run()
        server.answer_from_now_on(cli.shell("echo more >> notes.txt"), Says("done"))
        second = the_next_attempt(first, secrets=cli.secrets)

        assert second.run() == 0

    assert second.logs[0] == "[resuming the session of attempt 1 in its workspace]"
    assert (second.result, second.session) == ("done", first.session)
    assert (first.workspace / "notes.txt").read_text() == "new\nmore\n"
    assert not second.workspace.exists()
    sent = server.requests[-1]
    assert "sed -i s/old/new/" in words(sent[cli.conversation])
    assert RESUME_PROMPT.strip() in words(sent[cli.conversation])
    assert "Never push." in words(sent[cli.instructions])
    assert server.key == KEY
    usage, cost = second.outcome.usage, first.outcome.usage.cost_usd
    assert replace(usage, cost_usd=None) == cli.usage(turns=2, input_tokens=200, output_tokens=20)
    assert usage.cost_usd == (cost and pytest.approx(2 * cost))
    assert second.outcome.outputs.files_changed == 1
    assert "-old\n+new\n+more\n" in (second.path / "changes.patch").read_text()


def test_attempt_resumes_after_all_processes_were_killed(cli: AgentCli, attempt_on: Prepare, unique_name: str) -> None:
    with cli.serve(cli.shell("echo one > made; touch started; sleep 300")) as server:
        first = attempt_on(server)
        with first.started() as process:
            wait_until((first.workspace / "started").exists, "the tool runs")
            wait_until(lambda: b"sleep 300" in session_of(first), "the program has recorded the call")
            process.kill()
            process.wait()
        kill_all_of(unique_name)
        server.answer_from_now_on(Says("done"))
        second = the_next_attempt(first, secrets=cli.secrets)
        second.run()

    assert second.result == "done"
    assert "sleep 300" in words(server.requests[-1][cli.conversation])
    assert second.outcome.usage.turns == 1
    assert second.outcome.outputs.files_changed == 2


def test_session_is_resumed_in_another_pod_from_its_stored_files(
    cli: AgentCli, attempt_on: Prepare, tmp_path: Path
) -> None:
    repository = in_a_clone_of(a_repository(tmp_path / "repo"))
    with cli.serve(cli.shell("sed -i s/old/new/ notes.txt"), REFUSAL) as server:
        first = attempt_on(server, config={"network": "open"}, on_cluster=True, sandbox=None, **repository)
        first.run()
        shutil.rmtree(first.workspace)
        shutil.rmtree(first.path / "home")
        server.answer_from_now_on(cli.shell("echo more >> notes.txt"), Says("done"))
        second = the_next_attempt(first, secrets=cli.secrets)
        kept = Resumption(session=first.session, kept=str(first.path))
        (second.path / "job.json").write_bytes(encode(replace(second.task, resumption=kept)))
        second.run()

    assert second.result == "done"
    assert "[resuming the session of attempt 1 in a new workspace with its changes]" in second.logs
    assert (second.session.id, second.session.attempt) == (first.session.id, 2)
    assert (second.workspace / "notes.txt").read_text() == "new\nmore\n"
    assert "sed -i s/old/new/" in words(server.requests[-1][cli.conversation])
    assert "-old\n+new\n+more\n" in (second.path / "changes.patch").read_text()
    assert second.outcome.usage.turns == 2


def session_of(attempt: AttemptFolder) -> bytes:
    """Return the session files of the program."""
    return b"".join(file.read_bytes() for file in (attempt.path / "home").rglob("*.jsonl"))


def test_attempt_starts_over_if_the_program_does_not_know_the_session(
    cli: AgentCli, attempt_on: Prepare, tmp_path: Path
) -> None:
    with cli.serve(cli.shell("touch made"), REFUSAL) as server:
        repository = a_repository(tmp_path / "repo")
        head = git(repository, "rev-parse", "HEAD")
        first = attempt_on(server, **in_a_clone_of(repository))
        first.run()
        server.answer_from_now_on(Says("done"))
        unknown = AgentSession(provider=cli.provider, id="01900000-0000-7000-8000-000000000000", attempt=1)
        second = the_next_attempt(first, unknown, secrets=cli.secrets)
        second.run()

    assert "[starting over: the agent's program does not know the session]" in second.logs
    assert (second.result, second.session.attempt) == ("done", 2)
    assert (second.workspace / "notes.txt").read_text() == "old\n"
    assert not (second.workspace / "made").exists()
    conversation = words(server.requests[-1][cli.conversation])
    assert "Fix the bug." in conversation
    assert "touch made" not in conversation
    model = server.requests[-1]["model"]
    assert second.outcome.outputs == Outputs(base_commit=head, files_changed=0, answered_by=model)


def kill_all_of(name: str) -> None:
    """Kill the leftover processes of an attempt whose executor was killed, as the launcher does."""

    def none_is_left() -> bool:
        left = with_environment("LABRATS_ATTEMPT", name)
        for pid in left:
            send_signal(pid, signal.SIGKILL)
        return not left  # otherwise another one may have started meanwhile

    wait_until(none_is_left, "nothing of the attempt runs")

"""Tests of runs of the real agent programs: the requests to the model and the events."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.model.ai_model import Prices
from labrats.model.job import FailedCode
from labrats.model.protocol import ResultEvent, UsageEvent
from tests.agents.agent_cli import KEY, AgentCli, words
from tests.agents.conftest import EACH_VERSION, Prepare
from tests.support.scripted_model import Says
from tests.unit.executor.attempts import a_repository, git, in_a_clone_of


@pytest.fixture(params=EACH_VERSION, ids=str)
def cli(request: pytest.FixtureRequest) -> AgentCli:
    """Return each of the programs, also in its newest version."""
    program: AgentCli = request.param
    return program


def test_agent_works_in_the_cloned_repository_and_its_work_is_logged(
    cli: AgentCli, attempt_on: Prepare, tmp_path: Path
) -> None:
    fix = "sed -i s/old/new/ notes.txt; git commit -qam fix && echo ok"
    with cli.serve(cli.shell("ls", text="Let me see."), cli.shell(fix), Says("All\nfixed.")) as server:
        attempt = attempt_on(server, **in_a_clone_of(a_repository(tmp_path / "repo")))

        assert attempt.run() == 0

    assert attempt.result == "All\nfixed."
    assert (attempt.workspace / "notes.txt").read_text() == "new\n"
    commit = git(attempt.workspace, "rev-parse", "HEAD")
    outputs = attempt.outcome.outputs
    assert (outputs.branch, outputs.commit, outputs.files_changed) == ("main", commit, 1)
    assert [line for line in attempt.logs if not line.startswith("Claude Code")] == [
        "Let me see.",
        f"→ {cli.shell_tool}: ls",
        "← notes.txt",
        f"→ {cli.shell_tool}: {fix}",
        "← ok",
        "All",
        "fixed.",
    ]


def test_empty_answer_after_work_completes_with_a_line_in_the_log(
    cli: AgentCli, attempt_on: Prepare, tmp_path: Path
) -> None:
    with cli.serve(cli.shell("echo new > notes.txt"), Says("")) as server:
        attempt = attempt_on(server, **in_a_clone_of(a_repository(tmp_path / "repo")))
        attempt.run()

    assert attempt.result == ""
    assert attempt.logs[-1] == "[the agent gave an empty answer: the result is what it has left in the workspace]"


def test_empty_answer_without_work_fails(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("true"), Says("")) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert attempt.failure[0] is FailedCode.AGENT_ERROR
    assert "the agent gave an empty answer and changed nothing" in attempt.failure[1]


def test_any_prompt_reaches_the_model_unchanged(cli: AgentCli, attempt_on: Prepare) -> None:
    prompt = "--help me, $HOME `id` 'please'\n" + "x" * 200_000
    with cli.serve(Says("ok")) as server:
        attempt = attempt_on(server, prompt=prompt)
        attempt.run()

    assert prompt in words(server.requests[0][cli.conversation])
    assert attempt.result == "ok"


def test_tool_calls_are_reported_as_events(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(cli.shell("echo out; exit 3"), Says("done")) as server:
        attempt = attempt_on(server)
        attempt.run()

    call, answer = attempt.tool_events
    assert (call.name, call.input["command"]) == (cli.shell_tool, "echo out; exit 3")
    assert (answer.id, answer.is_error) == (call.id, True)
    assert (answer.output or "").rstrip().endswith("out")


def test_usage_is_reported_after_each_answer(cli: AgentCli, attempt_on: Prepare) -> None:
    last = Says("done", input_tokens=300, output_tokens=30)
    with cli.serve(cli.shell("true"), cli.shell("true"), last) as server:
        attempt = attempt_on(server)
        attempt.run()

    usages = [event.usage for event in attempt.events if isinstance(event, UsageEvent)]
    turns = [usage.turns for usage in usages]
    assert turns == sorted(turns)
    assert turns[0] < 3
    assert attempt.outcome.usage == usages[-1]
    assert replace(usages[-1], cost_usd=None) == cli.usage(turns=3, input_tokens=500, output_tokens=50)
    assert usages[-1].cost_usd


@pytest.mark.parametrize("effort", ["low", "xhigh", "max"])
def test_settings_of_the_job_reach_the_program(cli: AgentCli, attempt_on: Prepare, effort: str) -> None:
    with cli.serve(Says("ok")) as server:
        config = {"model": 'a-"test"-model', "effort": effort}
        attempt = attempt_on(server, config=config, secrets={cli.key_names[0]: f"{KEY}\n"})
        attempt.run()

    assert server.requests[0]["model"] == 'a-"test"-model'
    assert attempt.outcome.outputs.answered_by == server.requests[0]["model"]
    assert server.requests[0][cli.effort]["effort"] == effort
    assert server.key == KEY


def test_instructions_reach_the_model_and_leave_the_checkout_clean(
    cli: AgentCli, attempt_on: Prepare, tmp_path: Path
) -> None:
    instructions = "Never push. Ask @somebody.\n" + "x" * 200_000
    status = cli.shell("touch made; git status --porcelain --ignored")
    with cli.serve(status, Says("ok")) as server:
        clone = in_a_clone_of(a_repository(tmp_path / "repo"))
        attempt = attempt_on(server, instructions=instructions, **clone)
        attempt.run()

    assert instructions in words(server.requests[0][cli.instructions])
    assert (attempt.tool_events[-1].output or "").rstrip() == "?? made"
    assert git(attempt.workspace, "status", "--porcelain", "--ignored") == "?? made"


def test_line_of_several_hundred_kilobytes_is_read(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(Says("y" * 400_000)) as server:
        attempt = attempt_on(server)
        attempt.run()

    assert isinstance(attempt.outcome, ResultEvent)
    assert attempt.outcome.file == "result.json"
    assert (attempt.path / "result.json").stat().st_size == 400_002


def test_cost_is_unknown_if_the_server_reports_no_usage(cli: AgentCli, attempt_on: Prepare) -> None:
    with cli.serve(Says("ok", input_tokens=0, output_tokens=0)) as server:
        attempt = attempt_on(server, prices=Prices(input=1, output=1))
        attempt.run()

    assert attempt.result == "ok"
    assert attempt.outcome.usage.turns == 1
    assert attempt.outcome.usage.cost_usd is None

"""Tests of local providers with tools, in real attempts with a scripted server."""

import json
import signal
from collections.abc import Mapping
from typing import Any, Final

import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import ToolEvent
from labrats.processes import with_environment
from tests.local.chat_server import Calls, ChatScript, Floods, Refuses, Says, Sends, chat_server, event
from tests.local.conftest import Prepare, failure_of, result_of
from tests.unit.executor.attempts import AttemptFolder, wait_until

KEY = "sk-test-0123456789"
REACT = {"react_enabled": True}


def run_command(command: str, **arguments: Any) -> Calls:
    return Calls("run_command", {"command": command, **arguments})


def in_text(tool: str, **arguments: Any) -> Says:
    """Return a call in plain text."""
    return Says(f"Sure!\n```json\n{json.dumps({'tool': tool, 'arguments': arguments})}\n```")


def reject_tools(body: Mapping[str, Any]) -> Refuses | None:
    return Refuses(400, {"error": {"message": '"auto" tool choice requires a parser'}}) if "tools" in body else None


def reject_tools_and_schema(body: Mapping[str, Any]) -> Refuses | None:
    unsupported = Refuses(400, {"error": {"message": "response_format is not supported"}})
    return reject_tools(body) or (unsupported if "response_format" in body else None)


def tool_events(attempt: AttemptFolder) -> list[ToolEvent]:
    return [each for each in attempt.events if isinstance(each, ToolEvent)]


def results(attempt: AttemptFolder) -> list[str]:
    """Return the result of each call."""
    return [each.output for each in tool_events(attempt) if each.output is not None]


def last_message(server: ChatScript) -> str:
    """Return the last message of the last request."""
    return str(server.requests[-1]["messages"][-1]["content"])


def test_model_works_in_the_workspace_until_it_finishes(attempt_on: Prepare) -> None:
    turns = (
        Calls("write_file", {"path": "a/b.txt", "content": "one\n"}, text="I write it.\n"),
        run_command("cat a/b.txt"),
        Calls("finish", {"answer": "It says one."}),
    )
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config=REACT, prompt="Write one.")
        assert attempt.run() == 0

    assert result_of(attempt) == "It says one."
    assert (attempt.workspace / "a" / "b.txt").read_text() == "one\n"
    assert attempt.logs == [
        "I write it.",
        "→ write_file: a/b.txt",
        "← Wrote 4 bytes to a/b.txt.",
        "→ run_command: cat a/b.txt",
        "← one",
    ]
    call, answer, *_ = tool_events(attempt)
    assert (call.name, call.input) == ("write_file", {"path": "a/b.txt", "content": "one\n"})
    assert (answer.id, answer.is_error) == (call.id, False)
    assert attempt.outcome.usage.turns == 3
    system, user, assistant, tool = server.requests[1]["messages"]
    assert system["role"] == "system"
    assert user == {"role": "user", "content": "Write one."}
    assert assistant["tool_calls"][0]["function"]["name"] == "write_file"
    assert tool == {"role": "tool", "tool_call_id": "call_a1", "content": "Wrote 4 bytes to a/b.txt."}


ASKED: Final = "Call `finish` with your answer, or act."


def test_second_text_after_a_call_is_the_final_answer(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Says("I look at it."), Says("All done.")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "All done."
    assert last_message(server) == ASKED


def test_announced_change_is_not_the_final_answer(attempt_on: Prepare) -> None:
    turns = (
        run_command("cat a; false"),
        Says("I will now edit the file."),
        Calls("write_file", {"path": "a", "content": "new\n"}),
        Says("I have edited it."),
    )
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "I have edited it."
    assert [request["messages"][-1]["content"] for request in server.requests].count(ASKED) == 1
    assert (attempt.workspace / "a").read_text() == "new\n"


def test_second_text_fails_after_a_failed_command_if_nothing_was_changed(attempt_on: Prepare) -> None:
    with chat_server(run_command("false"), Says("I will now edit the file.")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    code, message = failure_of(attempt)
    assert code is FailedCode.AGENT_ERROR
    assert message.endswith("its last command failed and it changed no file: I will now edit the file.")
    assert attempt.logs.count("I will now edit the file.") == 2


def test_text_in_the_last_turn_is_the_final_answer(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Says("All done.")) as server:
        attempt = attempt_on(server, config=REACT | {"max_turns": 2})
        attempt.run()

    assert result_of(attempt) == "All done."


@pytest.mark.parametrize("judge", [reject_tools, reject_tools_and_schema])
def test_calls_are_in_the_text_if_the_server_rejects_tools(attempt_on: Prepare, judge: Any) -> None:
    turns = (in_text("run_command", command="echo hello > out"), in_text("finish", answer="Made."))
    with chat_server(*turns, judge=judge) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "Made."
    assert (attempt.workspace / "out").read_text() == "hello\n"
    latest = server.requests[-1]
    assert "tools" not in latest
    assert ("response_format" in latest) is (judge is reject_tools)
    assert latest["messages"][-1]["content"].startswith("run_command returned:\n")


def test_model_that_calls_no_tool_is_asked_for_json(attempt_on: Prepare) -> None:
    with chat_server(
        Says("I could list the files."), in_text("list_files"), in_text("finish", answer="None.")
    ) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "None."
    assert ["tools" in request for request in server.requests] == [True, False, False]


def test_server_error_after_a_call_does_not_change_the_format(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Refuses(500, {"error": {"message": "CUDA error"}})) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert failure_of(attempt)[1].startswith("the model's server answered 500: CUDA error")
    assert len(server.requests) == 2


def test_text_is_the_answer_of_a_model_that_uses_no_format(attempt_on: Prepare) -> None:
    with chat_server(Says("I would rather talk.")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "I would rather talk."
    assert "That is not a tool call" in last_message(server)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Calls("make_coffee", {}), "There is no tool 'make_coffee'"),
        (Calls("read_file", '{"path": "a'), "The arguments of read_file are not a JSON object"),
        (Calls("read_file", {"file": "a"}), 'unknown field `file`. It takes {"path": string'),
        (Calls("read_file", {"path": "a", "offset": "many"}), "Expected `int`"),
        (Calls("read_file", {"path": "../a"}), "not a path inside the workspace"),
        (Calls("finish", {}), "missing required field `answer`"),
    ],
)
def test_invalid_call_is_answered_with_the_valid_form(attempt_on: Prepare, call: Calls, words: str) -> None:
    with chat_server(call, Calls("finish", {"answer": "ok"})) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert words in last_message(server)
    assert json.loads(server.requests[-1]["messages"][-2]["tool_calls"][0]["function"]["arguments"]) in (
        {},
        call.arguments,
    )
    assert result_of(attempt) == "ok"


@pytest.mark.parametrize("command", ["echo same", "seq 1 5000"])
def test_repeated_call_is_refused_and_then_ends_the_run(attempt_on: Prepare, command: str) -> None:
    with chat_server(run_command(f"echo tick >> ticks; {command}")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.AGENT_ERROR
    assert "keeps repeating the same calls" in failure_of(attempt)[1]
    assert (attempt.workspace / "ticks").read_text() == "tick\n" * 2
    assert "was not executed" in last_message(server)


def test_command_may_be_repeated_after_each_change(attempt_on: Prepare) -> None:
    turns = [each for number in range(6) for each in (run_command("echo fails"), run_command(f"echo {number} >> code"))]
    with chat_server(*turns, Says("ok")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"
    assert results(attempt).count("fails\n") == 6


def test_model_is_asked_once_more_after_an_empty_answer(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Says(""), Calls("finish", {"answer": "I ran true."})) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "I ran true."
    assert "Your answer is empty" in last_message(server)


def test_summary_of_calls_replaces_an_empty_answer(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Calls("finish", {"answer": " "}), Says("")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert "run_command 1 times" in result_of(attempt)


def test_too_many_turns_fail_with_a_summary_of_calls(attempt_on: Prepare) -> None:
    turns = [run_command(f"echo {number} >> done") for number in range(5)]
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config=REACT | {"max_turns": 3})
        attempt.run()

    code, message = failure_of(attempt)
    assert code is FailedCode.MAX_TURNS
    assert "config.maxTurns" in message
    assert "run_command 3 times" in message
    assert (attempt.workspace / "done").read_text() == "0\n1\n2\n"


def test_token_limit_ends_the_run_with_a_summary_in_the_log(attempt_on: Prepare) -> None:
    with chat_server(run_command("echo x >> done")) as server:
        attempt = attempt_on(server, config=REACT | {"max_tokens": 150})
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.BUDGET
    assert attempt.logs[-1] == "[ended before completion; so far: 2 turns, run_command 1 times]"


def test_old_results_that_do_not_fit_the_window_are_omitted(attempt_on: Prepare) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 10}
    turns = [Calls("run_command", {"command": f"seq {n}00000 {n}00400"}, usage=usage) for n in range(1, 9)]
    models = {"data": [{"id": "test-model", "max_model_len": 4096}]}
    with chat_server(*turns, Calls("finish", {"answer": "ok"}), models=models) as server:
        attempt = attempt_on(server, config=REACT, prompt="Count.")
        attempt.run()

    assert result_of(attempt) == "ok"
    _, user, *_ = server.requests[-1]["messages"]
    assert user["content"] == "Count."
    assert max(len(str(request["messages"])) for request in server.requests) < 4096 * 3
    assert "omitted: this result is old" in str(server.requests[-1]["messages"])
    assert "800000" in last_message(server)


def test_conversation_rejected_as_too_long_is_shrunk(attempt_on: Prepare) -> None:
    def judge(body: dict[str, Any]) -> Refuses | None:
        too_long = Refuses(400, {"error": {"message": "maximum context length is 2000 tokens"}})
        return too_long if len(str(body["messages"])) > 6000 else None

    turns = [run_command(f"seq {n}0000 {n}0300") for n in range(1, 7)]
    with chat_server(*turns, Says("ok"), judge=judge) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"


def test_prompt_that_never_fits_fails(attempt_on: Prepare) -> None:
    with chat_server(Refuses(400, {"error": {"message": "maximum context length is 10 tokens"}})) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.CONTEXT_TOO_LONG


def test_server_that_counts_the_answer_gets_a_lower_limit(attempt_on: Prepare) -> None:
    def judge(body: dict[str, Any]) -> Refuses | None:
        too_long = Refuses(400, {"error": {"message": "maximum context length is 8192 tokens, you asked for more"}})
        return too_long if body["max_tokens"] > 1000 else None

    with chat_server(Calls("finish", {"answer": "ok"}), judge=judge) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"


@pytest.mark.parametrize(
    "command", ["setsid {} &", "{} & disown", "(setsid sh -c '{} & sleep 300' &); until [ -s pid ]; do :; done; kill 0"]
)
def test_detached_process_of_a_command_is_killed(attempt_on: Prepare, unique_name: str, command: str) -> None:
    left = command.replace("{}", 'sh -c "echo \\$\\$ > pid; exec sleep 300"')
    turns = (
        run_command(f"{left}\nuntil [ -s pid ]; do :; done"),
        run_command("grep -q sleep /proc/$(cat pid)/cmdline && echo alive || echo gone"),
        Says("ok"),
    )
    with chat_server(*turns) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert results(attempt)[1].endswith("gone\n")
    assert result_of(attempt) == "ok"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.parametrize("command", ["sleep 300", "setsid sleep 300 & sleep 300", "trap '' TERM INT; sleep 300"])
def test_stopped_attempt_kills_a_running_command(attempt_on: Prepare, unique_name: str, command: str) -> None:
    with chat_server(run_command(f"touch started; {command}")) as server:
        attempt = attempt_on(server, config=REACT)
        with attempt.started() as process:
            wait_until((attempt.workspace / "started").exists, "the command runs")
            process.send_signal(signal.SIGTERM)
            process.wait()

    assert failure_of(attempt) == (FailedCode.AGENT_ERROR, "stopped on request")
    assert attempt.logs[-1].startswith("[ended before completion; so far: 1 turns, run_command 1 times")
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_key_is_in_no_file_and_no_environment_of_a_command(attempt_on: Prepare) -> None:
    with chat_server(run_command("env; ls -R ..; grep -r sk-test .. || echo nowhere"), Says("ok")) as server:
        attempt = attempt_on(server, config=REACT, secrets={"OPENAI_API_KEY": KEY})
        attempt.run()

    [answer] = results(attempt)
    assert "redacted" not in answer
    assert "nowhere" in answer
    assert server.headers["Authorization"] == f"Bearer {KEY}"


def test_stream_that_breaks_off_within_a_call_is_retried(attempt_on: Prepare) -> None:
    call = {"index": 0, "id": "x", "function": {"name": "run_command", "arguments": '{"comm'}}
    with chat_server(
        Sends(event({"tool_calls": [call]}), breaks_off=True), run_command("echo x >> done"), Says("ok")
    ) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"
    assert (attempt.workspace / "done").read_text() == "x\n"


def test_endless_keep_alive_ends_in_a_timeout_with_a_summary(attempt_on: Prepare) -> None:
    with chat_server(run_command("true"), Floods(b": still here\n\n", pause_seconds=0.05)) as server:
        attempt = attempt_on(server, config=REACT | {"timeout_ms": 3000})
        attempt.run()

    assert failure_of(attempt)[0] is FailedCode.TIMEOUT
    assert attempt.logs[-1] == "[ended before completion; so far: 1 turns, run_command 1 times]"


def test_number_of_calls_in_an_answer_is_limited(attempt_on: Prepare) -> None:
    calls = [
        {
            "index": n,
            "id": f"c{n}",
            "function": {"name": "run_command", "arguments": json.dumps({"command": f"echo {n}"})},
        }
        for n in range(500)
    ]
    flood = Sends(event({"tool_calls": calls}, finish_reason="tool_calls") + b"data: [DONE]\n\n")
    with chat_server(flood, Says("ok")) as server:
        attempt = attempt_on(server, config=REACT)
        attempt.run()

    assert result_of(attempt) == "ok"
    assert len(results(attempt)) == 16

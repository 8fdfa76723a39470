"""`labrats submit`: the request, the output and the exit code."""

import base64
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.engines import Labrats, ScriptedEngine, a_job

SUBMITTED = {"jobId": "ir-3ab1c2d4", "source": "manual", "type": "task"}


@pytest.fixture
def engine(engine: ScriptedEngine) -> ScriptedEngine:
    """Script an engine that accepts every job."""
    engine.answers("POST /api/jobs/submit", SUBMITTED, status=201)
    return engine


def test_submit_needs_only_a_prompt(labrats: Labrats, engine: ScriptedEngine) -> None:
    assert labrats("submit", "-p", "Say hello") == (0, "ir-3ab1c2d4\n", "")
    assert engine.requests[0].json == {"source": "manual", "type": "task", "prompt": "Say hello"}


def test_submit_sends_all_options(labrats: Labrats, engine: ScriptedEngine) -> None:
    labrats(
        "submit",
        "Fix it",
        *("--type", "implement-issue", "--source", "github", "--agent", "ai-developer", "--priority", "1"),
        *("--provider", "claude", "--model", "opus", "--effort", "high", "--timeout", "10m"),
        *("--max-turns", "5", "--max-attempts", "2", "--config", "maxCostUsd=2.5", "--config", "fallbackModel=sonnet"),
        *("--config", "sampling.temperature=0", "--config", "sampling.seed=7", "--network", "npm,*.example.com"),
        *("--isolation", "sandbox"),
        *("--repo", "https://example.org/a/b.git", "--ref", "main", "--depth", "1"),
        *("--metadata", "repo=a/b", "--metadata", 'mock={"steps": []}', "--callback-url", "https://example.org/done"),
        *("--concurrency-key", "a/b#7", "--on-new", "supersede", "--debounce", "30s"),
    )
    assert engine.requests[0].json == {
        "source": "github",
        "type": "implement-issue",
        "prompt": "Fix it",
        "priority": 1,
        "agentRole": "ai-developer",
        "concurrency": {"key": "a/b#7", "onNew": "supersede", "debounceSeconds": 30},
        "config": {
            "provider": "claude",
            "model": "opus",
            "effort": "high",
            "timeoutMs": 600_000,
            "maxTurns": 5,
            "maxAttempts": 2,
            "maxCostUsd": 2.5,
            "fallbackModel": "sonnet",
            "sampling": {"temperature": 0, "seed": 7},
            "network": {"allow": ["npm", "*.example.com"]},
            "isolation": "sandbox",
        },
        "workspaceSetup": {"gitRepo": "https://example.org/a/b.git", "gitRef": "main", "gitDepth": 1},
        "metadata": {"repo": "a/b", "mock": {"steps": []}},
        "callbackUrl": "https://example.org/done",
    }


def test_submit_sends_variables_as_text_or_as_keys_of_secrets(labrats: Labrats, engine: ScriptedEngine) -> None:
    env = ("--env", "CI=1", "--env", "OPTIONS=a=b", "--env", "EMPTY=", "--env", "NPM_TOKEN=secret:npm/token")
    assert labrats("submit", "-p", "Say hello", *env).code == 0
    assert engine.requests[0].json["config"] == {
        "env": {"CI": "1", "OPTIONS": "a=b", "EMPTY": "", "NPM_TOKEN": {"secret": "npm", "key": "token"}}
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--env", "CI"), "--env CI: write NAME=VALUE or NAME=secret:SECRET/KEY"),
        (("--env", "=1"), "--env =1: write NAME=VALUE"),
        (("--env", "TOKEN=secret:npm"), "--env TOKEN=secret:npm: write TOKEN=secret:SECRET/KEY"),
        (
            ("--config", "env.CI=1"),
            "--config env.CI=1: the value of a variable is text; pass --env CI=1",
        ),
    ],
)
def test_submit_explains_an_invalid_variable(
    labrats: Labrats, engine: ScriptedEngine, option: tuple[str, str], message: str
) -> None:
    ended = labrats("submit", "-p", "Say hello", *option)
    assert (ended.code, message in ended.err, engine.requests) == (2, True, [])


SETUP_OPTIONS = [("--setup-network", "npm"), ("--setup-timeout", "1m"), ("--cache", "package-lock.json:node_modules")]


@pytest.mark.parametrize("option", SETUP_OPTIONS)
def test_options_of_setup_commands_need_commands_or_an_agent(
    labrats: Labrats, engine: ScriptedEngine, option: tuple[str, str]
) -> None:
    submit = ("submit", "-p", "Say hello", "--repo", "https://example.org/a/b.git", *option)
    refused = labrats(*submit)
    assert (refused.code, engine.requests) == (2, [])
    assert "need --setup, or an --agent with setup commands" in refused.err
    assert labrats(*submit, "--agent", "ai-developer").code == 0
    assert labrats(*submit, "--setup", "npm ci").code == 0


def test_submit_sends_the_result_schema_of_a_file(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "risk.json").write_text('{"type": "object"}')
    labrats("submit", "-p", "Say hello", "--result-schema", str(tmp_path / "risk.json"))
    assert engine.requests[0].json["resultSchema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("content", "words"), [("{", "not JSON: "), (None, "No such file")], ids=["invalid file", "missing file"]
)
def test_submit_refuses_an_unreadable_result_schema(
    labrats: Labrats, engine: ScriptedEngine, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "risk.json"
    if content is not None:
        file.write_text(content)
    code, _, err = labrats("submit", "-p", "Say hello", "--result-schema", str(file))
    assert (code, engine.requests) == (2, [])
    assert f"--result-schema {file}: " in err
    assert words in err


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("true", True), ("[1]", [1]), ('"3"', "3"), ("a=b", "a=b"), ("", ""), ("NaN", "NaN"), ("{", "{")],
)
def test_metadata_value_is_sent_as_json_if_valid_or_as_text(
    labrats: Labrats, engine: ScriptedEngine, text: str, value: Any
) -> None:
    labrats("submit", "-p", "x", "--metadata", f"key={text}")
    assert engine.requests[0].json["metadata"] == {"key": value}


def test_setup_and_caches_are_sent(labrats: Labrats, engine: ScriptedEngine) -> None:
    repository = ("submit", "-p", "x", "--repo", "https://example.org/a.git")
    commands = (
        "--setup",
        "npm ci",
        "--setup",
        "sh -c 'make; echo $HOME > deps'",
        "--setup-network",
        "npm",
        "--setup-timeout",
        "5m",
    )
    labrats(*repository, *commands, "--cache", "package-lock.json:node_modules")
    assert engine.requests[0].json["workspaceSetup"] == {
        "gitRepo": "https://example.org/a.git",
        "setup": [["npm", "ci"], ["sh", "-c", "make; echo $HOME > deps"]],
        "setupNetwork": {"allow": ["npm"]},
        "setupTimeoutMs": 300_000,
        "cache": [{"key": "package-lock.json", "path": "node_modules"}],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--setup", "npm ci"), "--setup and --cache need --repo, which is missing"),
        (("--repo", "r", "--setup", "sh -c 'x"), "--setup sh -c 'x: No closing quotation"),
        (("--repo", "r", "--setup", " "), "--setup needs a command, such as 'npm ci'"),
        (("--repo", "r", "--setup", "npm ci && make"), "no shell runs it, which `&&` needs; repeat --setup"),
        (("--repo", "r", "--setup", "sh -c 'a > b'; make"), "no shell runs it, which `;` needs"),
        (("--repo", "r", "--setup", "make >out"), "no shell runs it, which `>` needs"),
        (("--repo", "r", "--setup", "echo $HOME"), "no shell runs it, which `$H` needs"),
        (("--repo", "r", "--cache", "node_modules"), "--cache node_modules: write KEY:PATH"),
        (("--repo", "r", "--setup-timeout", "soon"), "--setup-timeout: "),
        (("--repo", "r", "--setup-network", "10.0.0.1"), "--setup-network cannot allow '10.0.0.1'"),
    ],
)
def test_invalid_setup_options_are_named(labrats: Labrats, options: tuple[str, ...], message: str) -> None:
    run = labrats("submit", "-p", "x", *options)
    assert run.code == 2
    assert message in run.err


def test_file_is_sent_under_its_own_or_a_given_name(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"\x00cheese")
    (tmp_path / "a:b").write_text("colon")
    labrats(
        "submit",
        *("-p", "x", "--file", f"{tmp_path}/notes.txt", "--file", f"{tmp_path}/notes.txt:docs/n.txt"),
        *("--file", f"{tmp_path}/a:b"),
    )
    files = {file["name"]: base64.b64decode(file["data"]) for file in engine.requests[0].json["workspaceFiles"]}
    assert files == {"notes.txt": b"\x00cheese", "docs/n.txt": b"\x00cheese", "a:b": b"colon"}


def test_prompt_file_is_read(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("Zoë asks:\nwhy?\n")
    labrats("submit", "--prompt-file", f"{tmp_path}/prompt.md")
    assert engine.requests[0].json["prompt"] == "Zoë asks:\nwhy?\n"


@pytest.mark.parametrize("arguments", [[], ["-p", "-"]])
def test_prompt_is_read_from_standard_input(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe"))
    labrats("submit", *arguments)
    assert engine.requests[0].json["prompt"] == "from a pipe"


def test_prompt_may_start_with_a_dash(labrats: Labrats, engine: ScriptedEngine) -> None:
    labrats("submit", "-p", "- first, look around")
    assert engine.requests[0].json["prompt"] == "- first, look around"


def test_missing_prompt_on_a_terminal_is_refused(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO("")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    ended = labrats("submit")
    assert ended.code == 2
    assert "no prompt" in ended.err
    assert engine.requests == []


def test_any_field_of_a_submission_can_be_set(labrats: Labrats, engine: ScriptedEngine) -> None:
    labrats("submit", "-p", "x", "--field", "priority=3", "--field", "concurrency.key=a/b#7")
    assert engine.requests[0].json["priority"] == 3
    assert engine.requests[0].json["concurrency"] == {"key": "a/b#7"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--timeout", "90"], "--timeout: '90' is not a duration: write 90s"),
        (["--ref", "main"], "--repo, which is missing"),
        (["--metadata", "novalue"], "--metadata novalue: write KEY=VALUE"),
        (["--config", "=3"], "--config =3: write KEY=VALUE"),
        (
            ["--network", "npm", "--config", "network=open"],
            "network is set both by an option of its own and by --config",
        ),
        (["--env", "A=1", "--config", "env.B=b"], "env is set both by an option of its own and by --config"),
        (["--priority", "3", "--field", "priority=4"], "priority is set both by an option of its own and by --field"),
        (["--file", "/nowhere/at/all"], "--file /nowhere/at/all: No such file or directory"),
        (["--prompt-file", "/nowhere"], "not both"),
        (["--effort", "huge"], "--effort"),
        (["--priority", "high"], "--priority"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_invalid_options_are_refused_before_a_request(
    labrats: Labrats, engine: ScriptedEngine, arguments: list[str], complaint: str
) -> None:
    ended = labrats("submit", "-p", "x", *arguments)
    assert ended.code == 2
    assert complaint in ended.err
    assert engine.requests == []


def test_prompt_file_that_is_not_text_is_refused(labrats: Labrats, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_bytes(b"\xff\xfe")
    ended = labrats("submit", "--prompt-file", f"{tmp_path}/prompt")
    assert (ended.code, ended.err) == (2, f"labrats: --prompt-file {tmp_path}/prompt: not UTF-8 text\n")


def test_debounce_without_a_concurrency_key_is_refused(labrats: Labrats, engine: ScriptedEngine) -> None:
    status, _, message = labrats("submit", "-p", "x", "--debounce", "30s")
    assert status == 2
    assert "--on-new and --debounce need --concurrency-key" in message
    assert engine.requests == []


def test_idempotency_key_is_sent_as_a_header(labrats: Labrats, engine: ScriptedEngine) -> None:
    labrats("submit", "-p", "x", "--idempotency-key", "build-17")
    assert engine.requests[0].headers["Idempotency-Key"] == "build-17"


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("cancelled", 5)])
def test_submit_follow_prints_log_and_result_and_exits_with_the_code_of_the_outcome(
    labrats: Labrats, engine: ScriptedEngine, status: str, code: int
) -> None:
    engine.streams("ir-3ab1c2d4", "looking", "found", status=status)
    engine.answers("GET /api/jobs/ir-3ab1c2d4", a_job(status=status, returnvalue={"cheese": 1}))
    ended = labrats("submit", "-p", "x", "--follow")
    assert ended.code == code
    assert ended.out == 'looking\nfound\n{\n  "cheese": 1\n}\n'
    assert ended.err == f"ir-3ab1c2d4 submitted\nir-3ab1c2d4 {status} after 42s\n"


def test_submit_json_prints_one_document_per_line(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.streams("ir-3ab1c2d4", "looking", status="failed")
    ended = labrats("submit", "-p", "x", "--follow", "--json")
    assert ended.code == 1
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        SUBMITTED,
        {"log": "looking"},
        {"done": True, "status": "failed"},
    ]
    assert ended.err == ""


def test_report_without_anything_to_write_says_what_is_missing(labrats: Labrats, engine: ScriptedEngine) -> None:
    ended = labrats("submit", "-p", "x", "--report", "octo-org/api#7")
    assert ended.code == 2
    assert "add --report-with comment=final" in ended.err
    assert not engine.requests


def test_the_documented_jq_expression_reads_the_id(labrats: Labrats) -> None:
    printed = json.loads(labrats("submit", "-p", "x", "--json").out)
    documented = re.search(r"labrats submit .* --json \| jq -r \.(\w+)`", Path("docs/jobs.md").read_text())
    assert documented
    assert printed[documented[1]] == "ir-3ab1c2d4"

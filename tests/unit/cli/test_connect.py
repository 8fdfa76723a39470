"""`labrats connect`: where the credential comes from, and what each mistake is told."""

import getpass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.engines import Labrats, ScriptedEngine

READY: dict[str, Any] = {"canRun": True, "missing": None, "problem": None, "command": None}
NO_KEY: dict[str, Any] = {
    "canRun": False, "missing": "credentials", "problem": "no credentials are stored",
    "command": "labrats connect claude",
}  # fmt: skip
NO_PROGRAM: dict[str, Any] = {
    "canRun": False, "missing": "program", "problem": "Codex is not installed", "command": "npm install -g codex",
}  # fmt: skip
USAGE: dict[str, Any] = {"costUsd": 0.0123, "inputTokens": 1, "outputTokens": 1}


@pytest.fixture(autouse=True)
def engine_without_credentials(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Script an engine on which Claude Code lacks a key, and Codex its program; jobs on it succeed."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    providers = [{"name": "claude", **NO_KEY}, {"name": "codex", **NO_PROGRAM}]
    engine.answers("GET /api/system", {"providers": providers})
    engine.answers("GET /api/ai-models", {"aiModels": []})
    for secret in ("claude-api-key", "claude-subscription"):
        engine.answers(f"PUT /api/secrets/{secret}", {"name": secret})
    engine.answers("POST /api/ai-models", {"name": "claude"}, status=201)
    engine.answers("POST /api/jobs/submit", {"jobId": "ir-1"})
    engine.streams("ir-1", "hello")
    ends(engine, status="completed", failedReason=None)


def ends(engine: ScriptedEngine, **fields: Any) -> None:
    job = {"id": "ir-1", "finishedAt": "2026-12-03T00:00:01Z", "returnvalue": None, "usage": USAGE}
    engine.answers("GET /api/jobs/ir-1", job | fields)


def sent(engine: ScriptedEngine) -> dict[str, Any]:
    return {f"{each.method} {each.path}": each.json for each in engine.requests if each.method != "GET"}


def test_key_of_the_environment_is_stored_under_its_name(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api-test")
    ended = labrats("connect", "claude", "--model", "sonnet")

    requests = sent(engine)
    assert requests["PUT /api/secrets/claude-api-key"] == {"values": {"ANTHROPIC_API_KEY": "sk-ant-api-test"}}
    assert requests["POST /api/ai-models"] == {
        "name": "claude-sonnet", "provider": "claude", "model": "sonnet", "slots": 2,
        "credentialsRef": "claude-api-key",
    }  # fmt: skip
    assert requests["POST /api/jobs/submit"]["config"] == {"provider": "claude", "model": "sonnet"}
    assert "it cost $0.0123" in ended.err
    assert "sk-ant" not in ended.out + ended.err


def test_token_of_a_subscription_is_known_by_its_form(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sk-ant-oat-test\n")
    ends(engine, status="completed", usage=USAGE | {"costKind": "notional"})
    ended = labrats("connect", "claude", "--key-file", str(tmp_path / "token"))

    stored = sent(engine)["PUT /api/secrets/claude-subscription"]
    assert stored == {"values": {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-test"}}
    assert "the subscription paid for it; at list prices it is $0.0123" in ended.err


def test_person_on_a_terminal_is_asked_for_the_key(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "sk-ant-api-typed")
    assert labrats("connect", "claude").code == 0
    assert sent(engine)["PUT /api/secrets/claude-api-key"]["values"] == {"ANTHROPIC_API_KEY": "sk-ant-api-typed"}

    monkeypatch.setattr(getpass, "getpass", lambda prompt: " ")
    assert "claude setup-token" in labrats("connect", "claude").err


def test_engine_with_credentials_needs_no_further_ones(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/system", {"providers": [{"name": "claude", **READY}]})
    known = {"name": "mine", "provider": "claude", "model": "claude", "credentialsRef": "own", "endpoint": None}
    engine.answers("GET /api/ai-models", {"aiModels": [known]})
    assert labrats("connect", "claude").code == 0
    assert list(sent(engine)) == ["POST /api/jobs/submit"]


@pytest.mark.parametrize(
    ("arguments", "content", "sentence"),
    [
        (["claude"], "", "labrats connect claude --key-file FILE"),
        (["codex"], "", "Codex is not installed: run `npm install -g codex`, then this command again"),
        (["claude", "--key-file", "{file}"], "", "is empty"),
        (["claude", "--key-file", "{file}"], "two words", "must be one line without spaces"),
        (["claude", "--key-file", "{file}"], '{"claudeAiOauth": 1}', "`claude setup-token`"),
        (["claude", "--key-file", "/no/such/file"], "", "cannot read the key file /no/such/file: No such file"),
        (
            ["local", "http://127.0.0.1:1", "--provider", "gpt"],
            "",
            "--provider must be one of openai, vllm, gemma, qwen, not gpt",
        ),
        (["local", "http://127.0.0.1:1"], "", "no server answers at http://127.0.0.1:1/v1/models"),
    ],
)
def test_mistake_is_answered_with_the_next_step(
    labrats: Labrats, engine: ScriptedEngine, tmp_path: Path, arguments: list[str], content: str, sentence: str
) -> None:
    (tmp_path / "key").write_text(content)
    ended = labrats("connect", *(each.format(file=tmp_path / "key") for each in arguments))
    assert (ended.code in (2, 3), sentence in ended.err) == (True, True), ended.err
    assert sent(engine) == {}


def test_failed_first_job_names_the_next_command(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api-test")
    engine.streams("ir-1", status="failed")
    ends(engine, status="failed", failedReason="the key was refused", failedCode="auth")
    ended = labrats("connect", "claude")
    assert ended.code == 1
    assert "details: labrats job ir-1\nwith another key: labrats connect claude --key-file FILE" in ended.err

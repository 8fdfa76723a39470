"""The commands for events."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.engines import Labrats, ScriptedEngine

EVENT = {"source": "github", "event": "issues.labeled", "payload": {"label": {"name": "bug"}}}
TESTED: dict[str, Any] = {
    "matched": 1,
    "ignored": None,
    "agents": [
        {
            "agent": "developer",
            "starts": True,
            "triggers": [
                {
                    "matches": False,
                    "mismatch": "filter",
                    "failedFilter": {"path": "label.name", "wanted": ["ai"], "found": ["bug"]},
                },
                {"matches": True, "mismatch": None, "failedFilter": None},
            ],
            "job": {
                "type": "implement",
                "config": {
                    "provider": "claude",
                    "model": "opus",
                    "network": {"allow": ["npm"]},
                    "isolation": "sandbox",
                    "env": {"CI": "1"},
                },
                "workspaceSetup": {
                    "gitRepo": "https://github.com/octo/demo.git",
                    "gitRef": "main",
                    "setup": [["npm", "ci"]],
                },
                "chainNext": {"agent": "reviewer", "condition": "on-success"},
                "concurrency": {"key": "octo/demo#7", "onNew": "supersede", "debounceSeconds": 0},
                "prompt": "Fix it.",
            },
            "refused": None,
        }
    ],
}


def test_verdicts_and_the_job_are_printed(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.answers("POST /api/events/test", TESTED)
    (tmp_path / "event.json").write_text(json.dumps(EVENT))

    ended = labrats("event", "test", str(tmp_path / "event.json"), "--agent", "developer")

    assert ended.code == 0
    assert engine.requests[0].json == EVENT | {"agent": "developer"}
    assert 'label.name is "bug", not ["ai"]' in ended.out
    assert "developer: implement on claude/opus in https://github.com/octo/demo.git @ main, then reviewer" in ended.out
    assert "network: npm\nisolation: sandbox\nenv: CI=1\nsetup: npm ci\n" in ended.out
    assert "concurrency key: octo/demo#7 (supersede)\n" in ended.out
    assert ended.err == "1 agent would start\n"


def test_the_failure_that_a_job_would_have_is_printed_last(
    labrats: Labrats, engine: ScriptedEngine, tmp_path: Path
) -> None:
    [agent] = TESTED["agents"]
    failing = agent | {"job": agent["job"] | {"failure": "no credentials are stored: `labrats secret set a KEY`"}}
    engine.answers("POST /api/events/test", TESTED | {"agents": [failing]})
    (tmp_path / "event.json").write_text(json.dumps(EVENT))

    ended = labrats("event", "test", str(tmp_path / "event.json"))

    failure = "developer: the job would fail: no credentials are stored: `labrats secret set a KEY`"
    assert ended.err == f"1 agent would start\n{failure}\n"


def test_a_trigger_whose_job_would_be_refused_starts_nothing(
    labrats: Labrats, engine: ScriptedEngine, tmp_path: Path
) -> None:
    [agent] = TESTED["agents"]
    refused = agent | {"starts": False, "job": None, "refused": "config.isolation: cannot be vm"}
    engine.answers("POST /api/events/test", TESTED | {"matched": 0, "agents": [refused]})
    (tmp_path / "event.json").write_text(json.dumps(EVENT))

    ended = labrats("event", "test", str(tmp_path / "event.json"))

    assert re.search(r"^developer +2 +no +matches, but the job would be refused$", ended.out, re.MULTILINE)
    assert "developer: the job would be refused: config.isolation: cannot be vm\n" in ended.err
    assert ended.err.endswith("0 agents would start\n")


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"action": "cancel", "agent": "developer"}, "cancel the jobs of developer of the thread"),
        ({"action": "retry"}, "retry the last job of the thread"),
        ({"action": "retry", "model": "opus"}, "run the last job of the thread again on opus"),
        ({"action": "run", "agent": "developer", "model": "opus"}, "start developer on opus"),
        ({"action": "help", "answer": "`stop` is no command."}, "answer:\n`stop` is no command."),
        ({"action": "reply"}, "start a follow-up, if a job made the pull request"),
        ({"action": "repair", "agent": "fixer"}, "let fixer repair the checks, if a job made the pull request"),
    ],
)
def test_a_request_in_the_event_is_printed_as_a_sentence(
    labrats: Labrats, engine: ScriptedEngine, tmp_path: Path, request_: dict[str, str], sentence: str
) -> None:
    request = {"agent": None, "model": None, "answer": None} | request_
    engine.answers("POST /api/events/test", {"matched": 0, "ignored": None, "requests": [request], "agents": []})
    (tmp_path / "event.json").write_text(json.dumps(EVENT))

    ended = labrats("event", "test", str(tmp_path / "event.json"))

    assert f"the engine would {sentence}\n" in ended.out


def test_file_may_be_the_payload_alone(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.answers("POST /api/events/test", {"matched": 0, "ignored": "it is a fork", "agents": []})
    (tmp_path / "payload.json").write_text("{}")

    ended = labrats("event", "test", str(tmp_path / "payload.json"), "--event", "push", "--webhook-source", "hub")

    assert engine.requests[0].json == {"source": "github", "event": "push", "payload": {}, "webhookSource": "hub"}
    assert "would ignore this event: it is a fork" in ended.err


@pytest.mark.parametrize(
    ("content", "reason"), [("{", "not JSON"), ("{}", "has no field `event`"), (None, "No such file")]
)
def test_invalid_file_is_an_error(labrats: Labrats, tmp_path: Path, content: str | None, reason: str) -> None:
    file = tmp_path / "event.json"
    if content is not None:
        file.write_text(content)

    ended = labrats("event", "test", str(file))

    assert ended.code == 2
    assert f"{file}: {reason}" in ended.err

"""`labrats agent …` and `labrats instruction …`."""

from pathlib import Path
from typing import Any

from tests.unit.cli.engines import Labrats, ScriptedEngine

AGENT: dict[str, Any] = {
    "name": "ai-developer",
    "triggerName": "developer",
    "enabled": True,
    "defaultProvider": "claude",
    "defaultModel": None,
    "eventTriggers": [{"source": "github", "events": ["issues.labeled", "issues.opened"]}],
}
INSTRUCTION: dict[str, Any] = {
    "name": "conduct",
    "scope": "local",
    "priority": 0,
    "displayName": "How to work",
    "content": "# How to work\n\nRead before you write.",
}


def test_agent_list_shows_the_triggers(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents", {"agents": [AGENT]})
    _, row = labrats("agent", "list").out.splitlines()
    assert row.split() == [
        "ai-developer",
        "developer",
        "yes",
        "claude",
        "github:issues.labeled,github:issues.opened",
    ]


def test_agent_show_prints_the_instructions(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents/ai-developer/instructions", {"instructions": [INSTRUCTION]})
    ended = labrats("agent", "show", "ai-developer")
    assert INSTRUCTION["content"] in ended.out
    assert "conduct (local)" in ended.err


def test_agent_create_sends_the_options(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/agents", AGENT)
    settings = ("--provider", "claude", "--network", "npm,*.example.com", "--isolation", "sandbox", "--no-enabled")
    setup = ("--setup", "npm ci", "--setup-network", "npm", "--cache", "package-lock.json:node_modules")
    ended = labrats("agent", "create", "careful", *settings, "--instruction", "conduct", *setup)
    assert ended == (0, "", "careful created\n")
    assert engine.requests[0].json == {
        "name": "careful",
        "enabled": False,
        "defaultProvider": "claude",
        "defaultNetwork": {"allow": ["npm", "*.example.com"]},
        "defaultIsolation": "sandbox",
        "instructions": ["conduct"],
        "workspaceSetup": {
            "setup": [["npm", "ci"]],
            "setupNetwork": {"allow": ["npm"]},
            "cache": [{"key": "package-lock.json", "path": "node_modules"}],
        },
    }


def test_agent_set_keeps_the_rest_of_the_setup(labrats: Labrats, engine: ScriptedEngine) -> None:
    setup = {"setup": [["npm", "ci"]], "setupTimeoutMs": 1000}
    engine.answers("GET /api/agents/ai-developer", AGENT | {"workspaceSetup": setup})
    engine.answers("PATCH /api/agents/ai-developer", AGENT)
    assert labrats("agent", "set", "ai-developer", "--setup", "make deps").err == "ai-developer changed\n"
    changes = {"workspaceSetup": {"setup": [["make", "deps"]], "setupTimeoutMs": 1000}}
    assert engine.requests[-1].json == changes


def test_agent_set_sends_the_result_schema_of_a_file(labrats: Labrats, engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.answers("PATCH /api/agents/ai-developer", AGENT)
    (tmp_path / "risk.json").write_text('{"type": "object"}')
    assert labrats("agent", "set", "ai-developer", "--result-schema", str(tmp_path / "risk.json")).code == 0
    assert engine.requests[-1].json == {"resultSchema": {"type": "object"}}


def test_agent_set_needs_an_option(labrats: Labrats) -> None:
    ended = labrats("agent", "set", "ai-developer")
    assert (ended.code, "nothing to change" in ended.err) == (2, True)


def test_agent_delete_reports_it(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("DELETE /api/agents/ai-developer", None)
    assert labrats("agent", "delete", "ai-developer") == (0, "", "ai-developer deleted\n")


def test_agent_seed_reports_how_many_agents_were_added(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/agents/seed", {"seeded": 5})
    assert labrats("agent", "seed") == (0, "", "5 agents added\n")


def test_instruction_list_filters_by_scope(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/instructions", {"instructions": [INSTRUCTION]})
    _, row = labrats("instruction", "list", "--scope", "local").out.splitlines()
    assert row.split() == ["conduct", "local", "0", "How", "to", "work"]
    assert engine.requests[0].path == "/api/instructions?scope=local"


def test_instruction_show_prints_the_content(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/instructions/conduct", INSTRUCTION)
    assert labrats("instruction", "show", "conduct").out.strip() == INSTRUCTION["content"]

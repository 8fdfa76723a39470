"""`labrats agent …` and `labrats instruction …`."""

from pathlib import Path
from typing import Any

import pytest

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


def test_agent_list_shows_the_network_and_the_isolation(labrats: Labrats, engine: ScriptedEngine) -> None:
    contained = AGENT | {"defaultNetwork": {"allow": ["npm", "*.example.com"]}, "defaultIsolation": "vm"}
    engine.answers("GET /api/agents", {"agents": [contained]})
    headings, row = labrats("agent", "list").out.splitlines()
    assert headings.split()[-3:-1] == ["NETWORK", "ISOLATION"]
    assert row.split()[-3:-1] == ["npm,*.example.com", "vm"]


def test_agent_show_prints_the_settings(labrats: Labrats, engine: ScriptedEngine) -> None:
    settings = {
        "defaultNetwork": "none",
        "defaultIsolation": "sandbox",
        "env": {"CI": "1", "NPM_TOKEN": {"secret": "npm", "key": "token"}},
        "workspaceSetup": {
            "setup": [["npm", "ci"], ["sh", "-c", "make deps"]],
            "setupTimeoutMs": 90_000,
            "setupNetwork": {"allow": ["npm"]},
            "cache": [{"key": "package-lock.json", "path": "node_modules"}],
        },
    }
    engine.answers("GET /api/agents/ai-developer", AGENT | settings)
    engine.answers("GET /api/agents/ai-developer/instructions", {"instructions": []})
    assert labrats("agent", "show", "ai-developer").out.splitlines() == [
        "trigger name developer",
        "enabled      yes",
        "provider     claude",
        "network      none",
        "isolation    sandbox",
        "env          CI=1, NPM_TOKEN (key token of the Secret npm)",
        "setup        npm ci; sh -c 'make deps' (at most 1m30s; network npm)",
        "caches       package-lock.json:node_modules",
        "trigger      github:issues.labeled,github:issues.opened",
    ]


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"network": {"allow": ["npm", "pypi"]}, "isolation": "vm"}, " (network npm,pypi, isolation vm)"),
        ({"network": "none"}, " (network none)"),
        ({"isolation": "sandbox", "model": "opus"}, " (isolation sandbox)"),
        ({"model": "opus"}, ""),
    ],
)
def test_triggers_show_their_network_and_isolation(
    labrats: Labrats, engine: ScriptedEngine, config: dict[str, Any], shown: str
) -> None:
    trigger = {"source": "github", "events": ["push"], "config": config}
    engine.answers("GET /api/agents", {"agents": [AGENT | {"eventTriggers": [trigger]}]})
    engine.answers("GET /api/agents/ai-developer", AGENT | {"eventTriggers": [trigger]})
    engine.answers("GET /api/agents/ai-developer/instructions", {"instructions": []})
    assert labrats("agent", "show", "ai-developer").out.splitlines()[-1] == f"trigger      github:push{shown}"
    assert labrats("agent", "list").out.splitlines()[-1].endswith(f"github:push{shown}")


def test_agent_show_prints_the_instructions(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents/ai-developer", AGENT)
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


@pytest.mark.parametrize(("command", "call"), [("create", "POST /api/agents"), ("set", "PATCH /api/agents/careful")])
def test_agent_gets_variables(labrats: Labrats, engine: ScriptedEngine, command: str, call: str) -> None:
    engine.answers(call, AGENT)
    assert labrats("agent", command, "careful", "--env", "CI=1", "--env", "TOKEN=secret:npm/token").code == 0
    assert engine.requests[-1].json["env"] == {"CI": "1", "TOKEN": {"secret": "npm", "key": "token"}}


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


def test_agent_set_removes_settings(labrats: Labrats, engine: ScriptedEngine) -> None:
    setup = {"setup": [["npm", "ci"]], "setupTimeoutMs": 1000}
    engine.answers("GET /api/agents/ai-developer", AGENT | {"workspaceSetup": setup})
    engine.answers("PATCH /api/agents/ai-developer", AGENT)
    unset = [part for name in ("network", "isolation", "env", "setup-timeout") for part in ("--unset", name)]
    assert labrats("agent", "set", "ai-developer", *unset, "--model", "opus").err == "ai-developer changed\n"
    assert engine.requests[-1].json == {
        "defaultModel": "opus",
        "defaultNetwork": None,
        "defaultIsolation": None,
        "env": None,
        "workspaceSetup": {"setup": [["npm", "ci"]]},
    }


def test_agent_set_removes_the_whole_setup(labrats: Labrats, engine: ScriptedEngine) -> None:
    setup = {"setup": [["npm", "ci"]], "cache": [{"key": "a", "path": "b"}]}
    engine.answers("GET /api/agents/ai-developer", AGENT | {"workspaceSetup": setup})
    engine.answers("PATCH /api/agents/ai-developer", AGENT)
    assert labrats("agent", "set", "ai-developer", "--unset", "setup", "--unset", "cache").code == 0
    assert engine.requests[-1].json == {"workspaceSetup": None}


def test_agent_set_removes_no_setup_that_fills_caches(labrats: Labrats, engine: ScriptedEngine) -> None:
    setup = {"setup": [["npm", "ci"]], "cache": [{"key": "a", "path": "b"}]}
    engine.answers("GET /api/agents/ai-developer", AGENT | {"workspaceSetup": setup})
    ended = labrats("agent", "set", "ai-developer", "--unset", "setup")
    assert (ended.code, "pass --unset cache, too" in ended.err) == (2, True)
    assert [request.method for request in engine.requests] == ["GET"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unset", "name"], "--unset name: pass one of provider, model"),
        (["--unset", "network", "--network", "none"], "--unset network and --network exclude each other"),
        (["--unset", "env", "--env", "CI=1"], "--unset env and --env exclude each other"),
        (["--unset", "setup", "--setup", "make"], "--unset setup and --setup exclude each other"),
    ],
)
def test_agent_set_refuses_settings_that_it_cannot_remove(labrats: Labrats, options: list[str], message: str) -> None:
    ended = labrats("agent", "set", "ai-developer", *options)
    assert (ended.code, message in ended.err) == (2, True)


def test_agent_set_needs_an_option(labrats: Labrats) -> None:
    ended = labrats("agent", "set", "ai-developer")
    assert (ended.code, "nothing to change" in ended.err) == (2, True)


def test_agent_delete_reports_it(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("DELETE /api/agents/ai-developer", None)
    assert labrats("agent", "delete", "ai-developer") == (0, "", "ai-developer deleted\n")


def test_agent_gets_the_triggers_of_the_default_agent(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("PATCH /api/agents/ai-reviewer", {"name": "ai-reviewer"})
    assert labrats("agent", "set", "ai-reviewer", "--default-triggers").code == 0
    (trigger,) = engine.requests[0].json["eventTriggers"]
    assert "pull_request.synchronize" in trigger["events"]
    assert trigger["concurrency"] == {
        "key": "{{ agent }} {{ repo }}#{{ number }}",
        "onNew": "supersede",
        "debounceSeconds": 30,
    }
    ended = labrats("agent", "set", "mine", "--default-triggers")
    assert (ended.code, "no default agent has the name 'mine'" in ended.err) == (2, True)


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

"""`labrats doctor` on the real machine, and with programs that are missing or fail."""

import asyncio
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.backends.embedded.database import open_for_writing
from labrats.backends.embedded.store import EmbeddedStore
from labrats.model.agent import AiAgent
from labrats.model.ai_model import AiModel, AiModelSpec, Prices
from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound
from labrats.model.provider_spec import PROVIDER_SPECS
from labrats.model.record import Metadata, Resource
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from labrats.seeds import default_agents
from tests.unit.cli.engines import Labrats


def findings(labrats: Labrats) -> tuple[int, Mapping[str, tuple[str, str]]]:
    """Return the exit code, and the result and detail of each check."""
    ended = labrats("doctor", "--json")
    return ended.code, {each["check"]: (each["result"], each["detail"]) for each in json.loads(ended.out)}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder on PATH, which is empty."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_everything_works_on_this_machine(labrats: Labrats) -> None:
    code, found = findings(labrats)
    assert code == 0
    assert found["git"][0] == "ok"
    assert found["git"][1].startswith("git version ")
    assert found["isolation: sandbox"][0] == "ok"
    assert found["network rules"] == ("ok", "config.network can be enforced")
    assert found["network of agents"][0] == "ok"
    assert found["network of agents"][1].startswith("public, the default")
    assert found["isolation: vm"] == ("missing", "needs Kubernetes")
    assert "isolation: sandbox    ok" in labrats("doctor").out


def test_limits_of_jobs_are_shown_and_missing_ones_named(
    labrats: Labrats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABRATS_DATA_DIR", str(tmp_path / "no" / "such"))
    found = findings(labrats)[1]
    names = "LABRATS_AGENT_MEMORY, LABRATS_AGENT_PROCESSES, LABRATS_AGENT_CPUS, LABRATS_WORKSPACE_GIB"
    assert found["limits of a job"] == ("missing", f"no limit without {names}")
    kept = "1 GiB are kept free; workspaces any size (LABRATS_WORKSPACES_GIB)"
    assert re.search(rf"GiB free in {tmp_path}, of which {re.escape(kept)}", found["disk"][1])
    assert "caches 10 GiB" in found["disk"][1]

    limits = {
        "AGENT_MEMORY": "4Gi",
        "AGENT_PROCESSES": "200",
        "AGENT_CPUS": "2",
        "WORKSPACE_GIB": "5",
        "WORKSPACES_GIB": "50",
    }
    for name, value in limits.items():
        monkeypatch.setenv(f"LABRATS_{name}", value)
    found = findings(labrats)[1]
    assert found["limits of a job"] == ("ok", "memory 4 GiB, 200 processes, 2 processors for all jobs, workspace 5 GiB")
    assert "workspaces 50 GiB" in found["disk"][1]


def test_only_missing_limits_of_jobs_are_called_missing(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRATS_AGENT_MEMORY", "4Gi")
    monkeypatch.setenv("LABRATS_WORKSPACE_GIB", "5")
    found = findings(labrats)[1]
    assert found["limits of a job"] == ("ok", "memory 4 GiB, workspace 5 GiB")
    missing = "no limit without LABRATS_AGENT_PROCESSES, LABRATS_AGENT_CPUS"
    assert found["other limits of a job"] == ("missing", missing)


@pytest.mark.parametrize(("name", "value"), [("LABRATS_SANDBOX", "false"), ("LABRATS_ISOLATION", "process")])
def test_sandbox_that_is_not_the_default_is_only_for_jobs_that_ask_for_it(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    code, found = findings(labrats)
    assert code == 0
    assert found["isolation: sandbox"][0] == "ok"
    assert found["isolation: sandbox"][1].endswith(", only for jobs that ask for it")
    assert found["network rules"] == (
        "missing",
        "only for jobs that ask for the isolation `sandbox`, which is not the default here",
    )


@pytest.mark.parametrize(
    ("variables", "name", "problem"),
    [
        ({"LABRATS_ISOLATION": "vm"}, "LABRATS_ISOLATION", "cannot be vm: the levels here are process or sandbox; the"),
        ({"LABRATS_UNTRUSTED_ISOLATION": "vm"}, "LABRATS_UNTRUSTED_ISOLATION", "cannot be vm: the levels here are"),
        (
            {"LABRATS_SANDBOX": "false", "LABRATS_NETWORK": "none"},
            "LABRATS_NETWORK",
            "must be open: agents have no sandbox by default; set LABRATS_ISOLATION=sandbox",
        ),
    ],
)
def test_setting_that_this_machine_cannot_meet_fails(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], name: str, problem: str
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    code, found = findings(labrats)
    assert (code, found[name][0]) == (1, "fails")
    assert found[name][1].startswith(problem)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LABRATS_SANDBOX", "true", "cannot be true: the sandbox does not work here; the engine does not start"),
        ("LABRATS_ISOLATION", "sandbox", "cannot be sandbox: the levels here are process; the engine does not start"),
        ("LABRATS_UNTRUSTED_ISOLATION", "sandbox", "cannot be sandbox: the levels here are process"),
        (
            "LABRATS_NETWORK",
            "none",
            "must be open: network rules cannot be enforced here; jobs without a rule of their own are refused",
        ),
    ],
)
def test_setting_that_needs_a_missing_sandbox_fails(
    labrats: Labrats, programs: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    (programs / "git").write_text("#!/bin/sh\necho git version 2\n")
    (programs / "git").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("LABRATS_SANDBOX", "false")
        assert findings(labrats)[0] == 0
    monkeypatch.setenv(name, value)
    code, found = findings(labrats)
    assert (code, found[name]) == (1, ("fails", problem))


def test_missing_sandbox_fails_although_no_setting_names_it(labrats: Labrats, programs: Path) -> None:
    (programs / "git").write_text("#!/bin/sh\necho git version 2\n")
    (programs / "git").chmod(0o755)
    code, found = findings(labrats)
    assert (code, found["LABRATS_SANDBOX"][0]) == (1, "fails")
    assert found["LABRATS_SANDBOX"][1].startswith("no sandbox works here, so only jobs of administrators run; install")


def test_open_network_of_an_older_data_folder_is_shown(
    labrats: Labrats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABRATS_DATA_DIR", str(tmp_path / "older"))
    with closing(open_for_writing(tmp_path / "older" / "labrats.db")) as connection:
        connection.execute("UPDATE origin SET schema_version = 3")
    result, detail = findings(labrats)[1]["network of agents"]
    assert result == "missing"
    assert detail.endswith("set LABRATS_NETWORK=public, the default for new data folders")
    monkeypatch.setenv("LABRATS_NETWORK", "npm")
    assert findings(labrats)[1]["network of agents"][0] == "ok"


def test_network_without_a_sandbox_is_shown_as_open(labrats: Labrats, programs: Path) -> None:
    result, detail = findings(labrats)[1]["network of agents"]
    assert result == "missing"
    assert detail.startswith("open: ")
    assert detail.endswith("rules need the sandbox")


@pytest.mark.parametrize(
    ("name", "value"), [("LABRATS_SANDBOX", "true"), ("LABRATS_ISOLATION", "sandbox"), ("LABRATS_NETWORK", "npm")]
)
def test_setting_that_this_machine_meets_is_not_listed(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    code, found = findings(labrats)
    assert (code, found.get(name)) == (0, None)


def test_a_disk_with_less_than_is_kept_free_fails(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRATS_FREE_GIB", "1000000")
    code, found = findings(labrats)
    assert (code, found["disk"][0]) == (1, "fails")
    assert "the outputs of old jobs are deleted" in found["disk"][1]


def test_configured_program_that_is_none_is_named(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRATS_CLAUDE_PATH", "/no/such/claude")
    assert findings(labrats)[1]["Claude Code"] == (
        "missing",
        "LABRATS_CLAUDE_PATH is /no/such/claude, which is no program",
    )


def test_advice_is_wrapped_on_a_terminal(labrats: Labrats, on_terminal: Callable[[], None]) -> None:
    on_terminal()
    out = re.sub(r"\x1b\[[0-9;]*m", "", labrats("doctor").out)
    assert "…" not in out
    assert "LABRATS_WORKSPACE_GIB" in out
    assert max(len(line) for line in out.splitlines()) <= 100


def test_missing_programs_are_named_with_a_remedy(labrats: Labrats, programs: Path) -> None:
    code, found = findings(labrats)
    assert code == 1
    assert found["git"] == ("missing", "install git: repositories are cloned with it")
    assert found["Claude Code"][0] == "missing"
    advice = "bwrap is not on PATH; install bubblewrap 0.8 or newer, and allow unprivileged user namespaces"
    assert found["isolation: sandbox"] == ("missing", advice)
    assert found["network rules"] == ("missing", "need the sandbox")


def test_programs_that_this_user_may_not_execute_are_named_with_their_path(labrats: Labrats, programs: Path) -> None:
    for name in ("git", "claude", "bwrap"):
        (programs / name).touch(mode=0o644)
    code, found = findings(labrats)
    assert code == 1
    for check, name in (("git", "git"), ("Claude Code", "claude"), ("isolation: sandbox", "bwrap")):
        assert found[check][0] == "fails"
        assert found[check][1].startswith("permission denied: the user ")
        assert found[check][1].endswith(f" may not execute {programs / name}")


def test_programs_that_fail_are_named_with_their_problem(labrats: Labrats, programs: Path) -> None:
    for name, script in (("git", "exit 3"), ("bwrap", "echo no namespaces >&2; exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    code, found = findings(labrats)
    assert code == 1
    assert found["git"] == ("fails", f"{programs / 'git'} --version exited with 3")
    assert found["isolation: sandbox"][0] == "fails"
    assert found["isolation: sandbox"][1].startswith("bwrap failed: no namespaces; install bubblewrap")


def test_program_of_a_setting_is_examined(labrats: Labrats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "my-claude"
    program.write_text("#!/bin/sh\necho 9.9.9\n")
    program.chmod(0o755)
    monkeypatch.setenv("LABRATS_CLAUDE_PATH", os.fspath(program))
    assert findings(labrats)[1]["Claude Code"] == ("ok", f"9.9.9 ({program})")


def test_default_agent_of_an_earlier_version_is_named_with_the_command_that_changes_it(
    labrats: Labrats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABRATS_DATA_DIR", str(tmp_path / "data"))
    assert "agent ai-reviewer" not in findings(labrats)[1]

    (default,) = [agent for agent, _ in default_agents() if agent.name == "ai-reviewer"]
    (trigger,) = default.spec.event_triggers
    former = replace(trigger, events=trigger.events[:-1], concurrency=None)

    async def store(agent: AiAgent) -> None:
        async with EmbeddedStore.open(tmp_path / "data" / "labrats.db") as store:
            with suppress(NotFound):
                await store.delete(AiAgent, agent.name)
            await store.create(agent)

    asyncio.run(store(replace(default, spec=replace(default.spec, event_triggers=(former,)))))
    code, found = findings(labrats)
    detail = "does not review commits that are pushed later: `labrats agent set ai-reviewer --default-triggers`"
    assert (code, found["agent ai-reviewer"]) == (0, ("missing", detail))

    asyncio.run(store(default))
    assert "agent ai-reviewer" not in findings(labrats)[1]


def test_model_with_a_free_cache_is_named_with_the_command_that_changes_it(
    labrats: Labrats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABRATS_DATA_DIR", str(tmp_path / "data"))

    async def store(*names_and_prices: tuple[str, Prices | None]) -> None:
        async with EmbeddedStore.open(tmp_path / "data" / "labrats.db") as store:
            for name, prices in names_and_prices:
                spec = AiModelSpec(provider="codex", model=name, prices=prices)
                await store.create(AiModel(metadata=Metadata(name=name), spec=spec))

    free, unset, own = Prices(input=5, cache_read=0), Prices(input=5), Prices(cache_read=0)
    asyncio.run(store(("free", free), ("unset", unset), ("own", own), ("unknown", None), ("gpt-5", None)))
    found = findings(labrats)[1]
    assert {check for check in found if check.startswith("model ")} == {"model free", "model unknown"}
    command = "`labrats model set unknown --input-price USD --output-price USD`, per million tokens"
    assert found["model unknown"] == ("missing", f"the cost of its jobs is unknown: {command}")
    detail = "input from the cache costs nothing: `labrats model set free --cache-read-price 0.5`, or its price"
    assert found["model free"] == ("missing", detail)


def test_providers_are_examined_as_labrats_connect_does(
    labrats: Labrats, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (name for names in (spec.keys for spec in PROVIDER_SPECS.values()) for name in names):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LABRATS_DATA_DIR", str(tmp_path / "data"))
    for name in ("claude", "codex"):
        (programs / name).write_text("#!/bin/sh\necho 9.9.9\n")
        (programs / name).chmod(0o755)

    async def store(*resources: Resource) -> None:
        async with EmbeddedStore.open(tmp_path / "data" / "labrats.db") as store:
            for resource in resources:
                await store.create(resource)

    spec = AiModelSpec(provider="codex", model="codex", credentials_ref="codex-api-key")
    asyncio.run(
        store(
            Secret(metadata=Metadata(name="codex-api-key"), data={"OPENAI_API_KEY": "test-key"}),
            AiModel(metadata=Metadata(name="codex"), spec=spec),
            AiModel(metadata=Metadata(name="local"), spec=AiModelSpec(provider="vllm", model="coder")),
        )
    )
    found = {check: rest for check, rest in findings(labrats)[1].items() if check.startswith("provider ")}
    assert found == {
        "provider claude": ("missing", "no credentials are stored: `labrats connect claude`"),
        "provider codex": ("ok", "can run jobs"),
        "provider vllm": (
            "missing",
            "the AiModel local has no endpoint: `labrats model set local --endpoint http://127.0.0.1:8000/v1`",
        ),
        "provider mock": ("ok", "can run jobs"),
    }


def test_connection_with_github_is_examined_as_labrats_connect_does(
    labrats: Labrats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABRATS_DATA_DIR", str(tmp_path / "data"))

    async def store(*resources: Resource) -> None:
        async with EmbeddedStore.open(tmp_path / "data" / "labrats.db") as store:
            for resource in resources:
                await store.create(resource)

    asyncio.run(store())
    assert findings(labrats)[1]["GitHub"] == ("missing", "no repository is connected: `labrats connect github`")
    spec = WebhookSourceSpec(type="github", mode="poll", repositories=("octo/demo",), credentials_ref="github-token")
    asyncio.run(
        store(
            Secret(metadata=Metadata(name="github-token"), data={"token": "test-token"}),
            WebhookSource(metadata=Metadata(name="github"), spec=spec),
        )
    )
    assert findings(labrats)[1]["GitHub"] == ("ok", "the source github reads octo/demo")


def test_old_agent_program_is_named_with_the_minimum_version(labrats: Labrats, programs: Path) -> None:
    (programs / "claude").write_text("#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    (programs / "claude").chmod(0o755)
    result, detail = findings(labrats)[1]["Claude Code"]
    assert result == "missing"
    assert detail.startswith("Claude Code 2.1.197 is older than 2.1.331")


@pytest.mark.parametrize(("program", "result"), [("true", "ok"), ("false", "missing")])
def test_control_groups_of_a_scope_are_found_if_systemd_makes_one(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, program: str, result: str
) -> None:
    monkeypatch.setattr("labrats.sandbox.control_groups.delegated_group", lambda: None)
    monkeypatch.setattr("labrats.sandbox.control_groups.scope_command", lambda: [program])
    assert findings(labrats)[1]["control groups"][0] == result

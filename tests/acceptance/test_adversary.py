"""A malicious agent harms its own job at most.

Without a sandbox, processes of one user can attack each other; docs/architecture.md lists the attacks that the engine
cannot prevent. These tests try what a runaway or hijacked agent does first. An honest job runs beside each of them,
and must not be affected.
"""

import base64
import inspect
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.acceptance import adversary
from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User
from tests.support.claude_login import share_login
from tests.support.impatient_labrats import constants
from tests.support.waiting import eventually

KEY = "test-key+of/a model 0123456789"
MAX_ENGINE_KILOBYTES = 400_000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adversary as a program that the engine starts in place of Claude Code."""
    program = tmp_path_factory.mktemp("programs") / "adversary"
    program.write_text(f"#!/usr/bin/env python3\n{inspect.getsource(adversary)}")
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[LocalEngine]:
    suspended = constants({"labrats.backends.embedded.launcher_client.SPAWN_SECONDS": 5})
    environment = environment_with(program) | {"LABRATS_SANDBOX": "false"} | suspended
    with engine_in(tmp_path_factory.mktemp("engine"), **environment) as engine:
        yield engine


@contextmanager
def engine_in(folder: Path, **environment: str) -> Iterator[LocalEngine]:
    """Run an engine, and delete its folder at the end: one attack nests folders deeper than pytest can delete."""
    with LocalEngine(folder, **environment) as engine:
        yield engine
    subprocess.run(["rm", "-rf", "--", folder], check=True)


def environment_with(program: Path) -> dict[str, str]:
    """Return the environment of an engine. PATH finds the system's Python: a sandbox hides one in a home folder."""
    path = "/usr/local/bin:/usr/bin:/bin"
    return {"LABRATS_CLAUDE_PATH": str(program), "ANTHROPIC_API_KEY": KEY, "PATH": path}


EITHER = "completed or timeout"
"""Either the executor kills the agent's processes, or the engine does so at the deadline."""

ATTACKS = {
    "print_a_line_of_100_megabytes": "completed",
    "print_an_endless_line": "timeout",
    "print_endless_empty_lines": "timeout",
    "print_endless_text": "timeout",
    "return_a_result_of_60_megabytes": "completed",
    "report_absurd_usage": "completed",
    "print_deeply_nested_events": "completed",
    "leave_detached_processes": "completed",
    "leave_a_process_that_keeps_forking": EITHER,
    "ignore_signals_and_hang": "timeout",
    "leave_a_child_that_holds_the_output": "completed",
    "start_a_process_with_a_huge_environment": "completed",
    "kill_the_executor": "executor_died",
    "suspend_the_executor": "timeout",
    "kill_the_launcher": "completed",
    "suspend_the_launcher": "completed",
    "replace_files_by_pipes": "lost",
    "replace_files_by_folders": "lost",
    "replace_files_by_links": "executor_died",
    "inflate_files": "lost",
    "forge_a_claim_by_the_engine": "timeout",
    "delete_the_attempt_folder": "timeout",
    "forge_an_outcome": "completed",
    "leave_special_files": "completed",
    "leave_folders_beyond_the_path_limit": "completed",
}
"""The function that the agent runs, and the status or failure code of its job."""


@pytest.mark.parametrize(("attack", "end"), ATTACKS.items())
async def test_malicious_agent_affects_no_other_job(
    engine: LocalEngine, user: User, program: Path, attack: str, end: str
) -> None:
    await check_that_no_other_job_is_affected(engine, user, program, attack, end)


SANDBOXED_ATTACKS = {
    "leave_detached_processes": "completed",
    "leave_a_process_that_keeps_forking": "completed",
    "kill_the_executor": "timeout",
    "replace_files_by_pipes": "completed",
    "inflate_files": "completed",
    "delete_the_attempt_folder": "completed",
}
"""Some attacks, and their results in a sandbox, where the agent sees neither its executor nor the engine's files."""


@pytest.fixture(scope="module")
def sandboxing_engine(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[LocalEngine]:
    environment = environment_with(program) | {"LABRATS_SANDBOX": "true"}
    with engine_in(tmp_path_factory.mktemp("engine"), **environment) as engine:
        yield engine


@pytest.mark.parametrize(("attack", "end"), SANDBOXED_ATTACKS.items())
async def test_malicious_agent_in_a_sandbox_affects_no_other_job(
    sandboxing_engine: LocalEngine, program: Path, attack: str, end: str
) -> None:
    async with sandboxing_engine.user() as user:
        await check_that_no_other_job_is_affected(sandboxing_engine, user, program, attack, end)


async def check_that_no_other_job_is_affected(
    engine: LocalEngine, user: User, program: Path, attack: str, end: str
) -> None:
    bystander = await user.submit({"log": "tick {n}", "times": 20, "everyMs": 50}, {"result": "unharmed"})

    detail = await run(user, attack, seconds=3 if "timeout" in end else 120)

    assert (detail["failedCode"] or detail["status"]) in end.split(" or "), detail["failedReason"]
    assert min(value for value in detail["usage"].values() if isinstance(value, int | float)) >= 0
    await read_output_of(user, detail["id"])
    assert (await user.wait(bystander))["result"] == "unharmed"
    assert await user.log_lines(bystander) == [f"tick {n}" for n in range(1, 21)]
    assert (await user.run({"result": "next"}))["result"] == "next"
    await eventually(lambda: not processes_of(program))
    assert peak_kilobytes(engine.pid) < MAX_ENGINE_KILOBYTES


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", None], ids=["key", "token", "login"])
async def test_model_key_printed_by_an_agent_is_neither_stored_nor_shown(
    program: Path, start_program: EngineFactory, tmp_path: Path, name: str | None
) -> None:
    """A key is behind a proxy, whose token the agent prints. A shared login is given to the agent."""
    environment = environment_with(program)
    key = environment.pop("ANTHROPIC_API_KEY")
    environment |= share_login(tmp_path, key) if name is None else {name: key}
    engine = start_program(**environment)
    async with engine.user() as user:
        detail = await run(user, "print_the_key_in_every_form", seconds=120)
        shown = json.dumps(detail) + await read_output_of(user, detail["id"])

    assert detail["failedReason"].startswith("Claude Code failed: the key is [redacted]")
    assert detail["keyExposed"] is (name is None)
    attempt = f"{detail['id']}-1"
    own = f"{attempt}/tmp/", f"{attempt}/home/.claude/.credentials.json"  # the agent's folder, and a link to the login
    for form in forms_of(KEY):
        assert form not in shown
        assert form not in engine.log
        assert [file for file in engine.files_with(form) if not any(each in file for each in own)] == []
        assert engine.resources_with(form) == []


async def run(user: User, attack: str, seconds: int) -> dict[str, Any]:
    """Run the adversary in a job, and return the job's detail once it has ended."""
    config = {"provider": "claude", "model": "any", "timeoutMs": seconds * 1000}
    return await user.wait(await user.submit(prompt=attack, config=config))


async def read_output_of(user: User, job_id: str) -> str:
    """Return everything that the engine shows of a job besides its detail: log, events and patch."""
    events = await user.get(f"/api/jobs/{job_id}/events", limit=1000)
    patch = await user.get(f"/api/jobs/{job_id}/patch")
    assert (events.status_code, patch.status_code) in ((200, 200), (200, 404))
    shown = "\n".join([*await user.log_lines(job_id), events.text, patch.text])
    assert not re.search(r"lr_[\w-]{43}", shown)  # the admin key, to which the adversary creates links
    return shown


def forms_of(secret: str) -> list[str]:
    raw = secret.encode()
    return [
        secret, raw.hex(), raw.hex().upper(), json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""),
        base64.b64encode(raw).decode().rstrip("=")[:-1], base64.urlsafe_b64encode(raw).decode().rstrip("=")[:-1],
    ]  # fmt: skip


def processes_of(program: Path) -> list[int]:
    """Return the ids of the adversary's live processes, which all have its path on their command line."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if str(program).encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(int(entry))
        except OSError:  # the process has ended meanwhile
            continue
    return found


def peak_kilobytes(pid: int) -> int:
    """Return the peak memory use of a process."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert peak
    return int(peak[1])

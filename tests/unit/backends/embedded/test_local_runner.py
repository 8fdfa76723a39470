"""The inputs of the local runner's executors, and its failures. tests/conformance checks the contract of Runner."""

import asyncio
import errno
import os
import shutil
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import which
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from labrats.backends.embedded import runner as runner_module
from labrats.backends.embedded.folders import AttemptFolder, Folders
from labrats.backends.embedded.launcher_client import MOST_FAILED_STARTS
from labrats.backends.embedded.runner import LocalRunner, LocalRunnerSettings
from labrats.files.attempt_inputs import TaskSettings
from labrats.files.attempt_output import read_end
from labrats.model.attempt_name import AttemptName
from labrats.model.config import Sampling
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import GiveUp, RetryLater
from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.job import (
    AgentSession,
    FailedCode,
    Job,
    KeyReference,
    WorkspaceFile,
    WorkspaceSetup,
    base_cache_scope,
    cache_scope,
)
from labrats.model.mcp_server import McpServer
from labrats.model.phases import Phase
from labrats.model.protocol import (
    BASELINE_FILE,
    LogEvent,
    ResourceLimits,
    ResultEvent,
    Resumption,
    Sandbox,
    Selection,
    Task,
    decode_event,
)
from labrats.model.record import Metadata
from labrats.ports import Attempt, AttemptState, Gone, NotStarted, Runner
from labrats.processes import ProcessId, process_name, with_environment, with_mount
from tests.conformance.attempts import end_of
from tests.conformance.runner_backends import EmbeddedBackend
from tests.fakes.store import MemoryStore
from tests.support.builders import a_config, a_job, a_session, a_spec, an_ai_model, an_attempt, isolated
from tests.support.waiting import DEADLINE_SECONDS, eventually

CLAUDE = {"provider": "claude", "model": "opus"}
WITH_TOOLS = CLAUDE | {"mcp_servers": {"docs": McpServer(command="docs", credentials_ref="docs-token")}}
TOKEN = "test-token-0123456789"
PROCESS, SANDBOX = Isolation.PROCESS, Isolation.SANDBOX
BOTH = IsolationLevels((PROCESS, SANDBOX), PROCESS)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "attempts", tmp_path / "workspaces")


def a_runner(folders: Folders, store: MemoryStore | None = None, **settings: Any) -> LocalRunner:
    usual: dict[str, Any] = {"folders": folders, "uploads": Path("/uploads"), "environment": {}}
    return LocalRunner(store or MemoryStore(), LocalRunnerSettings(**usual | settings))


def a_running(**spec: Any) -> Job:
    return a_job(Phase.RUNNING, spec=a_spec(**spec))


async def inputs_of(runner: LocalRunner, folders: Folders, attempt: Attempt) -> AttemptFolder:
    """Write the attempt's inputs, and return its folder. Starts no executor, which would delete the secrets."""
    folder = folders.of(attempt.name)
    await runner._write_inputs(attempt, folder)
    return folder


def secrets_in(folder: AttemptFolder) -> dict[str, str]:
    return {file.name: file.read_text() for file in (folder.path / "secrets").glob("*")}


# Inputs


async def test_the_inputs_contain_the_task_and_the_prompt(folders: Folders) -> None:
    setup = WorkspaceSetup(git_repo="https://git.example/r", git_ref="main", git_depth=1)
    files = (WorkspaceFile(name="a.txt", path="jobs/1/0", size=3),)
    job = a_running(workspace_setup=setup, workspace_files=files, prompt="Grüße", config={"max_turns": 7})
    ai_model = an_ai_model(endpoint="http://127.0.0.1:8080/v1", sampling=Sampling(temperature=0.2))
    runner = a_runner(
        folders,
        task=TaskSettings(
            programs={"claude": "/opt/claude"},
            git_addresses=("10.0.0.0/8",),
            repo_roots=("/srv",),
            cli_login=True,
            idle_seconds=60.0,
            caches_bytes=1000,
        ),
        caches=Path("/caches"),
    )
    folder = await inputs_of(runner, folders, Attempt(job, ai_model))
    assert msgspec.json.decode((folder.path / "job.json").read_bytes(), type=Task) == Task(
        job_id=job.id,
        attempt=f"{job.id}-1",
        number=1,
        workspace=str(folder.workspace),
        config=replace(a_config(max_turns=7).config, sampling=Sampling(temperature=0.2)),
        workspace_setup=setup,
        workspace_files=(WorkspaceFile(name="a.txt", path="/uploads/jobs/1/0", size=3),),
        endpoint="http://127.0.0.1:8080/v1",
        programs={"claude": "/opt/claude"},
        git_addresses=("10.0.0.0/8",),
        repo_roots=("/srv",),
        cli_login=True,
        idle_seconds=60.0,
        caches=f"/caches/{cache_scope(job)}",
        base_caches=f"/caches/{base_cache_scope(job)}",
        caches_bytes=1000,
        selection=Selection(origins=job.resolved.origins, ai_model=ai_model.name),
    )
    assert (folder.path / "prompt").read_text("utf-8") == "Grüße"


async def test_the_engines_own_secrets_are_in_no_file_of_an_attempt(folders: Folders) -> None:
    runner = a_runner(folders, own_secrets=(TOKEN,))
    folder = await inputs_of(runner, folders, an_attempt())
    assert sorted(path.name for path in folder.path.iterdir()) == ["job.json", "prompt"]
    assert not any(TOKEN in path.read_text() for path in folder.path.iterdir())


async def test_only_the_owner_can_read_the_inputs(folders: Folders) -> None:
    runner = a_runner(folders, environment={"ANTHROPIC_API_KEY": TOKEN})
    folder = await inputs_of(runner, folders, Attempt(a_running(config=CLAUDE)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder.path, *folder.path.rglob("*")]}
    assert modes.pop(folder.path.name) == modes.pop("secrets") == 0o700
    assert modes == {"job.json": 0o600, "prompt": 0o600, "ANTHROPIC_API_KEY": 0o600}


async def test_a_long_prompt_comes_from_its_config_map(folders: Folders) -> None:
    store = MemoryStore()
    await store.create(ConfigMap(metadata=Metadata(name="ir-prompt"), data={"prompt": "x" * 100_000}))
    job = a_running(prompt=None, prompt_ref=KeyReference(name="ir-prompt", key="prompt"))
    folder = await inputs_of(a_runner(folders, store), folders, Attempt(job))
    assert (folder.path / "prompt").read_text() == "x" * 100_000


async def test_instructions_are_written_beside_the_prompt(folders: Folders) -> None:
    store = MemoryStore()
    await store.create(ConfigMap(metadata=Metadata(name="ir-prompt"), data={"instructions": "Be kind."}))
    job = a_running(instructions_ref=KeyReference(name="ir-prompt", key="instructions"))
    folder = await inputs_of(a_runner(folders, store), folders, Attempt(job))
    assert (folder.path / "instructions").read_text() == "Be kind."


async def test_texts_in_the_status_of_an_applied_job_are_written_too(folders: Folders) -> None:
    store = MemoryStore()
    await store.create(ConfigMap(metadata=Metadata(name="texts"), data={"prompt": "Look!", "instructions": "Be kind."}))
    job = a_running(prompt="Too long.")
    refs = {f"{key}_ref": KeyReference(name="texts", key=key) for key in ("prompt", "instructions")}
    job = replace(job, status=replace(job.status, **refs))
    folder = await inputs_of(a_runner(folders, store), folders, Attempt(job))
    assert [(folder.path / name).read_text() for name in ("prompt", "instructions")] == ["Look!", "Be kind."]


async def test_credentials_come_from_the_secret_of_the_ai_model(folders: Folders) -> None:
    """Only the keys that the provider reads are written, and none from the engine's environment."""
    store = MemoryStore()
    data = {"ANTHROPIC_API_KEY": TOKEN, "OTHER_KEY": "test-other"}
    await store.create(Secret(metadata=Metadata(name="claude-key"), data=data))
    runner = a_runner(folders, store, environment={"CLAUDE_CODE_OAUTH_TOKEN": "test-of-the-engine"})
    ai_model = an_ai_model(provider="claude", model="opus", credentials_ref="claude-key")
    folder = await inputs_of(runner, folders, Attempt(a_running(config=CLAUDE), ai_model))
    assert secrets_in(folder) == {"ANTHROPIC_API_KEY": TOKEN}


async def test_credentials_without_a_secret_come_from_the_engines_environment(folders: Folders) -> None:
    environment = {"ANTHROPIC_API_KEY": TOKEN, "ANTHROPIC_AUTH_TOKEN": "", "OPENAI_API_KEY": "test-of-another-provider"}
    runner = a_runner(folders, environment=environment)
    for ai_model in (None, an_ai_model(provider="claude", model="opus")):
        folder = await inputs_of(runner, folders, Attempt(a_running(config=CLAUDE), ai_model))
        assert secrets_in(folder) == {"ANTHROPIC_API_KEY": TOKEN}
    local = an_ai_model(provider="vllm", model="smol", endpoint="http://127.0.0.1:1")
    folder = await inputs_of(runner, folders, Attempt(a_running(config={"provider": "vllm", "model": "smol"}), local))
    assert secrets_in(folder) == {}, "the key is Codex's"


async def test_an_executor_is_watched_once_there_is_a_descriptor_for_it(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pidfd_open(pid: int) -> int:
        calls.append(pid)
        if len(calls) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(pid)

    calls, real = list[int](), os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    monkeypatch.setattr(runner_module, "ADOPT_SECONDS", 0.01)
    attempt = an_attempt([{"sleepMs": 300}, {"result": "done"}])
    async with a_runner(folders) as runner:
        await runner.start(attempt)
        await runner.find(attempt.name)
        await asyncio.sleep(0.1)
        assert len(calls) == 3, "each executor is watched once"
        assert isinstance((await end_of(runner, attempt)).outcome, ResultEvent)


async def test_the_ai_models_endpoint_overrides_the_engines_environment(folders: Folders) -> None:
    runner = a_runner(folders, environment={"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"})
    endpoints = {None: "http://127.0.0.1:1", "http://127.0.0.1:2": "http://127.0.0.1:2"}
    for configured, endpoint in endpoints.items():
        ai_model = an_ai_model(provider="claude", model="opus", endpoint=configured)
        folder = await inputs_of(runner, folders, Attempt(a_running(config=CLAUDE), ai_model))
        assert msgspec.json.decode((folder.path / "job.json").read_bytes(), type=Task).endpoint == endpoint


async def test_repository_credentials_have_names_of_their_own(folders: Folders) -> None:
    store = MemoryStore()
    await store.create(Secret(metadata=Metadata(name="ir-git"), data={"username": "x-access-token", "password": TOKEN}))
    job = a_running(workspace_setup=WorkspaceSetup(git_repo="https://git.example/r", credentials_ref="ir-git"))
    folder = await inputs_of(a_runner(folders, store), folders, Attempt(job))
    assert secrets_in(folder) == {"git-username": "x-access-token", "git-password": TOKEN}
    assert TOKEN not in (folder.path / "job.json").read_text()


async def test_secrets_of_mcp_servers_are_named_after_the_server(folders: Folders) -> None:
    store = MemoryStore()
    await store.create(Secret(metadata=Metadata(name="docs-token"), data={"TOKEN": TOKEN}))
    folder = await inputs_of(a_runner(folders, store), folders, Attempt(a_running(config=WITH_TOOLS)))
    assert secrets_in(folder) == {"mcp.docs.TOKEN": TOKEN}
    assert TOKEN not in (folder.path / "job.json").read_text()


WITHOUT_PROMPT = a_running(prompt=None, prompt_ref=KeyReference(name="gone", key="prompt"))
WITHOUT_INSTRUCTIONS = a_running(instructions_ref=KeyReference(name="gone", key="instructions"))
WITHOUT_TOKEN = a_running(workspace_setup=WorkspaceSetup(git_repo="https://git.example/r", credentials_ref="gone"))
WITHOUT_KEY = a_running(config=CLAUDE)
WITHOUT_TOOLS_KEY = a_running(config=WITH_TOOLS)


@pytest.mark.parametrize(
    ("job", "credentials_ref", "code", "words"),
    [
        (WITHOUT_PROMPT, None, FailedCode.INTERNAL, "prompt is missing"),
        (WITHOUT_INSTRUCTIONS, None, FailedCode.INTERNAL, "instructions are missing"),
        (WITHOUT_TOKEN, None, FailedCode.GIT_CLONE, "repository's credentials .* 'gone'"),
        (WITHOUT_KEY, "gone", FailedCode.AUTH, "credentials of AiModel opus .* 'gone'"),
        (WITHOUT_TOOLS_KEY, None, FailedCode.AUTH, "credentials of the MCP server docs .* 'docs-token'"),
    ],
)
async def test_a_missing_input_fails_the_job_and_is_named(
    folders: Folders, job: Job, credentials_ref: str | None, code: FailedCode, words: str
) -> None:
    ai_model = an_ai_model("opus", provider="claude", model="opus", credentials_ref=credentials_ref)
    async with a_runner(folders) as runner:
        with pytest.raises(GiveUp, match=words) as refusal:
            await runner.start(Attempt(job, ai_model))
        assert refusal.value.code == code
        assert await runner.find(job.attempt_name) == NotStarted()


# File errors


async def test_unwritable_inputs_are_retried_later(folders: Folders) -> None:
    folders.attempts.write_text("in the way of the folder")
    async with a_runner(folders) as runner:
        with pytest.raises(RetryLater, match="cannot be written"):
            await runner.start(an_attempt())


async def test_an_unconfirmed_kill_is_retried_later(folders: Folders) -> None:
    attempt = an_attempt()
    (folders.of(attempt.name).path / "claim.tombstone").mkdir(parents=True)
    async with a_runner(folders) as runner:
        with pytest.raises(RetryLater, match="cannot be prevented from starting"):
            await runner.kill(attempt.name)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[EmbeddedBackend]:
    """A backend whose executors are killed after the test."""
    async with EmbeddedBackend.open(tmp_path) as machine:
        yield machine


async def test_a_running_attempt_is_killed_although_no_file_can_be_written(
    machine: EmbeddedBackend, folders: Folders
) -> None:
    attempt = an_attempt([{"hang": True}])
    async with machine.open_runner() as runner:
        await runner.start(attempt)
        await eventually(lambda: folders.of(attempt.name).executor() is not None)
        (folders.of(attempt.name).path / "claim.tombstone").mkdir()
        await runner.kill(attempt.name)
        assert isinstance(await runner.find(attempt.name), Gone)


async def test_a_killed_attempt_leaves_no_secret_on_disk(machine: EmbeddedBackend, folders: Folders) -> None:
    attempt = an_attempt([{"hang": True}])
    folder = folders.of(attempt.name).path
    async with machine.open_runner() as runner:
        await runner.start(attempt)
        await eventually(lambda: any(file.stat().st_size for file in folder.glob("output.jsonl")))
        for name in ("secrets", "credentials"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "token").write_text(TOKEN)
        await runner.kill(attempt.name)
    assert [file for file in folder.rglob("token") if file.is_file()] == []


async def test_an_attempt_whose_executor_died_before_its_claim_can_be_started_again(
    machine: EmbeddedBackend, folders: Folders
) -> None:
    attempt = an_attempt([{"result": 1}])
    obstacle = folders.of(attempt.name).path / "stderr.log"
    obstacle.mkdir(parents=True)
    async with machine.open_runner() as runner:
        await runner.start(attempt)
        await wait_for_state(runner, attempt.name, NotStarted)
        obstacle.rmdir()
        await runner.start(attempt)
        await wait_for_state(runner, attempt.name, Gone)


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_an_executor_that_was_sent_a_signal_runs_no_further_attempt(
    machine: EmbeddedBackend, folders: Folders, is_stopped: bool
) -> None:
    attempt = an_attempt([{"ignoreSignals": True}, {"log": "ready"}, {"sleepMs": 200}, {"result": 1}])
    async with machine.open_runner() as runner:
        await runner.start(attempt)
        folder = folders.of(attempt.name)
        await eventually(lambda: folder.output.exists() and b"ready" in folder.output.read_bytes())
        claim = folder.executor()
        assert isinstance(claim, ProcessId)
        executor = ProcessId.of(claim.pid)
        assert executor
        if is_stopped:
            await runner.stop(attempt.name)
        await wait_for_state(runner, attempt.name, Gone)

        await eventually(lambda: not executor.is_alive or process_name(executor.pid) == "lr-idle")
        if is_stopped:
            await eventually(lambda: not executor.is_alive)
        assert executor.is_alive is not is_stopped


async def wait_for_state(runner: Runner, name: AttemptName, state: type[AttemptState]) -> None:
    """Wait until a watcher, on a change of the attempt, finds it in `state`."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for changed in runner.watch():
            if changed == name and isinstance(await runner.find(name), state):
                return


# Jobs of external contributors


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({}, False),
        ({"isolation": IsolationLevels((PROCESS,), PROCESS, untrusted=PROCESS)}, True),
        ({"isolation": BOTH, "sandbox": Sandbox(program="/usr/bin/bwrap")}, True),
    ],
    ids=["not confined", "allowed", "confined"],
)
async def test_an_external_contributors_job_runs_only_if_confined_or_allowed(
    folders: Folders, settings: dict[str, Any], runs: bool
) -> None:
    attempt = Attempt(a_running(untrusted=True))
    async with a_runner(folders, **settings) as runner:
        if runs:
            await runner.start(attempt)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not isinstance(await runner.find(attempt.name), Gone):
                    await asyncio.sleep(0.01)
        else:
            with pytest.raises(GiveUp, match="an external contributor caused this job"):
                await runner.start(attempt)
            assert await runner.find(attempt.name) == NotStarted()


@pytest.mark.parametrize(
    ("asked", "default", "untrusted", "is_confined"),
    [
        (None, PROCESS, False, False),
        (None, SANDBOX, False, True),
        (SANDBOX, PROCESS, False, True),
        (PROCESS, SANDBOX, False, False),
        (PROCESS, PROCESS, True, True),
    ],
)
async def test_an_attempt_has_a_sandbox_if_its_job_has_that_isolation(
    folders: Folders, asked: Isolation | None, default: Isolation, untrusted: bool, is_confined: bool
) -> None:
    attempt = isolated(Attempt(a_running(untrusted=untrusted)), asked)
    levels, sandbox = IsolationLevels((PROCESS, SANDBOX), default), Sandbox(program="/usr/bin/bwrap")
    async with a_runner(folders, isolation=levels, sandbox=sandbox) as runner:
        folder = await inputs_of(runner, folders, attempt)
    task = msgspec.json.decode((folder.path / "job.json").read_bytes(), type=Task)
    assert (task.sandbox is not None) == is_confined


async def test_an_attempt_has_the_limits_of_the_engine(folders: Folders) -> None:
    limits = ResourceLimits(memory_bytes=2**30, processes=100)
    async with a_runner(folders, task=TaskSettings(limits=limits)) as runner:
        folder = await inputs_of(runner, folders, Attempt(a_running()))
    assert msgspec.json.decode((folder.path / "job.json").read_bytes(), type=Task).limits == limits


async def test_an_attempt_whose_isolation_is_missing_is_given_up(folders: Folders) -> None:
    attempt = isolated(Attempt(a_running()), Isolation.VM)
    async with a_runner(folders, isolation=BOTH) as runner:
        with pytest.raises(GiveUp, match="cannot be vm: the levels here are process or sandbox") as failure:
            await runner.start(attempt)
        assert failure.value.code == FailedCode.INVALID
        assert await runner.find(attempt.name) == NotStarted()


# Resuming a session


def an_attempt_after(number: int, session: AgentSession | None, **config: Any) -> Attempt:
    """Build attempt `number` of a job with a `session` in its status."""
    job = a_running(config=CLAUDE | config)
    return Attempt(replace(job, status=replace(job.status, attempts=number, session=session)))


def leave_workspace(folder: AttemptFolder) -> AttemptFolder:
    """Create the files that an executor leaves, from which another attempt can resume."""
    folder.path.mkdir(parents=True)
    folder.workspace.mkdir(parents=True)
    (folder.path / "baseline.json").write_text("{}")
    return folder


def task_in(folder: AttemptFolder) -> Task:
    return msgspec.json.decode((folder.path / "job.json").read_bytes(), type=Task)


async def test_an_attempt_resumes_where_its_session_began(folders: Folders) -> None:
    session = a_session(1, provider="claude")
    attempt = an_attempt_after(3, session)
    earlier = leave_workspace(folders.of(AttemptName(attempt.job.id, 1)))
    for runner in (a_runner(folders), a_runner(folders)):  # an engine may die before it has started it
        task = task_in(await inputs_of(runner, folders, attempt))
        assert task.resumption == Resumption(
            session=session, workspace=str(earlier.workspace), folder=str(earlier.path)
        )
        assert task.workspace == str(folders.of(attempt.name).workspace)


async def test_an_attempt_starts_over_without_a_retained_workspace(folders: Folders) -> None:
    session = a_session(1, provider="claude")
    attempt = an_attempt_after(2, session)
    runner = a_runner(folders)
    assert task_in(await inputs_of(runner, folders, attempt)).resumption == Resumption(session=session)
    leave_workspace(folders.of(AttemptName(attempt.job.id, 1)))
    await runner.remove(AttemptName(attempt.job.id, 1), keep_output=True)
    assert task_in(await inputs_of(runner, folders, attempt)).resumption == Resumption(session=session)


@pytest.mark.parametrize("session", [None, a_session(1, provider="codex"), a_session(2, provider="claude")])
async def test_an_attempt_starts_over_without_a_session_of_its_provider(
    folders: Folders, session: AgentSession | None
) -> None:
    attempt = an_attempt_after(2, session)
    for number in (1, 2):
        leave_workspace(folders.of(AttemptName(attempt.job.id, number)))
    assert task_in(await inputs_of(a_runner(folders), folders, attempt)).resumption is None


AGENT = """#!/bin/sh
echo '{"type": "system", "subtype": "init", "session_id": "0190-test"}'
echo "$LABRATS_ATTEMPT" >> worked
exec sleep 300
"""


@pytest.fixture
async def session_runner(machine: EmbeddedBackend, folders: Folders, tmp_path: Path) -> AsyncIterator[LocalRunner]:
    """A runner whose agent begins a session, appends its attempt to a file in the workspace, and sleeps."""
    program = tmp_path / "agent"
    program.write_text(AGENT)
    program.chmod(0o755)
    async with machine.open_runner(programs={"claude": str(program)}) as runner:
        assert isinstance(runner, LocalRunner)
        yield runner


async def test_two_attempts_never_work_in_the_same_workspace(session_runner: LocalRunner, folders: Folders) -> None:
    second = an_attempt_after(2, a_session(1, provider="claude"))
    first = Attempt(replace(second.job, status=replace(second.job.status, attempts=1, session=None)))
    worked = folders.of(first.name).workspace / "worked"
    await session_runner.start(first)
    await eventually(worked.exists)

    with pytest.raises(RetryLater, match="attempt 1 of the job still works"):
        await session_runner.start(second)
    assert await session_runner.find(second.name) == NotStarted()
    await session_runner.kill(first.name)
    await session_runner.start(second)

    await eventually(lambda: worked.read_text().split() == [str(first.name), str(second.name)])
    assert sorted(await session_runner.workspaces()) == [first.name, second.name]


async def test_a_workspace_is_not_removed_while_a_later_attempt_works_in_it(
    session_runner: LocalRunner, folders: Folders
) -> None:
    second = an_attempt_after(2, a_session(1, provider="claude"))
    first = Attempt(replace(second.job, status=replace(second.job.status, attempts=1, session=None)))
    worked = folders.of(first.name).workspace / "worked"
    await session_runner.start(first)
    await eventually(worked.exists)
    await session_runner.kill(first.name)
    await session_runner.start(second)
    await eventually(lambda: str(second.name) in worked.read_text())

    await session_runner.remove(first.name, keep_output=True)
    assert worked.exists()
    await session_runner.kill(second.name)
    await session_runner.remove(first.name, keep_output=True)
    assert not worked.exists()
    assert not (folders.of(first.name).path / "home").exists()


async def test_a_runner_on_a_copied_data_folder_spares_the_attempts_of_the_original(tmp_path: Path) -> None:
    attempt = an_attempt([{"fork": {"seconds": 300}}, {"log": "ready"}, {"hang": True}])
    original, copy = (Folders(tmp_path / name / "attempts", tmp_path / name / "workspaces") for name in "ab")
    async with a_runner(original) as first:
        await first.start(attempt)
        await eventually(lambda: len(with_environment("LABRATS_ATTEMPT", str(attempt.name))) == 1)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        async with a_runner(copy) as second:
            assert isinstance(await second.find(attempt.name), Gone)
        assert len(with_environment("LABRATS_ATTEMPT", str(attempt.name))) == 1
        await first.kill(attempt.name)
    assert with_environment("LABRATS_ATTEMPT", str(attempt.name)) == []


async def test_processes_in_the_sandbox_of_a_dead_executor_are_ended_although_they_hide(
    tmp_path: Path, folders: Folders
) -> None:
    """They do not end with their parent, and the name of the attempt is in no environment."""
    bubblewrap, program = tmp_path / "bubblewrap", tmp_path / "agent"
    is_other = '[ "$word" = --die-with-parent ] || set -- "$@" "$word"'
    bubblewrap.write_text(f'#!/bin/bash\nfor word; do shift; {is_other}; done\nexec env -i {which("bwrap")} "$@"\n')
    program.write_text("#!/bin/sh\ntouch ready\nsleep 300\n")
    for file in (bubblewrap, program):
        file.chmod(0o755)
    sandbox, task = Sandbox(program=str(bubblewrap)), TaskSettings(programs={"claude": str(program)})
    attempt = isolated(Attempt(a_running(resolved=a_config(**CLAUDE))), SANDBOX)
    folder = folders.of(attempt.name)
    async with a_runner(folders, isolation=BOTH, sandbox=sandbox, task=task) as runner:
        await runner.start(attempt)
        await eventually((folder.workspace / "ready").exists)
        executor = folder.executor()
        assert isinstance(executor, ProcessId)
        assert with_environment("LABRATS_ATTEMPT", str(attempt.name)) == []
        launcher = int(Path(f"/proc/{executor.pid}/stat").read_text().split()[3])
        for pid in (launcher, executor.pid):
            os.kill(pid, signal.SIGKILL)
        assert len(with_mount(folder.path / "claim")) > 1

        assert isinstance(await end_of(runner, attempt), Gone)

        assert with_mount(folder.path / "claim") == []


async def test_admitted_attempts_without_a_claim_do_not_start_after_a_reboot(folders: Folders) -> None:
    store, (before, after) = MemoryStore(), [an_attempt([{"result": "ran"}]) for _ in range(2)]
    await store.create(before.job)
    async with a_runner(folders, store, origin="database boot-1") as runner:
        assert isinstance(await runner.find(before.name), Gone)
        await store.create(after.job)
    async with a_runner(folders, store, origin="database boot-1") as runner:  # a restart, right after the admission
        await runner.start(before)
        await runner.start(after)
        assert (await end_of(runner, after)).outcome
        state = await runner.find(before.name)
        assert isinstance(state, Gone)
        assert (state.outcome, state.code) == (None, FailedCode.LOST)


async def test_a_claimed_attempt_is_recognized_after_a_reboot(folders: Folders) -> None:
    store, attempt = MemoryStore(), an_attempt([{"result": "ran"}])
    await store.create(attempt.job)
    async with a_runner(folders, store) as runner:
        await runner.start(attempt)
        ended = await end_of(runner, attempt)
    async with a_runner(folders, store, origin="database boot-2") as runner:
        assert await runner.find(attempt.name) == ended


async def test_pipes_in_the_place_of_the_origin_do_not_stop_the_start(folders: Folders) -> None:
    folders.attempts.mkdir(parents=True)
    for name in ("origin", "origin.new"):
        os.mkfifo(folders.attempts / name)
    async with asyncio.timeout(DEADLINE_SECONDS), a_runner(folders, origin="database boot-1"):
        assert folders.origin() == "database boot-1"


@pytest.mark.parametrize("steps", [[{"sleepMs": 300}, {"result": 1}], [{"sleepMs": 300}, {"fail": "no"}]], ids=str)
async def test_end_that_cannot_be_read_now_is_noticed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Any]
) -> None:
    """Other programs may have opened all files that the machine allows."""
    attempt, failures = an_attempt(steps), list[Path]()

    def fail_once(path: Path) -> Any:
        if not failures:
            failures.append(path)
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return read_end(path)

    async with EmbeddedBackend.open(tmp_path) as machine, machine.open_runner() as runner:
        monkeypatch.setattr(runner_module, "read_end", fail_once)  # before the start: the attempt may end at once
        await runner.start(attempt)
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for _ in runner.watch():
                try:
                    state = await runner.find(attempt.name)
                except OSError:  # the attempt ended before it was looked for; the engine tries again
                    state = await runner.find(attempt.name)
                if failures and isinstance(state, Gone):
                    break


def test_folder_in_place_of_the_baseline_does_not_keep_a_workspace(tmp_path: Path) -> None:
    """An agent without a sandbox can put it there."""
    (tmp_path / "attempt" / BASELINE_FILE / "more").mkdir(parents=True)
    AttemptFolder(tmp_path / "attempt", tmp_path / "workspace").forbid_resume()
    assert list((tmp_path / "attempt").iterdir()) == []


async def test_launcher_that_cannot_start_fails_the_attempt_with_the_reason_in_its_log(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade that has removed the engine's Python while the engine was running."""
    monkeypatch.setattr("sys.executable", str(folders.attempts / "no-python"))
    attempt = an_attempt()
    async with a_runner(folders) as runner:
        for _ in range(MOST_FAILED_STARTS - 1):
            with pytest.raises(RetryLater):
                await runner.start(attempt)
        with pytest.raises(GiveUp, match="the engine can start no agents: the launcher cannot be started: ") as failure:
            await runner.start(attempt)
        await runner.kill(attempt.name)
        output = b"".join([lines async for lines in runner.read(attempt.name, follow=False)])
    assert failure.value.code == FailedCode.INTERNAL
    (note,) = map(decode_event, output.splitlines())
    assert isinstance(note, LogEvent)
    assert note.text == f"[{failure.value}]"
    assert "no-python: No such file or directory; see the engine's log, and restart the engine" in note.text

"""Tests of the steps of an attempt's pod and of its executor, as real processes."""

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.backends.kubernetes.claims import Claims
from labrats.executor.egress.cluster_proxy import ClusterProxy
from labrats.executor.workspace_diff import _pull_request
from labrats.model.attempt_name import AttemptName
from labrats.model.config import JobConfig
from labrats.model.egress_grant import EgressGrant, read_grant, sign_grant
from labrats.model.job import FailedCode, WorkspaceSetup
from labrats.model.protocol import AnyEvent, ErrorEvent, ResourceLimits, ResultEvent, StatusEvent, Task, decode_event
from labrats.model.record import encode
from tests.support.loopback import two_free_ports
from tests.unit.executor.attempts import DEADLINE_SECONDS, a_repository, a_task, in_a_clone_of, logs_of, some_work
from tests.unit.executor.git_server import GitServer, served

TOKEN = "ghp_0123456789abcdefghij"
KEY = "sk-ant-0123456789"
HAS_RUN = "the key proxy has run before: it does not start again, as it has lost the attempt's usage\n"


@dataclass(frozen=True)
class Pod:
    """The folders that the containers of a pod mount."""

    folder: Path

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def inputs(self) -> Path:
        return self.folder / "inputs"

    def run(self, *arguments: str) -> tuple[int, list[AnyEvent]]:
        """Run one container. Return its exit status and its events."""
        command = [sys.executable, "-m", "labrats.executor", *arguments]
        environment = {**os.environ, "LABRATS_POD": self.folder.name}
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, timeout=DEADLINE_SECONDS, check=False)
        return done.returncode, [event for line in done.stdout.splitlines() if (event := decode_event(line))]

    def prepare(self, *claims: Path) -> tuple[int, list[AnyEvent]]:
        return self.run("prepare", str(self.folder / "source"), str(self.inputs), *map(str, claims))

    def clone(self) -> tuple[int, list[AnyEvent]]:
        return self.run("clone", str(self.folder / "repository"), str(self.scratch))

    def execute(self) -> tuple[int, list[AnyEvent]]:
        return self.run(str(self.inputs), str(self.scratch))


def a_pod(tmp_path: Path, steps: list[Any] | None = None, name: str = "pod", **fields: Any) -> Pod:
    """Create the folders of a pod with their mounted files: `source` for `prepare`, `repository` for `clone`."""
    pod = Pod(tmp_path / name)
    task = encode(a_task(tmp_path, steps, workspace=str(pod.scratch / "workspace"), **fields))
    for folder, secret, value in (("source", "OPENAI_API_KEY", KEY), ("repository", "git-password", TOKEN)):
        (pod.folder / folder / "secrets").mkdir(parents=True)
        (pod.folder / folder / "job.json").write_bytes(task)
        (pod.folder / folder / "secrets" / secret).write_text(value)
    (pod.folder / "source" / "prompt").write_text("Fix the bug.")
    pod.inputs.mkdir()
    pod.scratch.mkdir()
    return pod


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("LABRATS_KEY_PROXY_FOLDER", "key-proxy"),
        ("LABRATS_KEY_PROXY_FOLDER", "key-proxy-requests"),
        ("LABRATS_CACHE_KEEPER_FOLDER", "cache-keeper"),
    ],
)
def test_prepare_creates_the_same_token_for_the_executor_and_its_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    pod = a_pod(tmp_path)
    shared = tmp_path / name
    shared.mkdir()
    monkeypatch.setenv(variable, str(shared))

    status, _ = pod.prepare()

    tokens = [folder / name for folder in (pod.inputs / "secrets", shared)]
    assert status == 0
    assert tokens[0].read_text() == tokens[1].read_text()
    assert len(tokens[0].read_text()) > 40
    assert [token.stat().st_mode & 0o777 for token in tokens] == [0o600, 0o444]


def test_key_proxy_that_has_ended_does_not_start_again(tmp_path: Path) -> None:
    pod, folder = a_pod(tmp_path, config=JobConfig(provider="codex")), tmp_path / "key-proxy"
    folder.mkdir()
    for name in ("key-proxy", "key-proxy-requests"):
        (folder / name).write_text(f"token of {name}")
    command = [sys.executable, "-m", "labrats.executor", "key-proxy", str(pod.folder / "source"), str(folder)]
    with subprocess.Popen(command) as first:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (folder / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        first.kill()

    again = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_SECONDS, check=False)

    assert (again.returncode, again.stderr) == (1, HAS_RUN)


@pytest.mark.anyio
async def test_prepare_binds_the_tokens_of_the_egress_proxy_to_its_pod(tmp_path: Path) -> None:
    port = two_free_ports()
    pod = a_pod(tmp_path, egress_proxy=("127.0.0.1", port))
    grant = EgressGrant(attempt="ir-1-1", network="none", expires_at=2**40)
    for name in ("egress-token", "egress-setup-token"):
        (pod.folder / "source" / "secrets" / name).write_text(sign_grant(grant, "key"))
    proxy = ClusterProxy("key")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    try:
        assert await asyncio.to_thread(pod.prepare) == (0, [])
    finally:
        server.close()
        await proxy.drain(0)
    for name in ("egress-token", "egress-setup-token"):
        token = (pod.inputs / "secrets" / name).read_text()
        assert read_grant(token, "key", now=0) == replace(grant, address="127.0.0.1")
    assert (pod.inputs / "secrets" / "OPENAI_API_KEY").read_text() == KEY


@pytest.mark.anyio
async def test_prepare_waits_until_the_policies_of_an_open_pod_are_in_force(tmp_path: Path) -> None:
    port = two_free_ports()
    pod = a_pod(tmp_path, policy_tests=(("127.0.0.1", port),))
    tested = asyncio.Event()

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tested.set()
        writer.close()

    canary = await asyncio.start_server(accept, "127.0.0.1", port + 1)
    preparing = asyncio.create_task(asyncio.to_thread(pod.prepare))
    try:
        await asyncio.wait_for(tested.wait(), DEADLINE_SECONDS)
        assert not (pod.inputs / "job.json").exists()
    finally:
        canary.close()
        status = await preparing
    assert status == (0, [])
    assert (pod.inputs / "job.json").exists()


def test_events_of_a_pods_steps_are_numbered_without_gaps(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "origin")
    pod = a_pod(tmp_path, [{"log": "worked"}, {"result": "done"}], **in_a_clone_of(repository))

    events = [event for step in (pod.prepare, pod.clone, pod.execute) for event in step()[1]]

    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.state for event in events if isinstance(event, StatusEvent)] == ["started", "workspace", "running"]
    assert isinstance(events[-1], ResultEvent)
    assert (pod.scratch / "workspace" / "notes.txt").read_text() == "old\n"


def test_no_credential_is_left_in_the_folders_of_the_agent(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "origin")
    pod = a_pod(tmp_path, [{"result": "done"}], **in_a_clone_of(repository))

    for step in (pod.prepare, pod.clone):
        assert step()[0] == 0
    assert (pod.inputs / "secrets" / "OPENAI_API_KEY").read_text() == KEY  # for the executor
    assert pod.execute()[0] == 0

    files = [path for folder in (pod.inputs, pod.scratch) for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes() or TOKEN.encode() in path.read_bytes()]


def test_clone_step_tries_again_after_a_failure_that_may_pass(tmp_path: Path) -> None:
    a_repository(tmp_path / "repo")
    with served(GitServer(tmp_path, ref_faults=[502])) as server:
        setup = WorkspaceSetup(git_repo=f"{server.url}/repo/.git")
        pod = a_pod(tmp_path, workspace_setup=setup, git_addresses=("127.0.0.0/8",))

        status, events = pod.clone()

    assert status == 0, events[-1]
    assert [line for line in logs_of(events) if "status 502; trying again in 2 s (try 2 of 5)" in line]
    assert (pod.scratch / "workspace" / "notes.txt").exists()


def test_failed_clone_ends_the_attempt_without_naming_a_credential(tmp_path: Path) -> None:
    missing = tmp_path / f"missing-{TOKEN}"
    setup = WorkspaceSetup(git_repo=str(missing))
    pod = a_pod(tmp_path, workspace_setup=setup, repo_roots=(str(tmp_path),))

    status, events = pod.clone()

    assert status == 1
    assert isinstance(events[-1], ErrorEvent)
    assert events[-1].code is FailedCode.GIT_CLONE
    assert [event.seq for event in events] == [1, 2, 3]
    assert TOKEN not in repr(events)


def test_clone_that_fills_the_disk_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = a_repository(tmp_path / "origin")
    pod = a_pod(tmp_path, limits=ResourceLimits(disk_bytes=2**20), **in_a_clone_of(repository))
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(f"#!/bin/sh\nhead -c 3000000 /dev/zero > {pod.scratch}/pack\nexec sleep 600\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}{os.pathsep}{os.environ['PATH']}")

    status, events = pod.clone()

    assert status == 1
    assert isinstance(events[-1], ErrorEvent)
    assert events[-1].code is FailedCode.DISK_LIMIT


def test_clone_of_a_malformed_task_ends_the_attempt(tmp_path: Path) -> None:
    pod = a_pod(tmp_path, workspace_setup=WorkspaceSetup(git_repo="octo/rats"))
    for file in pod.folder.rglob("job.json"):
        file.write_text("{")

    status, [event] = pod.clone()

    assert status == 1
    assert isinstance(event, ErrorEvent)
    assert event.code is FailedCode.INTERNAL


def test_inputs_that_cannot_be_copied_end_the_attempt(tmp_path: Path) -> None:
    pod = a_pod(tmp_path)
    pod.inputs.rmdir()

    status, [event] = pod.prepare()

    assert status == 1
    assert isinstance(event, ErrorEvent)
    assert event.code is FailedCode.INTERNAL


@pytest.mark.parametrize(
    ("repository", "url"),
    [("https://github.com/o/r", "https://github.com/o/r/pull/3"), ("https://github.com/o/x", None)],
)
def test_pull_request_is_recognised_by_the_repository_of_an_earlier_step(
    tmp_path: Path, repository: str, url: str | None
) -> None:
    task: Task = a_task(tmp_path, repository=repository)
    with some_work(tmp_path, task) as work:
        work.context.events.pull_request_url = "https://github.com/o/r/pull/3"

        assert _pull_request(work.context) == url


def test_only_one_of_many_pods_claims_an_attempt(tmp_path: Path) -> None:
    pods = [a_pod(tmp_path, name=f"pod-{number}") for number in range(6)]
    claims = Claims(tmp_path / "claims")
    claims.prepare(AttemptName("ir-0000000a", 1))
    [folder] = (tmp_path / "claims").glob("*/*")

    with ThreadPoolExecutor(len(pods)) as threads:
        outcomes = list(threads.map(lambda pod: pod.prepare(folder), pods))

    assert sorted(status for status, _ in outcomes) == [0] + [75] * 5
    assert not [event for _, events in outcomes for event in events]
    [winner] = [pod for pod in pods if any(pod.inputs.iterdir())]
    assert claims.holder(AttemptName("ir-0000000a", 1)) == winner.folder.name


def test_pod_cannot_claim_an_attempt_twice(tmp_path: Path) -> None:
    pod, claims = a_pod(tmp_path), tmp_path / "claims"
    claims.mkdir()

    assert pod.prepare(claims)[0] == 0
    assert pod.prepare(claims)[0] == 75


def test_claim_that_cannot_be_written_ends_the_attempt(tmp_path: Path) -> None:
    pod = a_pod(tmp_path)

    status, [event] = pod.prepare(tmp_path / "missing")

    assert status == 1
    assert isinstance(event, ErrorEvent)
    assert "cannot be claimed" in event.message
    assert not any(pod.inputs.iterdir())


def test_first_step_loads_neither_providers_nor_git(tmp_path: Path) -> None:
    """Each pod starts with it, and waits for it."""
    program = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "labrats.executor",
        "prepare",
        str(tmp_path / "none"),
        str(tmp_path),
    ]
    loaded = subprocess.run(program, capture_output=True, text=True, check=False).stderr
    assert "labrats.executor.prepare_step" in loaded
    assert not [name for name in ("attempt", "git", "providers") if f"labrats.executor.{name}\n" in loaded]

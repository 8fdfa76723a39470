"""Setup commands of jobs, and the folders that jobs share, in real executors."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labrats.model.config import JobConfig
from labrats.model.job import FailedCode, WorkspaceSetup
from labrats.model.network import NONE
from labrats.model.protocol import BUNDLE_REF, Sandbox
from labrats.model.workspace_setup import CachedFolder
from tests.support.http_server import an_http_server
from tests.unit.executor.attempts import (
    DEADLINE_SECONDS,
    AttemptFolder,
    a_repository,
    an_attempt,
    commit_all,
    git,
    wait_until,
)

KEY = "test-key-0123456789abcdef"
LIBRARIES = (CachedFolder(key="notes.txt", path="libraries/all"),)
FILL = (
    "sh",
    "-c",
    "test -e libraries/all/one || { mkdir -p libraries/all; date +%N > libraries/all/one; echo filled; }",
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return a_repository(tmp_path / "repository")


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "admin.key").write_text("test-key-of-the-engine\n")
    (engine / "admin.key").chmod(0o700)
    return Sandbox(program=program, hidden=(str(engine),))


def an_attempt_with(folder: Path, repository: Path, *commands: Sequence[str], **fields: Any) -> AttemptFolder:
    """Build an attempt in a clone of `repository`. fields: of WorkspaceSetup, or else of the task."""
    folder.mkdir(exist_ok=True)
    names = ("setup_timeout_ms", "setup_network", "cache")
    own = {name: fields.pop(name) for name in names if name in fields}
    setup = WorkspaceSetup(git_repo=str(repository), setup=tuple(map(tuple, commands)), **own)
    steps = fields.pop("steps", [{"log": "the agent"}, {"result": "done"}])
    return an_attempt(folder, steps, workspace_setup=setup, repo_roots=(str(repository.parent),), **fields)


def an_attempt_of_program(folder: Path, repository: Path, script: str, *commands: Sequence[str]) -> AttemptFolder:
    """Build such an attempt whose agent is a shell script."""
    program = folder / "agent"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    config = JobConfig(provider="claude")
    return an_attempt_with(folder, repository, *commands, config=config, programs={"claude": str(program)})


def test_commands_run_before_the_agent_in_the_workspace(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_with(
        tmp_path, repository, ["sh", "-c", "cat notes.txt; echo one > made.txt"], ["cat", "made.txt"]
    )
    attempt.run()
    assert attempt.result == "done"
    commands = ["[setup: sh -c 'cat notes.txt; echo one > made.txt']", "old", "[setup: cat made.txt]", "one"]
    assert attempt.logs == [*commands, "the agent"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["sh", "-c", "echo first; echo 'no such package' >&2; exit 3"], "exited with code 3: no such package"),
        (["sh", "-c", "kill -9 $$"], "was killed by signal 9 (SIGKILL)"),
        (["no-such-program-7d1c"], "cannot be started: No such file or directory"),
    ],
    ids=["status", "signal", "program"],
)
def test_failed_command_ends_the_attempt(tmp_path: Path, repository: Path, command: list[str], message: str) -> None:
    attempt = an_attempt_with(tmp_path, repository, command, ["echo", "never"])
    assert attempt.run() == 1
    code, reason = attempt.failure
    assert code == FailedCode.SETUP
    assert message in reason
    assert "the agent" not in attempt.logs
    assert "never" not in attempt.logs


def test_command_that_needs_a_shell_says_so_in_the_sandbox(tmp_path: Path, repository: Path, sandbox: Sandbox) -> None:
    attempt = an_attempt_with(tmp_path, repository, ["cd", "sub"], sandbox=sandbox)
    attempt.run()
    code, reason = attempt.failure
    assert code == FailedCode.SETUP
    assert reason.startswith("`cd sub` cannot be started: No such file or directory; no shell reads setup commands")


def test_signal_that_ends_a_command_in_the_sandbox_is_reported(
    tmp_path: Path, repository: Path, sandbox: Sandbox
) -> None:
    attempt = an_attempt_with(tmp_path, repository, ["sh", "-c", "kill -9 $$"], sandbox=sandbox)
    attempt.run()
    code, reason = attempt.failure
    assert code == FailedCode.SETUP
    assert "was killed by signal 9 (SIGKILL)" in reason


def test_commands_have_a_time_limit_of_their_own(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_with(tmp_path, repository, ["sleep", "300"], setup_timeout_ms=200)
    attempt.run()
    assert attempt.failure == (FailedCode.SETUP, "the setup commands took longer than their limit of 0.2 s")


def test_stop_ends_a_command_with_its_processes(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_with(tmp_path, repository, ["sh", "-c", "sleep 300 & echo $!; wait"])
    with attempt.started() as process:
        wait_until(lambda: len(attempt.logs) == 2, "the command has started its process")
        process.terminate()
        process.wait(DEADLINE_SECONDS)
    assert attempt.failure == (FailedCode.AGENT_ERROR, "stopped on request")
    assert not Path(f"/proc/{attempt.logs[1]}").exists()
    assert "the agent" not in attempt.logs


def test_command_that_leaves_processes_behind_ends(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_with(tmp_path, repository, ["sh", "-c", "sleep 300 & echo $!"])
    attempt.run()
    assert attempt.result == "done"
    assert not Path(f"/proc/{attempt.logs[1]}").exists()


def test_commands_have_the_jobs_variables_but_not_the_models_key(tmp_path: Path, repository: Path) -> None:
    config = JobConfig(provider="mock", env={"CI": "1"})
    secrets = {"ANTHROPIC_API_KEY": KEY}
    key = f"{KEY[:8]}[{KEY[8]}]"  # does not match itself, in the task's file and the log
    search = f"env | grep -o '^CI=.*'; env | grep -c '{key}'; grep -rl '{key}' {tmp_path}/attempt; true"
    attempt = an_attempt_with(tmp_path, repository, ["sh", "-c", search], config=config, secrets=secrets)
    attempt.run()
    assert attempt.logs[1:] == ["CI=1", "0", "the agent"]


def test_patch_has_the_agents_changes_only(tmp_path: Path, repository: Path) -> None:
    commands = ["sh", "-c", "echo generated > notes.txt; echo new > generated.txt"]
    steps = [{"write": {"path": "agent.txt", "text": "x"}}, {"result": "done"}]
    attempt = an_attempt_with(tmp_path, repository, commands, steps=steps)
    attempt.run()
    patch = (attempt.path / "changes.patch").read_text()
    assert "agent.txt" in patch
    assert "generated" not in patch


COMMIT = "git -c user.name=Agent -c user.email=agent@example.org commit -q"


@pytest.mark.parametrize("agent", ["echo x > agent.txt", f"echo x > agent.txt; git add agent.txt; {COMMIT} -m mine"])
def test_commits_of_the_commands_are_no_work_of_the_agent(tmp_path: Path, repository: Path, agent: str) -> None:
    """The bundle must fit the commit that was cloned: commits of the commands exist nowhere else."""
    cloned = git(repository, "rev-parse", "HEAD")
    commands = ["sh", "-c", f"echo generated > notes.txt; git checkout -q -b generated; {COMMIT} -am generated"]
    attempt = an_attempt_of_program(tmp_path, repository, agent, commands)
    attempt.run()
    outputs = attempt.outcome.outputs
    assert (outputs.base_commit, outputs.files_changed) == (cloned, 1)
    assert len(outputs.commits) == agent.count("commit")

    git(repository, "fetch", "-q", str(attempt.path / "commits.bundle"), f"{BUNDLE_REF}:fetched")
    assert git(repository, "rev-parse", "fetched^") == cloned
    assert git(repository, "diff", "--name-only", cloned, "fetched") == "agent.txt"


def test_cloned_commit_is_known_although_the_commands_break_the_computation_of_changes(
    tmp_path: Path, repository: Path
) -> None:
    """Otherwise a verdict of the agent could be taken for one about a commit that it has not seen."""
    cloned = git(repository, "rev-parse", "HEAD")
    broken = "echo '*.bad working-tree-encoding=UTF-16' > .gitattributes; for i in $(seq 30); do echo > $i.bad; done"
    attempt = an_attempt_with(tmp_path, repository, ["sh", "-c", broken])
    attempt.run()
    assert any("the changes in the workspace cannot be computed" in line for line in attempt.logs)
    assert attempt.outcome.outputs.base_commit == cloned


def test_commands_that_commit_leave_no_work_of_an_agent_that_does_nothing(tmp_path: Path, repository: Path) -> None:
    commands = ["sh", "-c", f"echo generated > notes.txt; git checkout -q -b generated; {COMMIT} -am generated"]
    attempt = an_attempt_with(tmp_path, repository, commands)
    attempt.run()
    outputs = attempt.outcome.outputs
    assert (outputs.commits, outputs.branch, outputs.files_changed, outputs.bundle_bytes) == ((), None, 0, None)


@pytest.mark.parametrize(
    "trap",
    [
        "rm .git/index; ln -s {outside} .git/index",
        "rm .git/index; mkfifo .git/index",
        "rm .git/index; truncate -s 1T .git/index",
        "mv .git {folder}/git; cp {outside} {folder}/git/index; ln -s {folder}/git .git",
    ],
    ids=["link", "pipe", "sparse file", "linked folder"],
)
def test_index_that_the_commands_have_replaced_is_not_copied(tmp_path: Path, repository: Path, trap: str) -> None:
    """The executor, which is in no sandbox, would follow a link, wait for a pipe, or fill its disk."""
    outside = tmp_path / "outside"
    outside.write_text("a file of the engine")
    script = trap.format(outside=outside, folder=tmp_path)
    attempt = an_attempt_with(tmp_path / "job", repository, ["sh", "-c", script])
    attempt.run()
    assert attempt.result == "done"
    index = attempt.path / "baseline.git" / "index"
    assert not index.exists() or index.read_bytes()[:4] == b"DIRC"  # git's own


@pytest.mark.parametrize(("rule", "arrives"), [(None, "200"), (NONE, "000")], ids=["agent's", "own"])
def test_commands_have_a_network_rule_of_their_own(
    tmp_path: Path, repository: Path, rule: str | None, arrives: str
) -> None:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    with an_http_server() as (port, _):
        fetch = f"curl -s -o /dev/null -w '%{{http_code}}' --noproxy '*' http://127.0.0.1:{port}/ || true"
        attempt = an_attempt_with(
            tmp_path, repository, ["sh", "-c", fetch], setup_network=rule, sandbox=Sandbox(program=program)
        )
        attempt.run()
    assert attempt.result == "done"
    assert attempt.logs[1] == arrives


@pytest.mark.parametrize("way", ["", "/proc/self/cwd/x/.."])
def test_sandbox_shows_no_file_because_a_command_is_called_like_it(
    tmp_path: Path, repository: Path, sandbox: Sandbox, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor, which runs in `/`, finds another file there than the sandbox, which runs in the workspace."""
    monkeypatch.chdir("/")
    key = tmp_path / "engine" / "admin.key"
    other = tmp_path / "beside" / "id_rsa"
    other.parent.mkdir()
    other.write_text("test-key-of-the-user\n")
    place = f".{key}" if way else str(key)
    write = f"printf '#!/bin/sh\\nrev {key} {other}\\n' > {place}; chmod 755 {place}"
    prepare = ["sh", "-c", f"mkdir -p x $(dirname {place}); {write}; true"]
    attempt = an_attempt_with(tmp_path, repository, prepare, [f"{way}{key}"], sandbox=sandbox)
    attempt.run()
    assert attempt.failure[0] is FailedCode.SETUP, attempt.logs
    text = attempt.output.read_text()
    for secret in ("test-key-of-the-engine", "test-key-of-the-user"):
        assert secret not in text
        assert secret[::-1] not in text


def test_command_with_a_path_that_leads_out_of_tmp_removes_no_link(
    tmp_path: Path, repository: Path, sandbox: Sandbox
) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    attempt = an_attempt_with(tmp_path, repository, [f"/tmp{'/..' * 20}{link}/program"], sandbox=sandbox)
    attempt.run()
    assert attempt.failure[0] is FailedCode.SETUP
    assert link.is_symlink()


def test_session_of_the_mock_provider_follows_no_link(tmp_path: Path, repository: Path, sandbox: Sandbox) -> None:
    outside = tmp_path / "outside.json"
    leave_link = f"mkdir $HOME/.mock-sessions; ln -s {outside} $HOME/.mock-sessions/mock-$LABRATS_ATTEMPT.json"
    attempt = an_attempt_with(
        tmp_path, repository, ["sh", "-c", leave_link], steps=[{"remember": True}], sandbox=sandbox
    )
    attempt.run()
    assert attempt.failure[0] is FailedCode.WORKSPACE
    assert not outside.exists()


class TestCaches:
    """Attempts in folders of their own, with one folder of caches."""

    def run(
        self, tmp_path: Path, repository: Path, name: str, *commands: Sequence[str], **fields: Any
    ) -> AttemptFolder:
        usual = {"cache": LIBRARIES, "caches": str(tmp_path / "caches" / "scope"), "caches_bytes": 2**30}
        attempt = an_attempt_with(tmp_path / name, repository, *(commands or (FILL,)), **usual | fields)
        attempt.run()
        return attempt

    def test_later_jobs_get_the_folder(self, tmp_path: Path, repository: Path) -> None:
        first = self.run(tmp_path, repository, "first")
        second = self.run(tmp_path, repository, "second")
        assert "[cache: libraries/all stored for later jobs]" in first.logs
        assert "[cache: libraries/all restored]" in second.logs
        assert "filled" in first.logs
        assert "filled" not in second.logs
        one = Path("libraries/all/one")
        assert (second.workspace / one).read_text() == (first.workspace / one).read_text()

    def test_agents_cannot_change_it(self, tmp_path: Path, repository: Path) -> None:
        steps = [{"write": {"path": "libraries/all/one", "text": "by an agent"}}, {"result": "done"}]
        self.run(tmp_path, repository, "first", steps=steps)
        self.run(tmp_path, repository, "second", steps=steps)
        third = self.run(tmp_path, repository, "third")
        assert "[cache: libraries/all restored]" in third.logs
        assert (third.workspace / "libraries/all/one").read_text() != "by an agent"

    @pytest.mark.parametrize("changed", ["key", "commands", "scope"])
    def test_folder_is_for_one_key_commands_and_scope(self, tmp_path: Path, repository: Path, changed: str) -> None:
        self.run(tmp_path, repository, "first")
        if changed == "key":
            (repository / "notes.txt").write_text("new\n")
            commit_all(repository)
        commands = [FILL, ["true"]] if changed == "commands" else []
        fields = {"caches": str(tmp_path / "caches" / "other")} if changed == "scope" else {}
        second = self.run(tmp_path, repository, "second", *commands, **fields)
        assert "filled" in second.logs

    def test_job_of_another_ref_changes_nothing_of_the_default_branch(self, tmp_path: Path, repository: Path) -> None:
        base = str(tmp_path / "caches" / "scope")
        other = {"caches": str(tmp_path / "caches" / "other"), "base_caches": base}
        first = self.run(tmp_path, repository, "first", **other)
        second = self.run(tmp_path, repository, "second")
        assert "filled" in first.logs
        assert "filled" in second.logs
        shutil.rmtree(tmp_path / "caches" / "other")
        third = self.run(tmp_path, repository, "third", **other)
        assert "[cache: libraries/all restored from the default branch]" in third.logs
        one = Path("libraries/all/one")
        assert (third.workspace / one).read_text() == (second.workspace / one).read_text()
        assert not (tmp_path / "caches" / "other").exists()

    def test_failed_commands_store_nothing(self, tmp_path: Path, repository: Path) -> None:
        self.run(tmp_path, repository, "first", FILL, ["false"])
        assert not list((tmp_path / "caches").glob("*/*"))

    def test_links_of_the_repository_lead_nowhere(self, tmp_path: Path, repository: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (repository / "libraries").symlink_to(outside)
        commit_all(repository)
        first = self.run(tmp_path, repository, "first")
        git(repository, "rm", "-q", "libraries")
        commit_all(repository)
        self.run(tmp_path, repository, "second")
        (repository / "libraries").symlink_to(outside)
        commit_all(repository)
        shutil.rmtree(outside / "all")
        third = self.run(tmp_path, repository, "third")
        for attempt in (first, third):
            assert any("not used: the repository contains it" in line for line in attempt.logs)

    def test_links_do_not_tell_what_exists_elsewhere(self, tmp_path: Path, repository: Path) -> None:
        said = []
        for number, target in enumerate((tmp_path, tmp_path / "nothing")):
            (repository / "notes.txt").unlink(missing_ok=True)
            (repository / "notes.txt").symlink_to(target)
            commit_all(repository)
            said.append([line for line in self.run(tmp_path, repository, str(number)).logs if "cache" in line])
        assert said[0] == said[1]

    def test_links_in_the_folder_are_kept_as_links(self, tmp_path: Path, repository: Path) -> None:
        link = [
            "sh",
            "-c",
            "mkdir -p libraries/all; ln -sfn /etc/hostname libraries/all/link; mkfifo libraries/all/pipe || true",
        ]
        self.run(tmp_path, repository, "first", link)
        second = self.run(tmp_path, repository, "second", link)
        assert "[cache: libraries/all restored]" in second.logs
        assert os.readlink(second.workspace / "libraries/all/link") == "/etc/hostname"

    def test_least_recently_used_folders_are_deleted(self, tmp_path: Path, repository: Path) -> None:
        fill = "mkdir -p libraries/all; head -c 600000 /dev/zero > libraries/all/one"
        first, second = ["sh", "-c", fill], ["sh", "-c", f"{fill}; true"]
        self.run(tmp_path, repository, "first", first, caches_bytes=1_000_000)
        self.run(tmp_path, repository, "second", second, caches_bytes=1_000_000)
        entries = list((tmp_path / "caches" / "scope").iterdir())
        assert len(entries) == 1
        third = self.run(tmp_path, repository, "third", second, caches_bytes=1_000_000)
        assert "[cache: libraries/all restored]" in third.logs

    def test_folder_above_the_limit_is_not_stored(self, tmp_path: Path, repository: Path) -> None:
        fill = ["sh", "-c", "mkdir -p libraries/all; head -c 3000000 /dev/zero > libraries/all/one"]
        attempt = self.run(tmp_path, repository, "first", fill, caches_bytes=1_000_000)
        assert "[cache: libraries/all not stored: its 2 MiB are more than the limit for all caches]" in attempt.logs
        assert not list((tmp_path / "caches").glob("*/*"))

    def test_folder_above_the_limit_is_not_copied_first(self, tmp_path: Path, repository: Path) -> None:
        """A copy would fail here. Elsewhere it could fill the disk with the outputs of all jobs."""
        block = f"mkdir {tmp_path}/caches; touch {tmp_path}/caches/scope"
        fill = ["sh", "-c", f"{block}; mkdir -p libraries/all; head -c 3000000 /dev/zero > libraries/all/one"]
        attempt = self.run(tmp_path, repository, "first", fill, caches_bytes=1_000_000)
        assert "[cache: libraries/all not stored: its 2 MiB are more than the limit for all caches]" in attempt.logs

    def test_job_without_the_key_file_runs(self, tmp_path: Path, repository: Path) -> None:
        cache = (CachedFolder(key="no.lock", path="libraries/all"),)
        attempt = self.run(tmp_path, repository, "first", cache=cache)
        assert "[cache: libraries/all not used: there is no file no.lock]" in attempt.logs
        assert attempt.result == "done"

    def test_folder_that_the_commands_have_not_made_is_not_stored(self, tmp_path: Path, repository: Path) -> None:
        attempt = self.run(tmp_path, repository, "first", ["true"])
        assert "[cache: libraries/all not stored: the setup commands have not made it]" in attempt.logs

    def test_leftovers_of_a_killed_executor_are_deleted(self, tmp_path: Path, repository: Path) -> None:
        left = tmp_path / "caches" / "other" / "unfinished-0123"
        (left / "content").mkdir(parents=True)
        self.run(tmp_path, repository, "first")
        assert not left.exists()

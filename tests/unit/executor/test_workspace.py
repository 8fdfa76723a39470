"""Tests of preparing the workspace: clones, credentials, allowed addresses and files."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.workspace import prepare_workspace
from labrats.model.config import JobConfig
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode, WorkspaceFile, WorkspaceSetup
from labrats.model.protocol import ErrorEvent, Sandbox
from labrats.processes import with_environment
from tests.unit.executor.attempts import DEADLINE_SECONDS, a_task, an_attempt, some_work
from tests.unit.executor.git_server import GitServer, served

TOKEN = "test-token-0123456789"
LOOPBACK = ("127.0.0.0/8",)
SHORT_PAUSES = (0.01, 0.02, 0.03, 0.04)
TRIES = len(SHORT_PAUSES) + 1
SSH_LOOPBACK = (*LOOPBACK, "::1/128")


@dataclass(frozen=True)
class Repository:
    """A bare repository with three commits on `main`, the middle one without a tag, a branch and a pull request."""

    path: Path

    def git(self, *arguments: str) -> str:
        return git(self.path, *arguments)

    def commit(self, ref: str) -> str:
        return self.git("rev-parse", ref)


def git(folder: Path, *arguments: str) -> str:
    """Run git as a developer would. Return its output."""
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    roots = tmp_path_factory.mktemp("repositories")
    source = roots / "source"
    source.mkdir()
    git(source, "init", "-q")
    for text, tag in (("first", "v0"), ("middle", None), ("second", "v1")):
        (source / "readme.txt").write_text(text)
        (source / "outside").unlink(missing_ok=True)
        (source / "outside").symlink_to(roots)
        git(source, "add", ".")
        git(source, "commit", "-q", "-m", text)
        if tag:
            git(source, "tag", tag)
    for branch, ref in (("feature/a", "refs/heads/feature/a"), ("proposal", "refs/pull/7/head")):
        git(source, "checkout", "-q", "-b", branch, "main")
        (source / "readme.txt").write_text(branch)
        git(source, "commit", "-q", "-a", "-m", branch)
        git(source, "update-ref", ref, "HEAD")
    git(source, "checkout", "-q", "main")
    git(source, "branch", "-q", "-D", "proposal")
    git(roots, "clone", "-q", "--mirror", "source", "repo.git")
    return Repository(roots / "repo.git")


@dataclass(frozen=True)
class Clone:
    """A prepared workspace."""

    workspace: Path
    folder: Path
    logs: list[str]

    @property
    def readme(self) -> str:
        return (self.workspace / "readme.txt").read_text()

    def git(self, *arguments: str) -> str:
        return git(self.workspace, *arguments)


async def prepared(tmp_path: Path, secrets: dict[str, str] | None = None, **task: Any) -> Clone:
    """Prepare the workspace of a task."""
    with some_work(tmp_path, a_task(tmp_path, **task), secrets) as work:
        await prepare_workspace(work.context, pauses=SHORT_PAUSES)
        return Clone(work.context.workspace, work.context.folder, work.logs)


async def cloned(
    tmp_path: Path, url: str | Path, ref: str | None = None, depth: int | None = None, **task: Any
) -> Clone:
    """Prepare a workspace with a clone of `url`, on loopback or on this machine's disk."""
    setup = WorkspaceSetup(git_repo=str(url), git_ref=ref, git_depth=depth)
    task = {"git_addresses": LOOPBACK, "repo_roots": (str(Path(url).parent),)} | task
    return await prepared(tmp_path, workspace_setup=setup, **task)


async def failure_of(clone: Callable[[], Any]) -> str:
    """Return the message of a clone's failure. The code must be `git_clone`."""
    with pytest.raises(GiveUp) as refused:
        await clone()
    assert refused.value.code == FailedCode.GIT_CLONE
    return str(refused.value)


@pytest.fixture
def serve(repository: Repository) -> Iterator[Callable[..., GitServer]]:
    """Start a server of the repository, with options."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(served(GitServer(repository.path.parent, **options)))


@pytest.fixture(params=["local", "http", "http, old protocol"])
def url(request: pytest.FixtureRequest, repository: Repository, serve: Callable[..., GitServer]) -> str:
    """Return the repository's address, for each transport."""
    if request.param == "local":
        return str(repository.path)
    return f"{serve(newest_protocol=request.param == 'http').url}/repo.git"


async def test_workspace_without_a_repository_is_an_empty_folder(tmp_path: Path) -> None:
    clone = await prepared(tmp_path)

    assert list(clone.workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("ref", "text", "branch"),
    [
        (None, "second", "main"),
        ("main", "second", "main"),
        ("refs/heads/main", "second", "main"),
        ("feature/a", "feature/a", "feature/a"),
        ("v0", "first", "HEAD"),
        ("refs/tags/v0", "first", "HEAD"),
        ("refs/pull/7/head", "proposal", "HEAD"),
    ],
)
@pytest.mark.parametrize("depth", [None, 1])
async def test_branches_tags_and_other_refs_are_checked_out(
    tmp_path: Path, url: str, ref: str | None, text: str, branch: str, depth: int | None
) -> None:
    clone = await cloned(tmp_path, url, ref, depth)

    assert clone.readme == text
    assert clone.git("rev-parse", "--abbrev-ref", "HEAD") == branch
    if depth:
        assert clone.git("rev-list", "--count", "HEAD") == "1"


@pytest.mark.parametrize("depth", [None, 1])
async def test_commit_is_checked_out_even_from_a_server_that_sends_only_branches(
    tmp_path: Path, repository: Repository, url: str, depth: int | None
) -> None:
    clone = await cloned(tmp_path, url, repository.commit("main~1"), depth)

    assert clone.readme == "middle"


async def test_short_commit_is_checked_out(tmp_path: Path, repository: Repository, url: str) -> None:
    clone = await cloned(tmp_path, url, repository.commit("main~1")[:10], 1)

    assert clone.readme == "middle"


@pytest.mark.parametrize(
    "ref", ["no-such-branch", "refs/pull/8/head", "refs/heads/refs/pull/7/head", "abcdef1", "0123456789" * 4]
)
async def test_failure_names_a_missing_ref(tmp_path: Path, url: str, ref: str) -> None:
    sentence = await failure_of(lambda: cloned(tmp_path, url, ref))

    assert ref in sentence
    assert "has no" in sentence


@pytest.mark.parametrize("ref", ["--upload-pack=touch x", "-x", "a b", "main:other", "a..b", "/etc", "a\nb", "@{-1}"])
async def test_invalid_ref_is_not_passed_to_git(tmp_path: Path, repository: Repository, ref: str) -> None:
    assert "cannot be the name of" in await failure_of(lambda: cloned(tmp_path, repository.path, ref))


async def test_local_repository_shares_no_file_with_its_clone(tmp_path: Path, repository: Repository) -> None:
    clone = await cloned(tmp_path, repository.path)

    files = [file for file in (clone.workspace / ".git").rglob("*") if file.is_file()]
    assert {file.stat().st_nlink for file in files} == {1}


async def test_local_repository_outside_the_roots_is_refused(tmp_path: Path, repository: Repository) -> None:
    sentence = await failure_of(lambda: cloned(tmp_path, repository.path, repo_roots=(str(tmp_path),)))

    assert "LOCAL_REPO_ROOTS" in sentence


async def test_token_gives_access_and_is_not_exposed(
    tmp_path: Path, serve: Callable[..., GitServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = watch_git(tmp_path, monkeypatch)
    secrets = {"git-username": "x-access-token", "git-password": TOKEN}

    clone = await cloned(tmp_path, f"{serve(password=TOKEN).url}/repo.git", secrets=secrets)

    assert clone.readme == "second"
    assert "clone" in record.read_text()
    assert TOKEN not in record.read_text()
    assert files_with(TOKEN, tmp_path) == []


@pytest.mark.parametrize("password", [None, "a-wrong-test-token"])
async def test_wrong_or_missing_token_fails_with_access_denied(
    tmp_path: Path, serve: Callable[..., GitServer], password: str | None
) -> None:
    secrets = {"git-username": "u", "git-password": password} if password else None
    url = f"{serve(password=TOKEN).url}/repo.git"

    sentence = await failure_of(lambda: cloned(tmp_path, url, secrets=secrets))

    assert "access was denied" in sentence
    assert files_with("a-wrong-test-token", tmp_path) == []


async def test_failure_says_that_a_repository_does_not_exist(tmp_path: Path, serve: Callable[..., GitServer]) -> None:
    assert "the repository does not exist" in await failure_of(lambda: cloned(tmp_path, f"{serve().url}/nothing.git"))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_failure_says_that_a_server_is_unreachable(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://{host}:{listener.getsockname()[1]}/repo.git"

    sentence = await failure_of(lambda: cloned(tmp_path, url, git_addresses=(*LOOPBACK, "::1/128")))

    assert "could not be reached" in sentence


@pytest.mark.parametrize("ref", ["main", "refs/pull/7/head"])
@pytest.mark.parametrize(
    "faults",
    [
        {"ref_faults": [502, 503, 500, 504]},
        {"ref_faults": ["reset"]},
        {"pack_faults": [502, 503]},
        {"pack_faults": ["cut", "cut"]},
        {"ref_faults": [429], "pack_faults": ["cut"]},
    ],
    ids=str,
)
async def test_failure_that_may_pass_is_retried_in_a_clean_workspace(
    tmp_path: Path,
    repository: Repository,
    serve: Callable[..., GitServer],
    ref: str,
    faults: dict[str, list[int | str]],
) -> None:
    expected = sum(map(len, faults.values()))
    server = serve(**{requests: list(each) for requests, each in faults.items()})

    clone = await cloned(tmp_path, f"{server.url}/repo.git", ref)

    assert clone.git("rev-parse", "HEAD") == repository.commit(ref)
    retries = [line for line in clone.logs if "trying again in" in line]
    assert len(retries) == expected
    assert retries[0].startswith("[cannot clone http://127.0.0.1:")
    assert "trying again in 0.01 s (try 2 of 5)" in retries[0]


async def test_server_that_keeps_failing_is_tried_five_times(tmp_path: Path, serve: Callable[..., GitServer]) -> None:
    server = serve(ref_faults=[502] * 10)

    sentence = await failure_of(lambda: cloned(tmp_path, f"{server.url}/repo.git"))

    assert sentence.endswith("the server answered with status 502 (tried 5 times)")
    assert len(server.requests) == TRIES


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_refusal_of_a_token_is_retried_since_the_server_may_not_know_it_yet(
    tmp_path: Path, repository: Repository, serve: Callable[..., GitServer], status: int
) -> None:
    secrets = {"git-username": "x-access-token", "git-password": TOKEN}
    server = serve(password=TOKEN, ref_faults=[status] * 4)

    clone = await cloned(tmp_path, f"{server.url}/repo.git", secrets=secrets)

    assert clone.git("rev-parse", "HEAD") == repository.commit("main")
    assert any("trying again" in line for line in clone.logs)


@pytest.mark.parametrize(
    ("path", "options", "secrets"),
    [
        ("nothing.git", {}, None),
        ("repo.git", {"password": TOKEN}, None),
        ("repo.git", {"ref_faults": [403] * 9}, None),
        ("repo.git", {"ref": "no-such-branch"}, {"git-password": TOKEN}),
    ],
)
async def test_failure_that_stays_is_not_retried(
    tmp_path: Path,
    serve: Callable[..., GitServer],
    path: str,
    options: dict[str, Any],
    secrets: dict[str, str] | None,
) -> None:
    ref = options.pop("ref", None)
    server = serve(**options)

    sentence = await failure_of(lambda: cloned(tmp_path, f"{server.url}/{path}", ref, secrets=secrets))

    assert "tried" not in sentence
    assert len([request for request in server.requests if "info/refs" in request]) <= 2


async def test_unknown_host_is_not_retried(tmp_path: Path) -> None:
    sentence = await failure_of(lambda: cloned(tmp_path, "http://no-such-host.invalid/repo.git"))

    assert "its host is not known" in sentence
    assert "tried" not in sentence


async def test_redirect_is_not_followed(tmp_path: Path, serve: Callable[..., GitServer]) -> None:
    target = serve()
    redirecting = serve(redirect_to=target.url)

    assert "redirects" in await failure_of(lambda: cloned(tmp_path, f"{redirecting.url}/repo.git"))
    assert target.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001"])
async def test_forbidden_address_receives_no_request(
    tmp_path: Path, serve: Callable[..., GitServer], host: str
) -> None:
    server = serve()

    sentence = await failure_of(lambda: cloned(tmp_path, f"http://{host}:{server.port}/repo.git", git_addresses=()))

    assert "OUTBOUND_ALLOWED_CIDRS" in sentence
    assert server.requests == []


async def test_name_in_a_private_network_fails_like_an_unknown_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(host: str, *_: object, **__: object) -> list[Any]:
        if host == "intranet.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))]
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    sentences = []
    for name in ("intranet.example", "missing.example"):
        (tmp_path / name).mkdir()
        sentences.append(await failure_of(partial(cloned, tmp_path / name, f"https://{name}/o/r.git")))
    assert sentences[0].replace("intranet", "missing") == sentences[1]


async def test_git_connects_to_the_checked_address_without_a_name_lookup(
    tmp_path: Path, serve: Callable[..., GitServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)

    clone = await cloned(tmp_path, f"http://git.invalid:{serve().port}/repo.git")

    assert clone.readme == "second"


@pytest.fixture
def ssh_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace ssh by a program that writes its arguments to a file and fails. Return the file."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    arguments = tmp_path / "arguments"
    refusal = 'echo "Permission denied (publickey)" >&2; exit 255'
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{arguments}"\n{refusal}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return arguments


def ssh_configuration(arguments: Path) -> dict[str, str]:
    """Return the configuration that the real ssh reads from the arguments, by option."""
    options = arguments.read_text().splitlines()
    host = next(index for index, word in enumerate(options) if word.startswith("git@"))
    printed = subprocess.run(["/usr/bin/ssh", "-G", *options[: host + 1]], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in printed.stdout.splitlines() if " " in line)


async def ssh_refusal(tmp_path: Path, **fields: Any) -> str:
    return await failure_of(lambda: cloned(tmp_path, "git@localhost:o/r.git", git_addresses=SSH_LOOPBACK, **fields))


async def test_ssh_connects_to_the_checked_address_without_keys_of_the_engines_user(
    tmp_path: Path, ssh_arguments: Path
) -> None:
    sentence = await ssh_refusal(tmp_path)

    ssh = ssh_configuration(ssh_arguments)
    assert ssh["batchmode"] == "yes"
    assert ssh["hostkeyalias"] == "localhost"
    assert ssh["hostname"] in ("127.0.0.1", "::1")
    assert (ssh["identityfile"], ssh["identitiesonly"], ssh["identityagent"]) == ("none", "yes", "none")
    assert str(Path.home()) not in ssh["userknownhostsfile"]
    assert "there is no SSH key: set LABRATS_GIT_SSH_KEY" in sentence


async def test_ssh_uses_the_key_and_known_hosts_of_the_settings(tmp_path: Path, ssh_arguments: Path) -> None:
    key, known_hosts = tmp_path / "deploy key 100%", tmp_path / "known_hosts"
    key.write_text("test-key")
    known_hosts.write_text("")

    sentence = await ssh_refusal(tmp_path, git_ssh_key=str(key), git_ssh_known_hosts=str(known_hosts))

    ssh = ssh_configuration(ssh_arguments)
    assert ssh["identityfile"].replace("%%", "%") == str(key)  # as ssh expands it
    assert (ssh["userknownhostsfile"], ssh["stricthostkeychecking"]) == (str(known_hosts), "true")
    assert "still valid" in sentence


async def test_ssh_uses_the_key_of_the_jobs_secret_and_the_key_is_removed(tmp_path: Path, ssh_arguments: Path) -> None:
    await ssh_refusal(tmp_path, git_ssh_key="/other", secrets={"git-ssh-privatekey": TOKEN, "git-known_hosts": "h k"})

    ssh = ssh_configuration(ssh_arguments)
    assert ssh["identityfile"].endswith("/credentials/ssh-privatekey")
    assert ssh["userknownhostsfile"].endswith("/credentials/known_hosts")
    assert files_with(TOKEN, tmp_path) == []


async def test_commands_configured_by_user_or_repository_are_not_run(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    trapped = trap(tmp_path / "trapped", witness=tmp_path / "witness")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "template"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "filter.trap.smudge")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {tmp_path / 'witness'}")

    clone = await cloned(tmp_path, trapped)

    assert (clone.workspace / ".gitmodules").exists()
    assert list((clone.workspace / "submodule").iterdir()) == []
    assert not (tmp_path / "witness").exists()


def test_attempt_stopped_while_cloning_leaves_nothing_behind(tmp_path: Path, unique_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        setup = WorkspaceSetup(git_repo=f"http://127.0.0.1:{listener.getsockname()[1]}/repo.git")
        attempt = an_attempt(
            tmp_path,
            attempt=unique_name,
            workspace_setup=setup,
            git_addresses=LOOPBACK,
            secrets={"git-password": TOKEN},
        )
        with attempt.started() as process:
            listener.settimeout(DEADLINE_SECONDS)
            connection, _ = listener.accept()
            process.send_signal(signal.SIGTERM)
            process.wait()
            connection.close()

    assert isinstance(attempt.outcome, ErrorEvent)
    assert attempt.outcome.message == "stopped on request"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []
    assert files_with(TOKEN, tmp_path) == []


async def test_failure_says_that_git_is_missing(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "git is not installed" in await failure_of(lambda: cloned(tmp_path, repository.path))


async def test_failure_names_a_git_that_may_not_be_executed(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.touch(mode=0o644)
    monkeypatch.setenv("PATH", str(program.parent))
    failure = await failure_of(lambda: cloned(tmp_path, repository.path))
    assert failure.startswith("git cannot be run: permission denied: the user ")
    assert failure.endswith(f"may not execute {program}")


async def test_git_without_address_pinning_is_not_used(
    tmp_path: Path, serve: Callable[..., GitServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho git version 2.34.1\n")
    program.chmod(0o755)
    url = f"{serve().url}/repo.git"
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    assert "git 2.37 or newer" in await failure_of(lambda: cloned(tmp_path, url))


def test_nothing_that_git_has_started_runs_beside_the_agent(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its automatic maintenance would go on outside of the sandbox, in a repository that the agent changes."""
    seconds, leaving, agent = f"300.{secrets.randbelow(10**9)}", tmp_path / "bin" / "git", tmp_path / "agent"
    leaving.parent.mkdir()
    leave = f'echo "$*" >> {tmp_path}/arguments; setsid sleep {seconds} > /dev/null 2>&1 &'
    real = shutil.which("git")
    leaving.write_text(f'#!/bin/sh\ncase "$*" in *" fetch "*|*" clone "*) {leave} ;; esac\nexec {real} "$@"\n')
    agent.write_text(f"#!/bin/sh\nps -eo args | grep -c 'sleep [3]{seconds[1:]}' > {tmp_path}/running\n")
    for program in (leaving, agent):
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(leaving.parent), prepend=os.pathsep)
    attempt = an_attempt(
        tmp_path,
        config=JobConfig(provider="claude"),
        programs={"claude": str(agent)},
        workspace_setup=WorkspaceSetup(git_repo=str(repository.path)),
        repo_roots=(str(repository.path.parent),),
    )
    attempt.run()
    assert (tmp_path / "running").read_text() == "0\n"
    for arguments in (tmp_path / "arguments").read_text().splitlines():
        assert "-c gc.auto=0 -c maintenance.auto=false" in arguments


def test_repository_is_checked_out_in_the_sandbox(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It chooses the code that converts its files, of which parts have had defects."""
    watched, bubblewrap = tmp_path / "bin" / "git", shutil.which("bwrap")
    assert bubblewrap, "bubblewrap is missing: run `make setup`"
    watched.parent.mkdir()
    note = '[ -f "$TMPDIR/../credentials/askpass" ] && key=key; echo "$(readlink /proc/self/ns/mnt) $key $*"'
    watched.write_text(f'#!/bin/sh\n{note} >> "$TMPDIR/notes"\nexec {shutil.which("git")} "$@"\n')
    watched.chmod(0o755)
    monkeypatch.setenv("PATH", str(watched.parent), prepend=os.pathsep)
    for ref, command in (("main", " read-tree "), (repository.commit("main"), " checkout ")):
        folder = tmp_path / command.strip()
        folder.mkdir()
        attempt = an_attempt(
            folder,
            [{"result": "done"}],
            workspace_setup=WorkspaceSetup(git_repo=str(repository.path), git_ref=ref),
            repo_roots=(str(repository.path.parent),),
            sandbox=Sandbox(program=bubblewrap),
        )
        attempt.run()
        assert (attempt.workspace / "readme.txt").read_text() == "second"
        notes = (attempt.path / "tmp" / "notes").read_text().splitlines()
        (check_out,) = [note.split(maxsplit=1) for note in notes if command in note]
        others = {note.split()[0] for note in notes if " key " in note}  # the namespace of mounts, at the clone
        assert others
        assert check_out[0] not in others
        assert not check_out[1].startswith("key ")


async def test_files_replace_those_of_the_repository(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "upload").write_bytes(b"\x00uploaded")
    files = (
        WorkspaceFile(name="readme.txt", path=str(tmp_path / "upload"), size=9),
        WorkspaceFile(name="docs/new.bin", path=str(tmp_path / "upload"), size=9),
    )

    clone = await cloned(tmp_path, repository.path, workspace_files=files)

    assert (clone.workspace / "readme.txt").read_bytes() == b"\x00uploaded"
    assert (clone.workspace / "docs" / "new.bin").read_bytes() == b"\x00uploaded"


async def test_file_is_not_written_through_a_link_in_the_repository(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "upload").write_text("uploaded")
    files = (WorkspaceFile(name="outside/planted.txt", path=str(tmp_path / "upload"), size=8),)

    with pytest.raises(GiveUp) as refused:
        await cloned(tmp_path, repository.path, workspace_files=files)

    assert refused.value.code == FailedCode.WORKSPACE
    assert not (repository.path.parent / "planted.txt").exists()


async def test_failure_names_a_missing_upload(tmp_path: Path) -> None:
    files = (WorkspaceFile(name="a.txt", path=str(tmp_path / "gone"), size=1),)

    with pytest.raises(GiveUp, match=r"'a\.txt' cannot be put into the workspace: No such file") as refused:
        await prepared(tmp_path, workspace_files=files)

    assert refused.value.code == FailedCode.WORKSPACE


def watch_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wrap git in a program that records the arguments and environment of each call. Return the record's path."""
    real, record = shutil.which("git"), tmp_path.parent / f"{tmp_path.name}-git-calls"
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >> "{record}"\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return record


def files_with(text: str, folder: Path) -> list[Path]:
    """Return the files below `folder` that contain `text`."""
    return [file for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def trap(source: Path, witness: Path) -> Path:
    """Create a repository and a home whose configuration runs a command that creates `witness`."""
    hook = source.parent / "template" / "hooks" / "post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {witness}\n")
    hook.chmod(0o755)
    home = source.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[core]\nhooksPath = {hook.parent}\nfsmonitor = "touch {witness}; false"\n'
        f'[filter "trap"]\nsmudge = "touch {witness}"\n[submodule]\nrecurse = true\n[protocol]\nallow = always\n'
    )
    source.mkdir()
    git(source, "init", "-q", "--template=")
    (source / ".gitattributes").write_text("* filter=trap\n")
    (source / ".gitmodules").write_text(
        f'[submodule "submodule"]\npath = submodule\nurl = ext::sh -c touch% {witness}\nupdate = !touch {witness}\n'
    )
    git(source, "add", ".")
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},submodule")
    git(source, "commit", "-q", "-m", "trap")
    return source

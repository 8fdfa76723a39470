"""Tests of the git bundle with the commits of an attempt."""

import base64
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from labrats.model.job import WorkspaceFile, WorkspaceSetup
from labrats.model.protocol import BUNDLE_BYTES, BUNDLE_REF, Sandbox
from tests.unit.executor.attempts import AttemptFolder, wait_until
from tests.unit.executor.test_workspace_diff import COMMIT, an_attempt_of, git, replace_git

SECRET = "test-key-0123456789abcdef"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Create a repository with three commits."""
    path = tmp_path / "repositories" / "hello"
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    for number in ("one", "two", "three"):
        (path / "readme.txt").write_text(f"{number}\n")
        (path / f"{number}.txt").write_text(f"{number}\n")
        git(path, "add", ".")
        git(path, "commit", "-q", "-m", number)
    return path


def bundle_of(attempt: AttemptFolder) -> Path:
    return attempt.path / "commits.bundle"


def fetched(attempt: AttemptFolder, repository: Path) -> list[tuple[str, str]]:
    """Fetch the bundle into the original repository. Return subject and author of the new commits, the newest first."""
    assert bundle_of(attempt).is_file(), attempt.logs
    cloned = git(repository, "rev-parse", "HEAD")
    assert git(repository, "bundle", "list-heads", str(bundle_of(attempt))).split()[1:] == [BUNDLE_REF]
    header = bundle_of(attempt).read_bytes().split(b"\n\n")[0].decode()
    assert [line.split()[0] for line in header.splitlines() if line.startswith("-")] == [f"-{cloned}"]
    git(repository, "fetch", "-q", str(bundle_of(attempt)), f"{BUNDLE_REF}:fetched")
    git(repository, "fsck", "--strict", "fetched")
    lines = git(repository, "log", "--format=%s|%an <%ae>", f"{cloned}..fetched").splitlines()
    return [(subject, author) for subject, _, author in (line.partition("|") for line in lines)]


def names_in(repository: Path, commit: str = "fetched") -> list[str]:
    return git(repository, "ls-tree", "-r", "--name-only", commit).split()


AGENT = "Agent <agent@example.org>"
ENGINE = "Labrats <agent@labrats.invalid>"


def test_commits_and_uncommitted_changes_can_be_fetched(tmp_path: Path, repository: Path) -> None:
    script = f"""echo new > a.txt; git add a.txt; {COMMIT} -m first; echo newer > a.txt; {COMMIT} -a -m second
        echo dirty >> readme.txt; rm two.txt; echo untracked > b.txt; mkdir node_modules; echo x > node_modules/x"""
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()

    assert attempt.outcome.outputs.bundle_bytes == bundle_of(attempt).stat().st_size
    assert fetched(attempt, repository) == [("Add uncommitted changes", ENGINE), ("second", AGENT), ("first", AGENT)]
    assert names_in(repository) == ["a.txt", "b.txt", "one.txt", "readme.txt", "three.txt"]
    assert git(repository, "show", "fetched:readme.txt") == "three\ndirty"
    assert git(repository, "rev-parse", "fetched~1") == git(attempt.workspace, "rev-parse", "HEAD")


def test_change_in_the_second_of_the_checkout_is_handed_over(tmp_path: Path, repository: Path) -> None:
    """Git compares whole seconds. It compares the content of a file as young as the index, which must keep its time."""
    script = f"echo x > x; git add x; {COMMIT} -m first; echo dirty > readme.txt; sleep 1"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert b"+dirty" in (attempt.path / "changes.patch").read_bytes()
    assert fetched(attempt, repository) == [("Add uncommitted changes", ENGINE), ("first", AGENT)]
    assert git(repository, "show", "fetched:readme.txt") == "dirty"


def test_commits_without_further_changes_are_handed_over_unchanged(tmp_path: Path, repository: Path) -> None:
    script = f"mkdir node_modules; echo x > node_modules/x; git add .; {COMMIT} -m first; echo y > y.pyc"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository) == [("first", AGENT)]
    assert git(repository, "rev-parse", "fetched") == git(attempt.workspace, "rev-parse", "HEAD")


def test_an_agent_commits_without_naming_an_author(tmp_path: Path, repository: Path) -> None:
    script = """git() { command git "$@" || exit; }
        git commit -q --allow-empty -m first; git config user.name Ada; git commit -q --allow-empty -m second"""
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository) == [("second", "Ada <agent@labrats.invalid>"), ("first", ENGINE)]


def test_uncommitted_changes_alone_are_one_commit(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(tmp_path, "echo dirty >> readme.txt", repository)
    attempt.run()
    assert fetched(attempt, repository) == [("Add uncommitted changes", ENGINE)]
    assert git(repository, "show", "fetched:readme.txt") == "three\ndirty"


@pytest.mark.parametrize(
    "rewrite",
    [
        f"{COMMIT} --amend -m amended",
        f"git reset -q --soft HEAD~2; {COMMIT} -m squashed",
        f"git checkout -q --orphan fresh; {COMMIT} -m orphan",
        f"git checkout -q -b side HEAD~2; {COMMIT} --allow-empty -m side; git checkout -q main; git merge -q side",
        "git reset -q --soft HEAD~1",
        "git symbolic-ref HEAD refs/heads/unborn",
    ],
    ids=["amended", "squashed", "orphan", "merge with older history", "reset", "no commit"],
)
def test_rewritten_history_is_one_commit_on_the_cloned_one(tmp_path: Path, repository: Path, rewrite: str) -> None:
    identity = "git config user.name A; git config user.email a@example.org"
    script = f"{identity}; {rewrite}; echo four > readme.txt; git add readme.txt; echo dirty > b.txt"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository) == [("Add all changes", ENGINE)]
    assert git(repository, "show", "fetched:b.txt") == "dirty"
    assert git(repository, "show", "fetched:readme.txt") == "four"
    assert names_in(repository) == ["b.txt", "one.txt", "readme.txt", "three.txt", "two.txt"]


def an_attempt_with(tmp_path: Path, script: str, repository: Path, **setup: Any) -> AttemptFolder:
    """Build an attempt with further settings of its workspace."""
    workspace_setup = WorkspaceSetup(git_repo=str(repository), **setup)
    return an_attempt_of(tmp_path, script, workspace_setup=workspace_setup, repo_roots=(str(repository.parent),))


@pytest.mark.parametrize("rewrite", ["", "--amend"])
def test_shallow_clone_has_a_bundle(tmp_path: Path, repository: Path, rewrite: str) -> None:
    script = f"echo new > a.txt; git add a.txt; {COMMIT} {rewrite} -m first; echo dirty > b.txt"
    attempt = an_attempt_with(tmp_path, script, repository, git_depth=1)
    attempt.run()
    assert (attempt.workspace / ".git" / "shallow").is_file()
    committed = [("Add uncommitted changes", ENGINE), ("first", AGENT)]
    assert fetched(attempt, repository) == ([("Add all changes", ENGINE)] if rewrite else committed)
    assert names_in(repository) == ["a.txt", "b.txt", "one.txt", "readme.txt", "three.txt", "two.txt"]


def test_history_with_missing_commits_is_one_commit(tmp_path: Path, repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "other", "HEAD~1")
    git(repository, "commit", "-q", "--allow-empty", "-m", "other")
    git(repository, "checkout", "-q", "main")
    merge = f"{COMMIT.replace('commit', 'merge')} --allow-unrelated-histories -s ours -m merged FETCH_HEAD"
    script = f"git fetch -q --depth=1 origin other; {merge}; echo new > a.txt"
    attempt = an_attempt_with(tmp_path, script, repository, git_depth=1)
    attempt.run()
    assert fetched(attempt, repository) == [("Add all changes", ENGINE)]
    assert git(repository, "show", "fetched:a.txt") == "new"


def test_files_of_setup_commands_and_of_the_job_are_no_commit(tmp_path: Path, repository: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("of the job")
    prepare = "echo prepared > three.txt; echo prepared > one.txt; echo prepared > lock.txt; rm two.txt"
    script = f"echo new > a.txt; git add a.txt; {COMMIT} -m first; echo mine >> one.txt; echo dirty > b.txt"
    files = (WorkspaceFile(name="notes.txt", path=str(notes), size=10),)
    setup = WorkspaceSetup(git_repo=str(repository), setup=(("sh", "-c", prepare),))
    attempt = an_attempt_of(
        tmp_path, script, workspace_setup=setup, workspace_files=files, repo_roots=(str(repository.parent),)
    )
    attempt.run()
    assert fetched(attempt, repository) == [("Add uncommitted changes", ENGINE), ("first", AGENT)]
    assert names_in(repository) == ["a.txt", "b.txt", "one.txt", "readme.txt", "three.txt", "two.txt"]
    assert git(repository, "show", "fetched:three.txt") == "three"
    assert git(repository, "show", "fetched:one.txt") == "prepared\nmine"


def test_bundle_is_stored_after_a_stop(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(tmp_path, f"echo new > a.txt; git add .; {COMMIT} -m first; sleep 600", repository)
    with attempt.started() as process:
        wait_until(lambda: "first" in _last_subject(attempt), "the agent has committed")
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert fetched(attempt, repository) == [("first", AGENT)]


def _last_subject(attempt: AttemptFolder) -> str:
    log = attempt.workspace / ".git" / "logs" / "HEAD"
    return "".join(log.read_text().splitlines()[-1:]) if log.exists() else ""  # git creates it empty


NOTHING = {
    "no change": "true",
    "ignored files": "mkdir node_modules; echo x > node_modules/x",
    "only a publication": "mkdir .labrats; echo '{}' > .labrats/publish.json; git add .",
    "commits that were undone": f"echo x > x; git add .; {COMMIT} -m x; git reset -q --hard HEAD~1",
    "older commit": "git checkout -q HEAD~1; git checkout -q main -- .",
}


@pytest.mark.parametrize("script", NOTHING.values(), ids=NOTHING)
def test_attempt_without_changes_has_no_bundle(tmp_path: Path, repository: Path, script: str) -> None:
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert not bundle_of(attempt).exists()
    assert attempt.outcome.outputs.bundle_bytes is None
    assert not [line for line in attempt.logs if "bundle" in line]


def test_attempt_without_a_repository_has_no_bundle(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, f"git init -q; echo x > x; git add .; {COMMIT} -m one")
    attempt.run()
    assert not bundle_of(attempt).exists()
    assert not [line for line in attempt.logs if "bundle" in line]


def test_publication_is_not_added_with_other_files(tmp_path: Path, repository: Path) -> None:
    script = f"mkdir .labrats; echo '{{}}' > .labrats/publish.json; echo x > x; git add -A; {COMMIT} -m first"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository) == [("first", AGENT)]


def test_committed_publication_is_in_no_commit_of_the_bundle(tmp_path: Path, repository: Path) -> None:
    script = f"mkdir .labrats; echo '{{}}' > .labrats/publish.json; echo x > x; git add -f .; {COMMIT} -m first"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository) == [("Add all changes", ENGINE)]
    assert names_in(repository) == ["one.txt", "readme.txt", "three.txt", "two.txt", "x"]
    assert b".labrats" not in (attempt.path / "changes.patch").read_bytes()
    assert "[the bundle has one commit in place of the agent's, which have files of .labrats]" in attempt.logs


SECRETS = {
    "in a file": (f"echo {SECRET} > config.txt; git add .; {COMMIT} -m first", "a secret is in the file config.txt"),
    "in a removed file": (
        f"echo {SECRET} > config.txt; git add .; {COMMIT} -m first; git rm -q config.txt; {COMMIT} -m second",
        "a secret is in the file config.txt",
    ),
    "in base64": (
        f"echo {base64.b64encode(SECRET.encode()).decode()} > config.txt; git add .; {COMMIT} -m first",
        "a secret is in the file config.txt",
    ),
    "in an uncommitted file": (f"echo {SECRET} > config.txt", "a secret is in the file config.txt"),
    "in a message": (f"echo x > x; git add .; {COMMIT} -m 'uses {SECRET}'", "a secret is in the commit"),
    "in an author": (
        f"echo x > x; git add .; {COMMIT} --author='{SECRET} <a@b>' -m first",
        "a secret is in the commit",
    ),
    "in a file's name": (f"mkdir d; echo x > d/{SECRET}; git add .; {COMMIT} -m first", "a secret is in the folder d"),
    "in a name of an old file": (f"git mv one.txt {SECRET}; {COMMIT} -m first", "a secret is in the folder"),
}


@pytest.mark.parametrize(("script", "reason"), SECRETS.values(), ids=SECRETS)
def test_secret_prevents_the_bundle_and_is_not_shown(
    tmp_path: Path, repository: Path, script: str, reason: str
) -> None:
    attempt = an_attempt_of(tmp_path, script, repository, secrets={"ANTHROPIC_API_KEY": SECRET})
    attempt.run()
    [line] = [line for line in attempt.logs if "bundle" in line]
    assert line.startswith(f"[no bundle of the commits is stored: {reason}")
    assert not bundle_of(attempt).exists()
    assert SECRET not in attempt.output.read_text()


def test_path_of_a_file_with_a_secret_is_redacted(tmp_path: Path, repository: Path) -> None:
    script = f"mkdir {SECRET}; echo {SECRET} > {SECRET}/x; git add .; {COMMIT} -m first"
    attempt = an_attempt_of(tmp_path, script, repository, secrets={"ANTHROPIC_API_KEY": SECRET})
    attempt.run()
    assert [line for line in attempt.logs if "a secret is in" in line]
    assert SECRET not in attempt.output.read_text()


def test_too_large_bundle_is_not_stored(tmp_path: Path, repository: Path) -> None:
    script = f"head -c {BUNDLE_BYTES * 2} /dev/urandom > large.bin; git add .; {COMMIT} -m first; git rm -q large.bin"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert not bundle_of(attempt).exists()
    assert "[no bundle of the commits is stored: the output of git bundle exceeds 5 MiB]" in attempt.logs


UNCOMMITTED = {
    "too large": f"head -c {BUNDLE_BYTES * 2} /dev/urandom > build.bin",
    "with a secret": f"echo {SECRET} > .env",
}


@pytest.mark.parametrize("script", UNCOMMITTED.values(), ids=UNCOMMITTED)
def test_commits_are_handed_over_without_uncommitted_changes_that_cannot_be(
    tmp_path: Path, repository: Path, script: str
) -> None:
    script = f"echo new > a.txt; git add a.txt; {COMMIT} -m first; {script}"
    attempt = an_attempt_of(tmp_path, script, repository, secrets={"ANTHROPIC_API_KEY": SECRET})
    attempt.run()
    assert fetched(attempt, repository) == [("first", AGENT)]
    assert attempt.outcome.outputs.bundle_bytes == bundle_of(attempt).stat().st_size
    assert [
        line for line in attempt.logs if line.startswith("[the bundle has the commits of the agent without its unc")
    ]


@pytest.mark.parametrize("amend", ["", "--amend"])
def test_commits_are_handed_over_although_uncommitted_changes_take_too_long(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, amend: str
) -> None:
    """An attempt that is stopped has little time. Rewritten commits cannot be pushed as they are."""
    replace_git(tmp_path, monkeypatch, 'case "$*" in *staging.git*" add "*) sleep 20;; esac')
    attempt = a_stopped_attempt(tmp_path, repository, f"echo new > a.txt; git add a.txt; {COMMIT} {amend} -m first")
    assert "stopped on request" in attempt.failure[1]
    assert "[the changes in the workspace cannot be computed: git took more than 4 s]" in attempt.logs
    if amend:
        assert "[no bundle of the commits is stored: git took more than 4 s]" in attempt.logs
    else:
        assert fetched(attempt, repository) == [("first", AGENT)]


def a_stopped_attempt(tmp_path: Path, repository: Path, script: str) -> AttemptFolder:
    """Return an attempt that was stopped after a script, and left an uncommitted file."""
    attempt = an_attempt_of(tmp_path, f"{script}; echo x > uncommitted; sleep 600", repository)
    with attempt.started() as process:
        wait_until((attempt.workspace / "uncommitted").exists, "the agent has done its work")
        process.send_signal(signal.SIGTERM)
        process.wait()
    return attempt


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Create another job's repository, with a file that this job must not get."""
    path = tmp_path / "private"
    path.mkdir()
    git(path, "init", "-q")
    (path / "private.txt").write_text("of another job\n")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "private")
    return path


THEFTS = {
    "alternates": "echo {private}/.git/objects > .git/objects/info/alternates",
    "folder": "mv .git/objects ../stolen; ln -s {private}/.git/objects .git/objects",
    "repository": "mv .git ../stolen; ln -s {private}/.git .git",
    "files": "for folder in {private}/.git/objects/??; do ln -s $folder .git/objects/; done",
}


@pytest.mark.parametrize("theft", THEFTS.values(), ids=THEFTS)
def test_objects_of_another_repository_are_not_read(
    tmp_path: Path, repository: Path, private: Path, theft: str
) -> None:
    """The agent knows the names of objects that it may not read, and makes a commit of them."""
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    text = f"tree {git(private, 'rev-parse', 'HEAD^{tree}')}\nparent $(git rev-parse HEAD)"
    person = "A <a@example.org> 1700000000 +0000"
    script = f"""mkdir -p .git/objects/info; echo x > readme.txt
        commit=$(echo "{text}\nauthor {person}\ncommitter {person}\n\nmine" | git hash-object -t commit -w --stdin)
        echo $commit > .git/refs/heads/main; {theft.format(private=private)}"""
    attempt = an_attempt_of(tmp_path, script, repository, sandbox=Sandbox(program=program, hidden=(str(private),)))
    attempt.run()
    assert fetched(attempt, repository) == [("Add all changes", ENGINE)]
    assert "private.txt" not in names_in(repository)
    assert b"of another job" not in (attempt.path / "changes.patch").read_bytes()


TRAPS = {
    "hooks": "for hook in post-index-change reference-transaction; do cp ../trap .git/hooks/$hook; done",
    "filter": "git config filter.x.clean ../trap; echo '* filter=x' > .gitattributes",
    "pack": "git config uploadpack.packObjectsHook ../trap",
    "signature": "git config commit.gpgSign true; git config gpg.program ../trap",
    "home": "printf '[commit]\\ngpgSign = true\\n[gpg]\\nprogram = ../trap\\n' > $HOME/.gitconfig",
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_commands_that_the_agent_configures_are_not_run(tmp_path: Path, repository: Path, trap: str) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "trap").write_text(f"#!/bin/sh\ntouch {marker}; cat\n")
    (tmp_path / "trap").chmod(0o755)
    script = f"mkdir -p .git/hooks; echo x > x; git add .; {COMMIT} -m first; {trap}; echo dirty > readme.txt"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository)[-2:] == [("Add uncommitted changes", ENGINE), ("first", AGENT)]
    assert not marker.exists()


def test_bundle_reflects_commits_and_not_replacements(tmp_path: Path, repository: Path) -> None:
    script = f"""echo x > x; git add .; {COMMIT} -m first; git checkout -q -b other HEAD~1
        {COMMIT} --allow-empty -m other; git checkout -q main; git replace main other"""
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository) == [("first", AGENT)]


def test_submodules_are_recorded_as_data(tmp_path: Path, repository: Path) -> None:
    script = f"""git init -q sub; cd sub; {COMMIT} --allow-empty -m sub; cd ..; git add sub; {COMMIT} -m first
        cd sub; {COMMIT} --allow-empty -m later"""
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert fetched(attempt, repository) == [("Add uncommitted changes", ENGINE), ("first", AGENT)]
    assert git(repository, "rev-parse", "fetched:sub") == git(attempt.workspace / "sub", "rev-parse", "HEAD")


def test_executor_leaves_no_unfinished_file_beside_the_bundle(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(tmp_path, f"echo x > x; git add .; {COMMIT} -m first", repository)
    attempt.run()
    names = {entry.name for entry in os.scandir(attempt.path)}
    assert {"commits.bundle", "changes.patch"} <= names
    assert not [name for name in names if name.endswith(".part")]

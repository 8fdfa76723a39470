"""Tests of the patch with the changes of an attempt."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.workspace_diff import PATCH_BYTES
from labrats.model.config import JobConfig
from labrats.model.job import FailedCode, Outputs, WorkspaceFile, WorkspaceSetup
from labrats.model.protocol import BUNDLE_REF, ErrorEvent, Sandbox
from tests.unit.executor.attempts import AttemptFolder, an_attempt, wait_until

NOTHING = Outputs()
COMMIT = "git -c user.name=Agent -c user.email=agent@example.org commit -q"


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, input=stdin, check=True, capture_output=True).stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Create a repository with text files, a binary file, a link and an ignored folder."""
    path = tmp_path / "repositories" / "hello"
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    (path / "readme.txt").write_text("one\ntwo\n")
    (path / "latin.txt").write_bytes(b"gr\xfc\xdfe\n")
    (path / "image.bin").write_bytes(bytes(range(256)))
    (path / "link").symlink_to("readme.txt")
    (path / "obsolete.txt").write_text("old\n")
    (path / ".gitignore").write_text("build/\n")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "one")
    return path


def an_attempt_of(tmp_path: Path, script: str, repository: Path | None = None, **inputs: Any) -> AttemptFolder:
    """Build an attempt whose agent runs a shell script and exits without a result."""
    program = tmp_path / "agent"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    if repository:
        setup = WorkspaceSetup(git_repo=str(repository))
        inputs |= {"workspace_setup": setup, "repo_roots": (str(repository.parent),)}
    return an_attempt(tmp_path, config=JobConfig(provider="claude"), programs={"claude": str(program)}, **inputs)


def outputs_of(attempt: AttemptFolder) -> Outputs:
    attempt.run()
    return attempt.outcome.outputs


def patch_of(attempt: AttemptFolder) -> bytes:
    return (attempt.path / "changes.patch").read_bytes()


def tree_of(folder: Path) -> str:
    """Return the git tree of all files in a work tree except the ignored ones."""
    git(folder, "add", "--all")
    return git(folder, "write-tree")


def test_patch_applies_to_the_original_repository(tmp_path: Path, repository: Path) -> None:
    script = """
        echo three >> readme.txt; printf '\\374\\n' >> latin.txt; printf 'x' >> image.bin; rm obsolete.txt
        mkdir -p src build; printf '#!/bin/sh\\n' > src/run; chmod +x src/run; ln -sf latin.txt link
        echo junk > build/junk; echo committed > committed.txt; git add committed.txt; """
    attempt = an_attempt_of(tmp_path, f"{script}{COMMIT} -m 'A commit'; echo dirty >> committed.txt", repository)

    outputs = outputs_of(attempt)

    assert outputs.files_changed == 7
    assert outputs.branch == "main"
    assert outputs.commits == (git(attempt.workspace, "rev-parse", "HEAD"),) == (outputs.commit,)
    assert b"junk" not in patch_of(attempt)
    git(repository, "apply", "--binary", stdin=patch_of(attempt))
    assert tree_of(repository) == tree_of(attempt.workspace)


def test_patch_omits_only_what_programs_make_and_install_and_the_log_names_it(tmp_path: Path, repository: Path) -> None:
    script = """
        mkdir -p src/__pycache__ tools/x/__pycache__ node_modules/x .venv/bin ignored/__pycache__ .vscode .idea
        echo ignored > .gitignore; echo x > tools/x/__pycache__/a.pyc; echo x > ignored/__pycache__/a.pyc
        echo x > src/__pycache__/a.cpython-311.pyc; echo x > old.pyc; echo x > ignored/file
        echo x > node_modules/x/index.js; echo x > .venv/bin/python
        echo x > .DS_Store; echo x > .main.py.swp; echo x > notes~; echo x > .vscode/tasks.json; echo x > .idea/a.xml
        echo 'print(1)' > src/main.py"""
    attempt = an_attempt_of(tmp_path, script, repository)

    named = (".gitignore", ".DS_Store", ".main.py.swp", "notes~", ".vscode/tasks.json", ".idea/a.xml", "src/main.py")
    assert outputs_of(attempt).files_changed == len(named)
    assert all(f"b/{name}".encode() in patch_of(attempt) for name in named)
    left_out = ".venv/, node_modules/, old.pyc, src/__pycache__/, tools/x/__pycache__/"
    what = "5 files or folders that programs have made or installed"
    assert f"[the patch leaves out {what}: {left_out}]" in attempt.logs


def test_new_files_beside_tracked_ones_in_node_modules_are_in_the_patch(tmp_path: Path, repository: Path) -> None:
    (repository / "vendor/node_modules").mkdir(parents=True)
    (repository / "vendor/node_modules/own.js").write_text("own")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=Vendor")
    script = """
        mkdir -p vendor/node_modules/new/__pycache__ node_modules; echo x > node_modules/installed.js
        echo new > 'vendor/node_modules/*.js'; echo new > vendor/node_modules/new/index.js"""
    attempt = an_attempt_of(tmp_path, script, repository)

    assert outputs_of(attempt).files_changed == 2
    assert b"b/vendor/node_modules/*.js" in patch_of(attempt)
    assert b"b/vendor/node_modules/new/index.js" in patch_of(attempt)
    assert b"installed" not in patch_of(attempt)
    assert [log for log in attempt.logs if "leaves out" in log] == [
        "[the patch leaves out 1 files or folders that programs have made or installed: node_modules/]"
    ]


def test_file_that_git_cannot_add_in_node_modules_hides_no_other_change(tmp_path: Path, repository: Path) -> None:
    (repository / "node_modules").mkdir()
    (repository / "node_modules/own.js").write_text("own")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=Vendor")
    script = "git init -q node_modules/empty; echo new > node_modules/new.js; echo three >> readme.txt"
    attempt = an_attempt_of(tmp_path, script, repository)

    attempt.run()
    assert b"+three" in patch_of(attempt)
    assert b"b/node_modules/new.js" in patch_of(attempt)
    assert [log for log in attempt.logs if "omits" in log]


@pytest.mark.parametrize("script", ["true", "git init -q", "git init -q --separate-git-dir=elsewhere"])
def test_patch_needs_no_repository_in_the_workspace(tmp_path: Path, script: str) -> None:
    attempt = an_attempt_of(tmp_path, f"{script}; echo hello > b.txt")
    attempt.run()
    assert b"+hello" in patch_of(attempt)


def test_patch_is_stored_after_a_failure(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"write": {"path": "a/b.txt", "text": "hello\n"}}, {"fail": "no"}])
    assert outputs_of(attempt).files_changed == 1
    assert isinstance(attempt.outcome, ErrorEvent)
    assert b"+hello" in patch_of(attempt)


def test_patch_is_stored_after_a_stop(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"write": {"path": "b.txt", "text": "hello\n"}}, {"log": "here"}, {"hang": True}])
    with attempt.started() as process:
        wait_until(lambda: "here" in attempt.logs, "the agent has written")
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert attempt.outcome.outputs.files_changed == 1
    assert b"+hello" in patch_of(attempt)


def test_patch_is_relative_to_the_jobs_files(tmp_path: Path) -> None:
    for name, text in (("notes.txt", "one\n"), ("ignored.log", "one\n"), (".gitignore", "*.log\n")):
        (tmp_path / name).write_text(text)
    names = ("notes.txt", "ignored.log", ".gitignore")
    files = tuple(WorkspaceFile(name=name, path=str(tmp_path / name), size=4) for name in names)
    attempt = an_attempt_of(tmp_path, "echo two >> notes.txt; echo two >> ignored.log", workspace_files=files)

    assert outputs_of(attempt).files_changed == 2
    before = tmp_path / "before"
    before.mkdir()
    for name in names:
        (before / name).write_bytes((tmp_path / name).read_bytes())
    git(before, "init", "-q")
    git(before, "apply", stdin=patch_of(attempt))
    assert (before / "notes.txt").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("steps", [[{"result": 1}], [{"fail": "no"}]])
def test_attempt_without_files_reports_no_outputs(tmp_path: Path, steps: list[Any]) -> None:
    attempt = an_attempt(tmp_path, steps)
    assert outputs_of(attempt) == NOTHING
    assert not (attempt.path / "changes.patch").exists()


def test_unchanged_repository_has_no_patch(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(tmp_path, "true", repository)
    assert outputs_of(attempt) == Outputs(base_commit=git(repository, "rev-parse", "HEAD"), files_changed=0)
    assert not (attempt.path / "changes.patch").exists()


def test_agents_repository_is_not_modified(tmp_path: Path, repository: Path) -> None:
    script = "echo three >> readme.txt; echo new > new.txt; git add readme.txt; git status --porcelain > ../status"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert git(attempt.workspace, "status", "--porcelain") == (tmp_path / "status").read_text().strip()


TRAPS = {
    "fsmonitor": "git config core.fsmonitor 'touch {trap};:'",
    "hooks": "printf '#!/bin/sh\\ntouch {trap}' > .git/hooks/post-index-change; chmod +x .git/hooks/*",
    "filter": "{filter}; echo '* filter=x' > .gitattributes",
    "textconv": "git config diff.x.textconv 'touch {trap};cat'; echo '* diff=x' > .gitattributes",
    "external diff": "git config diff.external 'touch {trap};:'",
    "home": "printf '[core]\\nfsmonitor = touch {trap};:\\n' > $HOME/.gitconfig",
    "attributes": "{filter}; mkdir -p .git/info; echo '* filter=x' > .git/info/attributes",
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_commands_that_the_agent_configures_are_not_run(tmp_path: Path, repository: Path, trap: str) -> None:
    marker = tmp_path / "marker"
    clean = f"git config filter.x.clean 'touch {marker};cat'"
    script = f"mkdir -p .git/hooks; {trap.format(trap=marker, filter=clean)}; echo three >> readme.txt"
    attempt = an_attempt_of(tmp_path, script, repository)
    assert outputs_of(attempt).files_changed in (1, 2)
    assert not marker.exists()


def test_filter_of_a_submodule_is_not_run(tmp_path: Path, repository: Path) -> None:
    git(tmp_path, "clone", "-q", str(repository), "library")
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    git(repository, "commit", "-q", "-m", "two")
    marker = tmp_path / "marker"
    script = f"""git clone -q {tmp_path}/library sub; cd sub; git config filter.x.clean 'touch {marker};cat'
        echo '* filter=x' > .gitattributes; echo old > obsolete.txt"""
    attempt = an_attempt_of(tmp_path, script, repository)
    assert outputs_of(attempt).files_changed == 0
    assert not marker.exists()


def test_commit_of_a_submodule_is_in_the_patch(tmp_path: Path, repository: Path) -> None:
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(repository, "commit", "-q", "-m", "two")
    attempt = an_attempt_of(tmp_path, f"cd sub; git init -q; {COMMIT} --allow-empty -m one", repository)
    assert outputs_of(attempt).files_changed == 1
    head = git(attempt.workspace / "sub", "rev-parse", "HEAD")
    assert f"+Subproject commit {head}\n" in patch_of(attempt).decode()


def test_secret_in_the_patch_is_redacted(tmp_path: Path) -> None:
    secrets = {"ANTHROPIC_API_KEY": "test-key-0123456789"}
    attempt = an_attempt_of(tmp_path, 'echo "key=$ANTHROPIC_API_KEY" > .env', secrets=secrets)
    attempt.run()
    assert b"key=" in patch_of(attempt)
    assert b"test-key-0123456789" not in patch_of(attempt)


@pytest.mark.parametrize(("content", "is_left_out"), [("test-key-0123456789", True), ("something else", False)])
def test_binary_file_with_a_secret_is_only_named_in_the_patch(tmp_path: Path, content: str, is_left_out: bool) -> None:
    secrets = {"ANTHROPIC_API_KEY": "test-key-0123456789"}
    attempt = an_attempt_of(tmp_path, f"printf 'a\\0%s' '{content}' > data.bin; echo text > a.txt", secrets=secrets)
    assert outputs_of(attempt).files_changed == 2
    assert (b"Binary files /dev/null and b/data.bin differ" in patch_of(attempt)) == is_left_out
    assert (b"GIT binary patch" not in patch_of(attempt)) == is_left_out
    assert b"+text\n" in patch_of(attempt)


@pytest.mark.parametrize("change", ["rm .npmrc", "echo other > .npmrc"])
def test_former_secret_of_a_file_that_git_treats_as_binary_is_not_in_the_patch(
    tmp_path: Path, repository: Path, change: str
) -> None:
    """A binary patch has the content before the change, too."""
    prepared = ("sh", "-c", "printf 'token=test-key-0123456789\\n\\0' > .npmrc")
    attempt = an_attempt_of(
        tmp_path,
        change,
        workspace_setup=WorkspaceSetup(git_repo=str(repository), setup=(prepared,)),
        repo_roots=(str(repository.parent),),
        secrets={"ANTHROPIC_API_KEY": "test-key-0123456789"},
    )
    attempt.run()
    assert b".npmrc" in patch_of(attempt)
    assert b"GIT binary patch" not in patch_of(attempt)


def test_patch_of_an_agent_that_starts_no_program_is_stored(tmp_path: Path) -> None:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    steps = [{"write": {"path": "made.txt", "text": "one"}}, {"result": "done"}]
    attempt = an_attempt(tmp_path, steps, sandbox=Sandbox(program=program))
    assert outputs_of(attempt).files_changed == 1
    assert b"+one" in patch_of(attempt)


def test_repository_in_the_workspace_reveals_no_file_outside(tmp_path: Path, repository: Path) -> None:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    (tmp_path / "token").write_text("5ec4e700" * 5 + "\n")
    script = f"""mkdir -p sub/.git/refs/heads sub/.git/objects; echo 'ref: refs/heads/x' > sub/.git/HEAD
        ln -s {tmp_path}/token sub/.git/refs/heads/x; echo three >> readme.txt"""
    attempt = an_attempt_of(tmp_path, script, repository, sandbox=Sandbox(program=program))
    attempt.run()
    assert b"+three" in patch_of(attempt)
    assert b"5ec4e700" not in patch_of(attempt)
    assert any("error: 'sub/' does not have a commit checked out" in line for line in attempt.logs)


def replace_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a shell script run before each git command, also in the sandbox. $dir: the engine's repository."""
    program = folder / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh
        for word; do case $word in --git-dir=*) dir=${{word#*=}};; esac; done
        (PATH=/usr/bin:/bin; {script})
        exec {shutil.which("git")} "$@"\n""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.mark.parametrize("prints", [10, 70_000_000])
def test_git_in_the_sandbox_cannot_configure_git_outside(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, prints: int
) -> None:
    """It reads an agent's files, and parts of it have had defects by which a file can run a program."""
    bubblewrap = shutil.which("bwrap")
    assert bubblewrap, "bubblewrap is missing: run `make setup`"
    engines = tmp_path / "attempt" / "baseline.git"
    replace_git(
        tmp_path,
        monkeypatch,
        f"""case "$*" in *" add "*) for dir in $dir {engines}; do echo '[alias] x = y' >> $dir/config
            mkdir -p $dir/info; echo '* diff=x' > $dir/info/attributes; echo / >> $dir/objects/info/alternates; done
            head -c {prints} /dev/zero;; esac""",
    )
    attempt = an_attempt_of(tmp_path, "echo three >> readme.txt", repository, sandbox=Sandbox(program=bubblewrap))
    attempt.run()
    assert (attempt.path / "changes.patch").exists() == (prints == 10)
    assert "alias" not in (engines / "config").read_text()
    assert not (engines / "info").exists() or not list((engines / "info").iterdir())
    assert not (engines / "objects" / "info" / "alternates").exists()
    assert not (attempt.path / "staging.git").exists()


@pytest.mark.parametrize("setup", [(), (("touch", "made"),)])
def test_git_reads_what_an_agent_has_left_in_the_sandbox(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, setup: tuple[tuple[str, ...], ...]
) -> None:
    """It trusts parts of the objects, such as the index of a pack, and has had defects."""
    bubblewrap = shutil.which("bwrap")
    assert bubblewrap, "bubblewrap is missing: run `make setup`"
    outside = tmp_path / "outside"
    outside.mkdir()
    of_workspace = f'*" --work-tree={tmp_path}/ws "*|*" upload-pack "*staging.git*'
    note = f'if [ -d {outside} ]; then echo "$*" >> {outside}/commands; else echo "$*" >> {tmp_path}/ws/commands; fi'
    replace_git(tmp_path, monkeypatch, f'case " $* " in *" fetch "*) ;; {of_workspace}) {note};; esac')
    attempt = an_attempt_of(
        tmp_path,
        f"echo three >> readme.txt; {COMMIT} -am three; echo four >> readme.txt",
        sandbox=Sandbox(program=bubblewrap),
        workspace_setup=WorkspaceSetup(git_repo=str(repository), setup=setup),
        repo_roots=(str(repository.parent),),
    )
    attempt.run()
    assert b"+four" in patch_of(attempt)
    commands = (attempt.workspace / "commands").read_text()
    assert all(f" {name}" in commands for name in ("add", "write-tree", "update-ref", "upload-pack"))
    assert not (outside / "commands").exists()


def test_git_outside_of_the_sandbox_reads_no_index_of_setup_commands(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git trusts an index, and has written to any memory for one that was made for it."""
    bubblewrap = shutil.which("bwrap")
    assert bubblewrap, "bubblewrap is missing: run `make setup`"
    replace_git(
        tmp_path,
        monkeypatch,
        f'case "$*" in *no-files*) grep -q foreign "$GIT_INDEX_FILE" && touch {tmp_path}/was-read;; esac',
    )
    entry = ("git", "update-index", "--add", "--cacheinfo", f"100644,{'1' * 40},foreign")
    attempt = an_attempt_of(
        tmp_path,
        "echo three >> readme.txt",
        sandbox=Sandbox(program=bubblewrap),
        workspace_setup=WorkspaceSetup(git_repo=str(repository), setup=(entry,)),
        repo_roots=(str(repository.parent),),
    )
    attempt.run()
    assert b"+three" in patch_of(attempt)
    assert b"foreign" in (attempt.workspace / ".git" / "index").read_bytes()
    assert not (tmp_path / "was-read").exists()


@pytest.mark.parametrize(("lines", "is_text"), [(10, True), (600_000, False)])
def test_patch_shows_the_text_of_files_that_are_marked_as_binary_if_it_fits(
    tmp_path: Path, repository: Path, lines: int, is_text: bool
) -> None:
    """Readers of the patch would otherwise see no change in them."""
    script = f"""echo '*.txt -diff' > .gitattributes; echo three >> readme.txt
        yes 'a line of text' | head -{lines} > c.txt"""
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    patch = patch_of(attempt)
    assert (b"\n+three\n" in patch, b"GIT binary patch" not in patch) == (is_text, is_text)
    assert any("too large with the text" in line for line in attempt.logs) == (not is_text)
    git(repository, "apply", "--binary", stdin=patch)
    assert (repository / "readme.txt").read_bytes() == (attempt.workspace / "readme.txt").read_bytes()
    assert (repository / "c.txt").read_bytes() == (attempt.workspace / "c.txt").read_bytes()


def test_too_large_patch_is_not_stored(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, f"head -c {PATCH_BYTES * 2} /dev/urandom > large.bin")
    assert outputs_of(attempt).files_changed is None
    assert not (attempt.path / "changes.patch").exists()
    assert "[the changes in the workspace cannot be computed: the output of git diff exceeds 5 MiB]" in attempt.logs


@pytest.mark.parametrize(
    "script",
    ["rm -rf .git", f"rm -rf .git; git init -q; git add .; {COMMIT} -m new", "rm -rf .git/objects", "rm .git/HEAD"],
    ids=["removed", "replaced", "without objects", "without a branch"],
)
def test_destroyed_repository_hides_no_change(tmp_path: Path, repository: Path, script: str) -> None:
    attempt = an_attempt_of(tmp_path, f"{script}; echo three >> readme.txt; rm obsolete.txt", repository)
    assert outputs_of(attempt).files_changed == 2
    git(repository, "apply", "--binary", stdin=patch_of(attempt))
    assert (repository / "readme.txt").read_text() == "one\ntwo\nthree\n"
    git(repository, "bundle", "verify", "--quiet", str(attempt.path / "commits.bundle"))


PIPES = {
    "changed file": "rm readme.txt; mkfifo readme.txt",
    "attributes": "mkfifo .gitattributes",
    "ignored files": "rm .gitignore; mkfifo .gitignore",
    "closed folder": "mkdir closed; mkfifo closed/.gitignore; chmod 0 closed",
    "read-only folder": "mkdir closed; mkfifo closed/.gitignore; chmod 500 closed",
    "other repository": "git init -q sub; rm sub/.git/HEAD; mkfifo sub/.git/HEAD",
    "objects": "mkfifo .git/objects/pipe",
}
SOCKET = "import socket; socket.socket(socket.AF_UNIX).bind('readme.txt')"


@pytest.mark.parametrize("script", [*PIPES.values(), f'rm readme.txt; python3 -c "{SOCKET}"'], ids=[*PIPES, "socket"])
def test_pipe_or_socket_hides_no_change(tmp_path: Path, repository: Path, script: str) -> None:
    """A git that opens a pipe waits for ever, and it fails at a socket."""
    attempt = an_attempt_of(tmp_path, f"{script}; echo hello > new.txt", repository)
    attempt.run(without_capabilities=True)
    assert b"+hello" in patch_of(attempt)
    assert "[removed 1 pipes, sockets or devices from the workspace: git cannot read them]" in attempt.logs


def test_pipe_of_the_setup_commands_does_not_stop_the_job(tmp_path: Path, repository: Path) -> None:
    setup = WorkspaceSetup(git_repo=str(repository), setup=(("mkfifo", ".gitattributes"),))
    roots = (str(repository.parent),)
    attempt = an_attempt_of(tmp_path, "echo hello > new.txt", workspace_setup=setup, repo_roots=roots)
    attempt.run()
    assert b"+hello" in patch_of(attempt)


@pytest.mark.parametrize("option", ["--assume-unchanged", "--skip-worktree", "--split-index"])
def test_setup_commands_cannot_hide_a_later_change(tmp_path: Path, repository: Path, option: str) -> None:
    setup = WorkspaceSetup(git_repo=str(repository), setup=(("git", "update-index", option, "readme.txt"),))
    roots = (str(repository.parent),)
    attempt = an_attempt_of(tmp_path, "echo three >> readme.txt", workspace_setup=setup, repo_roots=roots)
    assert outputs_of(attempt).files_changed == 1
    assert b"+three" in patch_of(attempt)


@pytest.mark.parametrize("commits", [False, True])
def test_files_that_setup_commands_check_out_belong_to_the_baseline(
    tmp_path: Path, repository: Path, commits: bool
) -> None:
    """Also those that are committed and ignored, which `git add` leaves out."""
    git(repository, "checkout", "-q", "-b", "release")
    (repository / "build").mkdir()
    (repository / "build" / "out.txt").write_text("one\n")
    (repository / "build" / "other.txt").write_text("one\n")
    git(repository, "add", "--force", ".")
    git(repository, "commit", "-q", "-m", "release")
    git(repository, "checkout", "-q", "main")
    setup = WorkspaceSetup(git_repo=str(repository), setup=(("git", "checkout", "-q", "release"),))
    script = "echo two >> build/out.txt" + (f"; git add -f build; {COMMIT} -m two" if commits else "")
    attempt = an_attempt_of(tmp_path, script, workspace_setup=setup, repo_roots=(str(repository.parent),))
    assert outputs_of(attempt).files_changed == 1
    assert b"\n one\n+two\n" in patch_of(attempt)


@pytest.mark.parametrize(
    ("script", "named"),
    [("echo two >> made.txt; echo three >> readme.txt", ["made.txt, readme.txt"]), ("echo x > own.txt", [])],
    ids=["the same files", "others"],
)
def test_log_names_files_without_whose_preparation_the_patch_does_not_apply(
    tmp_path: Path, repository: Path, script: str, named: list[str]
) -> None:
    setup = WorkspaceSetup(git_repo=str(repository), setup=(("sh", "-c", "echo one > made.txt; echo x >> readme.txt"),))
    attempt = an_attempt_of(tmp_path, script, workspace_setup=setup, repo_roots=(str(repository.parent),))
    attempt.run()
    beginning = "[the patch applies only after the job's setup commands and files, for: "
    assert [line for line in attempt.logs if line.startswith(beginning)] == [f"{beginning}{each}]" for each in named]


def test_patch_of_what_setup_commands_have_changed_needs_no_repository(tmp_path: Path, repository: Path) -> None:
    setup = WorkspaceSetup(git_repo=str(repository), setup=(("sh", "-c", "echo x >> readme.txt"),))
    script = "rm -rf .git; echo three >> readme.txt"
    attempt = an_attempt_of(tmp_path, script, workspace_setup=setup, repo_roots=(str(repository.parent),))
    assert outputs_of(attempt).files_changed == 1
    assert b"+three" in patch_of(attempt)


NOT_ADDED = {
    "repository without a commit": ("git init -q sub", "error: 'sub/' does not have a commit checked out"),
    "name of git's folder": ("mkdir .GIT; echo x > .GIT/config", "error: invalid path '.GIT/config'"),
    "long path": (
        """python3 -c "import os; [(os.mkdir('0' * 200), os.chdir('0' * 200)) for _ in range(22)]" """,
        "warning: could not open directory '0000",
    ),
}


@pytest.mark.parametrize(("script", "message"), NOT_ADDED.values(), ids=NOT_ADDED)
def test_file_that_git_cannot_add_hides_no_other_change(
    tmp_path: Path, repository: Path, script: str, message: str
) -> None:
    attempt = an_attempt_of(tmp_path, f"{script}; echo hello > new.txt", repository)
    attempt.run()
    assert b"+hello" in patch_of(attempt)
    assert [line for line in attempt.logs if line.startswith(f"[the patch omits what git cannot add: {message}")]


def test_no_file_outside_of_the_workspace_is_opened_for_a_submodule(tmp_path: Path, repository: Path) -> None:
    """A link in the place of `.gitmodules` may lead to a device, or to a pipe at which git would wait."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sub = f"git init -q sub; {COMMIT.replace('git', 'git -C sub', 1)} --allow-empty -m one"
    script = f"{sub}; git add sub; {COMMIT} -m sub; rm -f .gitmodules; ln -s {pipe} .gitmodules; echo x >> readme.txt"
    attempt = an_attempt_of(tmp_path, script, repository)
    attempt.run()
    assert b"Subproject commit" in patch_of(attempt)
    assert attempt.outcome.outputs.bundle_bytes


def test_no_file_outside_of_the_workspace_is_opened_for_attributes(tmp_path: Path, repository: Path) -> None:
    (repository / "folder").mkdir()
    (repository / "folder" / "a.txt").write_text("one\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "folder")
    outside = tmp_path / "outside"
    outside.mkdir()
    os.mkfifo(outside / ".gitattributes")
    attempt = an_attempt_of(tmp_path, f"rm -r folder; ln -s {outside} folder; echo x >> readme.txt", repository)
    attempt.run()
    assert b"deleted file mode 100644" in patch_of(attempt)
    assert attempt.outcome.outputs.bundle_bytes


def test_setup_commands_let_git_open_no_file_outside_of_the_workspace(tmp_path: Path, repository: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    packs = ".git/objects/pack"
    command = f"mkdir -p {packs}; ln -s {pipe} {packs}/pack-1.idx; echo x > {packs}/pack-1.pack; echo new > readme.txt"
    attempt = an_attempt(
        tmp_path,
        [{"result": "done"}],
        workspace_setup=WorkspaceSetup(git_repo=str(repository), setup=(("sh", "-c", command),)),
        repo_roots=(str(repository.parent),),
    )
    attempt.run()
    assert attempt.result == "done"
    assert attempt.outcome.outputs.files_changed == 0


ENCODING = """printf 'it?s* working-tree-encoding=%s\\n' > .gitattributes; echo text > "it's a file" """
REPOSITORY = f"git init -q sub; cd sub; {COMMIT} --allow-empty -m one; echo '[' > .git/config"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (ENCODING % "UTF-16", 'the file "it\'s a file", whose encoding is not as in .gitattributes'),
        (ENCODING % "NONE-SUCH", 'the file "it\'s a file", whose encoding is not as in .gitattributes'),
        (REPOSITORY, "the repository 'sub', whose configuration is invalid"),
    ],
    ids=["no byte order mark", "unknown encoding", "invalid configuration"],
)
def test_file_because_of_which_git_adds_nothing_hides_no_other_change(
    tmp_path: Path, repository: Path, script: str, reason: str
) -> None:
    attempt = an_attempt_of(tmp_path, f"echo three >> readme.txt; {script}", repository)
    attempt.run()

    assert b"+three" in patch_of(attempt)
    assert f"[the patch omits what git cannot add: {reason}]" in attempt.logs


@pytest.mark.parametrize("named", [".", "src", ".git"])
def test_name_of_a_file_like_an_error_of_git_hides_no_other_change(tmp_path: Path, source: Path, named: str) -> None:
    name = f"x\nfatal: nothing is missing, see '{named}' from here\ny"
    (tmp_path / "name").write_text(name)
    script = f"""printf 'x* working-tree-encoding=UTF-16\n' > .gitattributes; echo three >> readme.txt
        echo 'evil = True' > src/main.py; echo text > "$(cat {tmp_path}/name)" """
    attempt = an_attempt_of(tmp_path, script, source)
    attempt.run()

    patch = attempt.path / "changes.patch"
    assert not patch.exists() or b"+evil" in patch.read_bytes()
    assert any("git cannot add" in line or "cannot be computed" in line for line in attempt.logs)


def test_further_files_that_git_cannot_add_are_counted(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(tmp_path, "for each in 1 2 3 4 5 6 7; do git init -q $each; done", repository)
    attempt.run()
    assert "[the patch omits 2 more that git cannot add]" in attempt.logs


def test_failure_of_git_is_reported_whatever_the_names_of_files(tmp_path: Path, repository: Path) -> None:
    encoding = """echo '"Permission denied" working-tree-encoding=UTF-16' > .gitattributes"""
    attempt = an_attempt_of(tmp_path, f"{encoding}; printf x > 'Permission denied'", repository)
    attempt.run()
    assert any("the file 'Permission denied', whose encoding" in line for line in attempt.logs)
    assert b".gitattributes" in patch_of(attempt)


@pytest.mark.parametrize("closed", ["new.txt", "readme.txt", "folder", ". readme.txt new.txt folder"])
def test_unreadable_file_is_in_the_patch(tmp_path: Path, repository: Path, closed: str) -> None:
    change = "echo three >> readme.txt; echo new > new.txt; mkdir folder; echo deep > folder/deep.txt"
    attempt = an_attempt_of(tmp_path, f"{change}; chmod 000 {closed}", repository)
    attempt.run(without_capabilities=True)
    assert attempt.outcome.outputs.files_changed == 3
    assert all(line in patch_of(attempt) for line in (b"+three", b"+new", b"+deep"))


def test_closed_folder_of_objects_hides_no_change(tmp_path: Path, repository: Path) -> None:
    attempt = an_attempt_of(
        tmp_path, "echo new > new.txt; mkdir .git/objects/xx; chmod 000 .git/objects/xx", repository
    )
    attempt.run(without_capabilities=True)
    assert attempt.failure[0] == FailedCode.AGENT_ERROR
    assert b"+new" in patch_of(attempt)


def test_closed_workspace_does_not_affect_the_outcome(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, "echo new > new.txt; chmod 000 .")
    attempt.run(without_capabilities=True)
    assert b"+new" in patch_of(attempt)


def test_deleted_workspace_affects_only_the_patch(tmp_path: Path) -> None:
    attempt = an_attempt_of(tmp_path, 'rm -r "$PWD"')
    attempt.run()
    assert attempt.failure[0] == FailedCode.AGENT_ERROR
    computed = (
        "[the changes in the workspace cannot be computed: the workspace cannot be read: No such file or directory]"
    )
    assert computed in attempt.logs


UNPACK = """
import os, shutil, subprocess, sys, zlib

def git(*arguments, stdin=None):
    return subprocess.run(['git', *arguments], check=True, capture_output=True, input=stdin).stdout.strip()

def forge(name, content, kind='tree'):
    path = f'.git/objects/{name[:2]}/{name[2:]}'
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.chmod(path, 0o600)
    open(path, 'wb').write(zlib.compress(f'{kind} {len(content)}\\0'.encode() + content))

for pack in [each for each in os.listdir('.git/objects/pack') if each.endswith('.pack')]:
    os.rename(f'.git/objects/pack/{pack}', pack)
    git('unpack-objects', '-q', stdin=open(pack, 'rb').read())
    os.unlink(pack)
known = git('rev-parse', 'HEAD:src').decode()
open('src/main.py', 'w').write('evil = True\\n')
"""
FORGE = f"""{UNPACK}
git('add', 'src')
new = git('rev-parse', git('write-tree').decode() + ':src').decode()
forge(known, subprocess.run(['git', 'cat-file', 'tree', new], check=True, capture_output=True).stdout)
"""
REVEAL = f"""{UNPACK}
objects, name = sys.argv[1:]
forge(known, b'100644 main.py\\0' + bytes.fromhex(name))
"""
MULTI_PACK_INDEX = f"""{UNPACK}
import struct
pack, offset = sys.argv[1:]
blob = git('rev-parse', 'HEAD:src/main.py').decode()
os.unlink(f'.git/objects/{{blob[:2]}}/{{blob[2:]}}')
name = ('../' * 40 + pack.lstrip('/')).encode() + bytes(1)
first = int(blob[:2], 16)
chunks = {{
    b'PNAM': name + bytes(-len(name) % 4),
    b'OIDF': b''.join(struct.pack('>I', number >= first) for number in range(256)),
    b'OIDL': bytes.fromhex(blob),
    b'OOFF': struct.pack('>II', 0, int(offset)),
}}
place, table = 12 + 12 * (len(chunks) + 1), b''
for kind, content in [*chunks.items(), (bytes(4), b'')]:
    table += kind + struct.pack('>Q', place)
    place += len(content)
header = b'MIDX' + bytes([1, 1, len(chunks), 0]) + struct.pack('>I', 1)
open('.git/objects/pack/multi-pack-index', 'wb').write(header + table + b''.join(chunks.values()) + bytes(20))
"""
WAYS_TO_OBJECTS = {
    "alternates": "open('.git/objects/info/alternates', 'w').write(objects)",
    "folder": "shutil.rmtree('.git/objects/pack'); os.symlink(f'{objects}/pack', '.git/objects/pack')",
    "file": "file = f'{name[:2]}/{name[2:]}'; os.makedirs(f'.git/objects/{name[:2]}', exist_ok=True); "
    "os.symlink(f'{objects}/{file}', f'.git/objects/{file}')",
}


@pytest.fixture
def source(repository: Path) -> Path:
    """Create a repository with a program in a folder."""
    (repository / "src").mkdir()
    (repository / "src" / "main.py").write_text("evil = False\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "src")
    return repository


@pytest.mark.parametrize("way", WAYS_TO_OBJECTS.values(), ids=WAYS_TO_OBJECTS.keys())
def test_patch_shows_no_file_of_a_repository_outside(tmp_path: Path, source: Path, way: str) -> None:
    """A forged folder says that a changed file was one of the other repository before the agent started."""
    program, others = shutil.which("bwrap"), tmp_path / "others"
    assert program, "bubblewrap is missing: run `make setup`"
    git(tmp_path, "init", "-q", str(others))
    (others / "password").write_text("the password of others")
    git(others, "add", ".")
    git(others, "commit", "-q", "-m", "one")
    git(others, "repack", "-q", "-a")  # so that it has each object in a pack, too
    name = git(others, "rev-parse", "HEAD:password")
    reveal = tmp_path / "reveal.py"
    reveal.write_text(f"{REVEAL}{way}\n")
    sandbox = Sandbox(program=program, readable=(str(reveal),), hidden=(str(others),))
    attempt = an_attempt_of(tmp_path, f"python3 {reveal} {others}/.git/objects {name}", source, sandbox=sandbox)
    attempt.run()

    assert b"+evil = True" in patch_of(attempt)
    assert b"the password of others" not in patch_of(attempt)


def test_patch_shows_no_file_of_a_pack_outside(tmp_path: Path, source: Path) -> None:
    """An index of several packs says that a changed file is in a pack of another repository."""
    program, others = shutil.which("bwrap"), tmp_path / "others"
    assert program, "bubblewrap is missing: run `make setup`"
    git(tmp_path, "init", "-q", str(others))
    (others / "password").write_text("the password of others")
    git(others, "add", ".")
    git(others, "commit", "-q", "-m", "one")
    git(others, "repack", "-q", "-a", "-d")
    (pack,) = (others / ".git" / "objects" / "pack").glob("*.idx")
    name = git(others, "rev-parse", "HEAD:password")
    (line,) = (each for each in git(others, "verify-pack", "-v", str(pack)).splitlines() if each.startswith(name))
    reveal = tmp_path / "reveal.py"
    reveal.write_text(MULTI_PACK_INDEX)
    sandbox = Sandbox(program=program, readable=(str(reveal),), hidden=(str(others),))
    attempt = an_attempt_of(tmp_path, f"python3 {reveal} {pack} {line.split()[-1]}", source, sandbox=sandbox)
    attempt.run()

    assert (attempt.workspace / ".git" / "objects" / "pack" / "multi-pack-index").exists()
    assert b"+evil = True" in patch_of(attempt)
    assert b"the password of others" not in patch_of(attempt)


def test_commits_of_a_repository_outside_are_not_listed(tmp_path: Path, source: Path) -> None:
    program, others = shutil.which("bwrap"), tmp_path / "others"
    assert program, "bubblewrap is missing: run `make setup`"
    git(tmp_path, "clone", "-q", str(source), str(others))
    git(others, "commit", "-q", "--allow-empty", "-m", "secret")
    commit = git(others, "rev-parse", "HEAD")
    script = f"""rm -r .git/refs/heads .git/packed-refs; ln -s {others}/.git/refs/heads .git/refs/heads
        echo {others}/.git/objects > .git/objects/info/alternates; echo three >> readme.txt"""
    sandbox = Sandbox(program=program, hidden=(str(others),))
    outputs = outputs_of(an_attempt_of(tmp_path, script, source, sandbox=sandbox))
    assert commit not in (outputs.commit, *outputs.commits)


def test_agent_cannot_hide_a_change_by_a_forged_object(tmp_path: Path, source: Path) -> None:
    """By the forged folder, the file seems to have been changed before the agent started."""
    (tmp_path / "forge.py").write_text(FORGE)
    attempt = an_attempt_of(tmp_path, f"python3 {tmp_path}/forge.py", source)
    attempt.run()
    assert b"+evil = True" in patch_of(attempt)


FORGED_FILE = f"""{UNPACK}
if sys.argv[1] == 'old':
    forge(git('rev-parse', 'HEAD:src/main.py').decode(), b'evil = True\\n', 'blob')
else:
    forge(git('hash-object', 'src/main.py').decode(), b'evil = False\\n', 'blob')
"""


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("side", ["old", "new"])
def test_agent_cannot_hide_a_change_by_a_forged_file(tmp_path: Path, source: Path, side: str, commits: bool) -> None:
    """By the forged file, both versions of it have the same content."""
    (tmp_path / "forge.py").write_text(FORGED_FILE)
    commit = f"echo 'evil = True' > src/main.py; {COMMIT} -am evil; " if commits else ""
    forge = f"python3 {tmp_path}/forge.py" if not commits or side == "new" else "true"
    attempt = an_attempt_of(tmp_path, f"{commit}{forge} {side}", source)
    attempt.run()

    assert b"+evil = True" in patch_of(attempt)
    bundle = attempt.path / "commits.bundle"
    git(source, "fetch", "-q", str(bundle), f"{BUNDLE_REF}:fetched")
    assert git(source, "show", "fetched:src/main.py") == "evil = True"
    refused = [
        line
        for line in attempt.logs
        if line.startswith("[the agent's commits cannot be fetched, so their changes are one commit")
    ]
    assert len(refused) == (1 if commits and side == "new" else 0)


def test_file_that_git_cannot_add_is_in_the_patch_as_it_is_committed(tmp_path: Path, source: Path) -> None:
    """So it is in the bundle."""
    script = f"""echo 'evil = True' > src/main.py; {COMMIT} -am evil
        echo .gitattributes > src/.gitignore; echo .gitignore >> src/.gitignore
        echo 'main.py working-tree-encoding=UTF-32' > src/.gitattributes; printf 'x\\377' > src/main.py"""
    attempt = an_attempt_of(tmp_path, script, source)
    assert outputs_of(attempt).files_changed == 1
    assert b"+evil = True" in patch_of(attempt)
    assert attempt.outcome.outputs.bundle_bytes
    assert any("the patch omits what git cannot add: the file 'src/main.py'" in line for line in attempt.logs)


def test_program_that_an_agent_names_in_the_engines_repository_does_not_run(tmp_path: Path) -> None:
    """In a pod, the agent can write to it. The engine's own processes would run the program after the agent's end."""
    ran = tmp_path / "ran"
    script = f"""
    printf '#!/bin/sh\\n: > {ran}\\n/bin/cat\\n' > {tmp_path}/filter; chmod 755 {tmp_path}/filter
    repository=$(dirname "$HOME")/baseline.git
    git init -q --bare "$repository"
    git --git-dir="$repository" config filter.evil.clean {tmp_path}/filter
    mkdir -p "$repository/info"; echo '* filter=evil' > "$repository/info/attributes"
    echo 'a.txt filter=evil' > .gitattributes; echo text > a.txt
    """
    program = tmp_path / "agent"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    attempt = an_attempt(tmp_path, config=JobConfig(provider="claude"), programs={"claude": str(program)})
    attempt.run()
    assert "a.txt" in (attempt.path / "changes.patch").read_text()
    assert not ran.exists()


def test_patch_has_what_is_committed_although_it_is_ignored(tmp_path: Path, repository: Path) -> None:
    """The bundle has it, too."""
    script = f"""
        mkdir -p node_modules build; echo evil > node_modules/evil.js; echo evil > build/evil.sh; echo x > left.pyc
        echo three >> readme.txt
        git add --force node_modules build readme.txt; {COMMIT} -m 'All'; echo more >> build/evil.sh"""
    attempt = an_attempt_of(tmp_path, script, repository)

    assert outputs_of(attempt).files_changed == 3
    assert b"node_modules/evil.js" in patch_of(attempt)
    assert b"+more" in patch_of(attempt)
    assert b"left.pyc" not in patch_of(attempt)


def test_ignored_files_of_a_job_without_a_repository_are_not_deleted_by_a_commit(tmp_path: Path) -> None:
    upload = tmp_path / "data.log"
    upload.write_text("data")
    script = f"git init -q; echo '*.log' > .gitignore; git add --all; {COMMIT} -m 'All'"
    attempt = an_attempt_of(
        tmp_path, script, workspace_files=(WorkspaceFile(name="data.log", path=str(upload), size=4),)
    )
    assert outputs_of(attempt).files_changed == 1
    assert b"data.log" not in patch_of(attempt).replace(b"*.log", b"")

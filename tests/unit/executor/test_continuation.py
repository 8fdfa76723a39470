"""Tests of attempts that continue an ended job in a copy of its workspace."""

import gzip
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from labrats.files.trees import remove_tree
from labrats.model.conversation import Turn, encode_conversation
from labrats.model.job import FailedCode, WorkspaceFile
from labrats.model.protocol import Continuation, Resumption, Sandbox
from labrats.model.record import encode
from tests.support.http_server import an_http_server
from tests.unit.executor.attempts import (
    AttemptFolder,
    a_repository,
    an_attempt,
    commit_all,
    git,
    in_a_clone_of,
    the_next_attempt,
)

FIRST: list[Any] = [{"remember": True}, {"write": {"path": "made.txt", "text": "one"}}, {"result": "made"}]
SECOND: list[Any] = [{"remember": True}, {"read": "made.txt"}, {"write": {"path": "made.txt", "text": "two"}}]


def a_follow_up(
    earlier: AttemptFolder, steps: list[Any] = SECOND, *, kept: bool = False, session: bool = True, **fields: Any
) -> AttemptFolder:
    """Write the inputs of an attempt of another job, which continues `earlier`."""
    continuation = Continuation(
        job_id=earlier.task.job_id,
        session=earlier.session if session else None,
        workspace=str(earlier.workspace),
        folder=str(earlier.path),
        kept=str(earlier.path) if kept else None,
    )
    folder = earlier.path.parent / "follow-up" / "attempt"
    (folder / "secrets").mkdir(parents=True)
    (folder / "prompt").write_text("Go on.")
    turn = Turn(prompt="Fix the bug.", answer="made")
    (folder / "conversation").write_text(encode_conversation((turn,)))
    task = replace(
        earlier.task,
        job_id="ir-0000000b",
        attempt="ir-0000000b-1",
        workspace=str(folder.parent / "ws"),
        metadata={"mock": {"steps": steps}},
        continuation=continuation,
        **fields,
    )
    (folder / "job.json").write_bytes(encode(task))
    return AttemptFolder(folder, folder / "output.jsonl")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_follow_up_resumes_the_session_in_copies_and_changes_nothing_of_the_first_job(tmp_path: Path) -> None:
    first = an_attempt(tmp_path, FIRST)
    first.run()
    before = files_of(first.workspace) | files_of(first.path)
    second = a_follow_up(first)
    second.run()

    assert second.logs == [
        "[follow-up of ir-0000000a: resuming its session in a copy of its workspace]",
        "remembered: Fix the bug. | Go on.",
        "made.txt: one",
    ]
    assert (second.session.id, second.session.attempt) == (first.session.id, 1)
    assert (second.workspace / "made.txt").read_text() == "two"
    assert files_of(first.workspace) | files_of(first.path) == before


def test_follow_up_without_a_session_works_in_the_copy_with_the_conversation_in_its_prompt(tmp_path: Path) -> None:
    first = an_attempt(tmp_path, FIRST)
    first.run()
    second = a_follow_up(first, session=False)
    second.run()

    assert second.logs[0] == "[follow-up of ir-0000000a: a copy of its workspace, the conversation in the prompt]"
    log = "\n".join(second.logs)
    assert ">Fix the bug.</data-" in log
    assert "Go on." in log
    assert "made.txt: one" in second.logs


def test_workspace_is_copied_in_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry of the first job may put links in the place of folders while they are copied."""
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    (tmp_path / "engine.key").write_text("test-key-of-the-engine")
    programs = tmp_path / "programs"
    programs.mkdir()
    copy = programs / "cp"
    copy.write_text(f'#!/bin/sh\n/bin/cp "$@" && for to; do :; done; cat {tmp_path}/engine.key > "$to/key"; true\n')
    copy.chmod(0o755)
    first = an_attempt(tmp_path, FIRST, sandbox=Sandbox(program=program))
    first.run()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    second = a_follow_up(first)
    second.run()
    assert second.logs[0] == "[follow-up of ir-0000000a: resuming its session in a copy of its workspace]"
    assert (second.workspace / "key").read_text() == ""


def test_follow_up_whose_session_the_program_does_not_know_keeps_the_copy(tmp_path: Path) -> None:
    first = an_attempt(tmp_path, FIRST)
    first.run()
    shutil.rmtree(first.path / "home" / ".mock-sessions")
    second = a_follow_up(first)
    second.run()

    assert second.logs[1] == "[the agent's program does not know the session: it starts a new one]"
    assert ">Fix the bug.</data-" in "\n".join(second.logs)
    assert "made.txt: one" in second.logs


@pytest.mark.parametrize("gone", ["ws", "attempt/baseline.json"])
def test_follow_up_starts_in_a_new_workspace_once_that_of_the_job_is_removed(tmp_path: Path, gone: str) -> None:
    first = an_attempt(tmp_path, FIRST)
    first.run()
    path = tmp_path / gone
    path.rename(tmp_path / "removed")
    second = a_follow_up(first)
    second.run()

    assert second.logs[0] == "[follow-up of ir-0000000a: a new workspace, the conversation in the prompt]"
    assert "made.txt: (missing)" in second.logs
    assert ">Fix the bug.</data-" in "\n".join(second.logs)


def test_follow_up_of_a_job_of_the_last_version_works_in_a_new_clone_with_its_changes(tmp_path: Path) -> None:
    """There, the engine's repository had no objects of its own."""
    first = an_attempt(tmp_path, FIRST, **in_a_clone_of(a_repository(tmp_path / "repository")))
    first.run()
    objects = first.path / "baseline.git" / "objects"
    shutil.rmtree(objects)
    (objects / "info").mkdir(parents=True)
    (objects / "info" / "alternates").write_text(f"{first.workspace}/.git/objects\n")
    second = a_follow_up(first, kept=True)
    second.run()

    assert second.logs[0] == "[follow-up of ir-0000000a: resuming its session in a new workspace with its changes]"
    assert "made.txt: one" in second.logs
    assert second.outcome.outputs.files_changed == 1


def test_publication_of_the_first_job_is_not_published_again(tmp_path: Path) -> None:
    publication = {"write": {"path": ".labrats/publish.json", "text": '{"comment": "once"}'}}
    first = an_attempt(tmp_path, [*FIRST, publication])
    first.run()
    second = a_follow_up(first)
    second.run()

    assert (first.path / "publication.json").exists()
    assert not (second.path / "publication.json").exists()


def test_repository_in_the_files_of_a_job_is_not_obeyed(tmp_path: Path) -> None:
    """Git takes a folder with HEAD, objects and refs for a repository, and would run the programs that it names."""
    marker = tmp_path / "marker"
    hostile = {
        "HEAD": "ref: refs/heads/main\n",
        "config": f'[core]\nbare = false\nworktree = .\n[filter "x"]\nsmudge = touch {marker}; cat\n',
        "objects/k": "",
        "refs/k": "",
        "info/attributes": "* filter=x\n",
    }
    for name, text in hostile.items():
        (tmp_path / "uploads" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "uploads" / name).write_text(text)
    paths = {name: str(tmp_path / "uploads" / name) for name in hostile}
    files = tuple(WorkspaceFile(name=name, size=len(text), path=paths[name]) for name, text in hostile.items())
    first = an_attempt(tmp_path, FIRST, workspace_files=files)
    first.run()
    shutil.rmtree(first.workspace)
    second = a_follow_up(first, kept=True)
    second.run()

    assert "made.txt: one" in second.logs
    assert not marker.exists()


def test_nothing_is_cloned_into_a_workspace_with_files(tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, FIRST, **in_a_clone_of(a_repository(tmp_path / "repository")))
    (attempt.workspace / ".git").mkdir(parents=True)
    attempt.run()
    message = f"the workspace {attempt.workspace} is not empty; remove it, then retry the job"
    assert attempt.failure == (FailedCode.WORKSPACE, message)


def test_setup_commands_do_not_run_what_the_first_agent_has_written(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    (repository / "prepare.sh").write_text("echo prepared by the repository\n")
    commit_all(repository)
    inputs = in_a_clone_of(repository)
    inputs["workspace_setup"] = replace(inputs["workspace_setup"], setup=(("sh", "prepare.sh"),))
    evil = {"write": {"path": "prepare.sh", "text": "echo prepared by the agent\n"}}
    first = an_attempt(tmp_path, [evil, *FIRST], **inputs)
    first.run()
    shutil.rmtree(first.workspace)
    second = a_follow_up(first, kept=True)
    second.run()

    assert "prepared by the repository" in second.logs
    assert "prepared by the agent" not in second.logs
    assert "made.txt: one" in second.logs
    assert (second.workspace / "prepare.sh").read_text() == "echo prepared by the agent\n"
    git(repository, "fetch", "-q", str(second.path / "commits.bundle"), "labrats:two")
    assert git(repository, "show", "two:made.txt") == "two"


def test_programs_that_setup_commands_configure_have_no_network_later(tmp_path: Path) -> None:
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    repository = a_repository(tmp_path / "repository")
    (repository / ".gitattributes").write_text("* filter=x\n")
    commit_all(repository)
    with an_http_server() as (port, requests):
        smudge = f"touch ran; curl -s --noproxy '*' http://127.0.0.1:{port}/ > /dev/null; cat"
        inputs = in_a_clone_of(repository)
        inputs["workspace_setup"] = replace(
            inputs["workspace_setup"], setup=(("git", "config", "filter.x.smudge", smudge),), setup_network="none"
        )
        first = an_attempt(tmp_path, FIRST, sandbox=Sandbox(program=program), **inputs)
        first.run()
        shutil.rmtree(first.workspace)
        second = a_follow_up(first, kept=True)
        second.run()
    assert "made.txt: one" in second.logs
    assert ((second.workspace / "ran").exists(), requests) == (True, [])


def test_home_with_deeply_nested_folders_is_replaced(tmp_path: Path) -> None:
    first = an_attempt(tmp_path, FIRST)
    first.run()
    (first.path / "home" / "closed").mkdir(mode=0)
    deep = "/".join("d" * 1500)
    subprocess.run(["mkdir", "-p", deep], cwd=first.workspace, check=True)
    (first.path / "baseline.json").unlink()
    second = a_follow_up(first)
    second.run()
    assert second.logs[0] == "[follow-up of ir-0000000a: a new workspace, the conversation in the prompt]"
    assert not (second.workspace / "d").exists()
    remove_tree(first.workspace)  # pytest cannot


def test_bundle_of_a_follow_up_has_all_changes_on_top_of_the_commits_of_the_first_job(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    first = an_attempt(tmp_path, FIRST, **in_a_clone_of(repository))
    first.run()
    second = a_follow_up(first)
    second.run()

    assert "-one" not in (second.path / "changes.patch").read_text(), "the patch is relative to the clone"
    for attempt, name in ((first, "one"), (second, "two")):
        git(repository, "fetch", "-q", str(attempt.path / "commits.bundle"), f"labrats:{name}")
    assert git(repository, "rev-list", "--count", "main..two") == "2"
    assert second.outcome.outputs.base_commit == git(repository, "rev-parse", "one")
    assert git(repository, "merge-base", "one", "two") == git(repository, "rev-parse", "one")
    assert git(repository, "show", "two:made.txt") == "two"


def test_commits_of_a_removed_workspace_are_checked_out_in_a_new_clone(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    first = an_attempt(tmp_path, FIRST, **in_a_clone_of(repository))
    first.run()
    shutil.rmtree(first.workspace)
    (repository / "later.txt").write_text("later")
    commit_all(repository)
    second = a_follow_up(first, kept=True)
    second.run()

    assert second.logs[0] == "[follow-up of ir-0000000a: resuming its session in a new workspace with its changes]"
    assert "made.txt: one" in second.logs
    for attempt, name in ((first, "one"), (second, "two")):
        git(repository, "fetch", "-q", str(attempt.path / "commits.bundle"), f"labrats:{name}")
    assert git(repository, "merge-base", "one", "two") == git(repository, "rev-parse", "one")
    assert git(repository, "show", "two:made.txt") == "two"
    assert second.outcome.outputs.base_commit == git(repository, "rev-parse", "one")


def test_commit_that_the_first_agent_has_forged_is_not_the_base_of_a_follow_up(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    forged = [{"write": {"path": ".git/HEAD", "text": "0123456789" * 4 + "\n"}}, *FIRST]
    first = an_attempt(tmp_path, forged, **in_a_clone_of(repository))
    first.run()
    second = a_follow_up(first)
    second.run()
    git(repository, "fetch", "-q", str(first.path / "commits.bundle"), "labrats:one")
    assert second.outcome.outputs.base_commit == git(repository, "rev-parse", "one")


def test_new_clone_without_the_commit_of_the_bundle_is_used_as_it_is(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    first = an_attempt(tmp_path, FIRST, **in_a_clone_of(repository))
    first.run()
    shutil.rmtree(first.workspace)
    shutil.rmtree(repository)
    a_repository(tmp_path / "repository").joinpath("other.txt").write_text("other")
    git(tmp_path / "repository", "-c", "user.name=T", "-c", "user.email=t@e", "commit", "-q", "--amend", "-m", "other")
    second = a_follow_up(first, kept=True)
    second.run()

    assert second.logs[0] == "[follow-up of ir-0000000a: a new workspace, the conversation in the prompt]"
    assert "made.txt: (missing)" in second.logs


def without_folders(attempt: AttemptFolder) -> AttemptFolder:
    """Return the attempt after the backend has removed its workspace and home, as with its pod."""
    shutil.rmtree(attempt.workspace)
    shutil.rmtree(attempt.path / "home")
    return attempt


def test_session_and_files_are_restored_from_what_the_executor_handed_over(tmp_path: Path) -> None:
    first = an_attempt(tmp_path, FIRST, on_cluster=True)
    first.run()
    second = a_follow_up(without_folders(first), kept=True)
    second.run()

    assert second.logs[0] == "[follow-up of ir-0000000a: resuming its session in a new workspace with its changes]"
    assert second.logs[1].startswith("remembered: Fix the bug. | Your workspace was created again")
    assert second.logs[-1] == "made.txt: one"
    assert second.session.attempt == 1


def test_retry_without_the_workspace_resumes_in_a_clone_with_its_commits(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    steps = [*FIRST[:2], {"onAttempt": 1, "steps": [{"fail": "not yet"}]}, {"read": "made.txt"}]
    first = an_attempt(tmp_path, steps, on_cluster=True, **in_a_clone_of(repository))
    first.run()
    second = the_next_attempt(without_folders(first))
    kept = Resumption(session=first.session, kept=str(first.path))
    (second.path / "job.json").write_bytes(encode(replace(second.task, resumption=kept)))
    second.run()

    assert second.logs[0] == "[resuming the session of attempt 1 in a new workspace with its changes]"
    assert "You were interrupted" in "\n".join(second.logs)
    assert second.session.attempt == 2
    assert "+one" in (second.path / "changes.patch").read_text(), "the patch lacks the changes of the first attempt"


def test_stored_session_has_no_secret_and_no_file_of_another_session(tmp_path: Path) -> None:
    word = {"word": "open-sesame-1234"}
    first = an_attempt(tmp_path, FIRST, prompt="The word is open-sesame-1234.", secrets=word, on_cluster=True)
    other = first.path / "home" / ".mock-sessions" / "other.json"
    other.parent.mkdir(parents=True)
    other.write_text("[]")
    first.run()

    stored = gzip.decompress((first.path / "session.json.gz").read_bytes())
    files = msgspec.json.decode(stored, type=dict[str, bytes])
    assert list(files) == [f".mock-sessions/{first.session.id}.json"]
    assert b"open-sesame" not in b"".join(files.values())
    assert b"The word is" in b"".join(files.values())


DAMAGED = {
    "no gzip": b"{}",
    "no JSON": gzip.compress(b"{"),
    "no UTF-8": gzip.compress(b'{"\xff": "eA=="}'),
    "outside": gzip.compress(b'{"../escaped": "eA=="}'),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_stored_session_leaves_the_conversation(tmp_path: Path, content: bytes) -> None:
    first = an_attempt(tmp_path, FIRST, on_cluster=True)
    first.run()
    (without_folders(first).path / "session.json.gz").write_bytes(content)
    second = a_follow_up(first, kept=True)
    second.run()

    told = "[follow-up of ir-0000000a: a new workspace with its changes, the conversation in the prompt]"
    assert second.logs[0] == told
    assert not (second.path / "escaped").exists()


def test_setup_commands_of_a_rebuilt_workspace_are_not_work_of_the_agent(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    fields = in_a_clone_of(repository)
    setup = replace(fields["workspace_setup"], setup=(("sh", "-c", "echo generated > generated.txt"),))
    first = an_attempt(tmp_path, FIRST, on_cluster=True, **fields | {"workspace_setup": setup})
    first.run()
    second = a_follow_up(without_folders(first), kept=True)
    second.run()

    patch = (second.path / "changes.patch").read_text()
    assert "made.txt" in patch
    assert "generated" not in patch
    git(repository, "fetch", "-q", str(second.path / "commits.bundle"), "labrats:two")
    assert git(repository, "ls-tree", "--name-only", "two").split() == ["made.txt", "notes.txt"]


def test_follow_up_on_a_pull_request_clones_its_present_head_and_resumes_the_session(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    first = an_attempt(tmp_path, FIRST, **in_a_clone_of(repository))
    first.run()
    (repository / "made.txt").write_text("changed by a person")
    commit_all(repository)
    second = a_follow_up(first, kept=True)
    continuation = second.task.continuation
    assert continuation
    at_head = replace(continuation, workspace=None, at_head=True)
    (second.path / "job.json").write_bytes(encode(replace(second.task, continuation=at_head)))
    second.run()

    assert second.logs[0] == "[follow-up of ir-0000000a: resuming its session in a new workspace with its changes]"
    assert second.logs[-1] == "made.txt: changed by a person"
    git(repository, "fetch", "-q", str(second.path / "commits.bundle"), "labrats:two")
    assert git(repository, "rev-list", "--count", "main..two") == "1"

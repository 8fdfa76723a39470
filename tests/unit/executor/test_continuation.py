"""Tests of attempts that continue an ended job in a copy of its workspace."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.model.conversation import Turn, encode_conversation
from labrats.model.protocol import Continuation
from labrats.model.record import encode
from tests.unit.executor.attempts import AttemptFolder, a_repository, an_attempt, commit_all, git, in_a_clone_of

FIRST: list[Any] = [{"remember": True}, {"write": {"path": "made.txt", "text": "one"}}, {"result": "made"}]
SECOND: list[Any] = [{"remember": True}, {"read": "made.txt"}, {"write": {"path": "made.txt", "text": "two"}}]


def a_follow_up(
    earlier: AttemptFolder, steps: list[Any] = SECOND, *, bundle: bool = False, session: bool = True, **fields: Any
) -> AttemptFolder:
    """Write the inputs of an attempt of another job, which continues `earlier`."""
    continuation = Continuation(
        job_id=earlier.task.job_id,
        session=earlier.session if session else None,
        workspace=str(earlier.workspace),
        folder=str(earlier.path),
        bundle=str(earlier.path / "commits.bundle") if bundle else None,
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


def test_follow_up_whose_session_the_program_does_not_know_keeps_the_copy(tmp_path: Path) -> None:
    first = an_attempt(tmp_path, FIRST)
    first.run()
    shutil.rmtree(first.path / "home" / ".mock-sessions")
    second = a_follow_up(first)
    second.run()

    assert second.logs[1] == "[the agent's program does not know the session: the conversation is in the prompt]"
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


def test_publication_of_the_first_job_is_not_published_again(tmp_path: Path) -> None:
    publication = {"write": {"path": ".labrats/publish.json", "text": '{"comment": "once"}'}}
    first = an_attempt(tmp_path, [*FIRST, publication])
    first.run()
    second = a_follow_up(first)
    second.run()

    assert (first.path / "publication.json").exists()
    assert not (second.path / "publication.json").exists()


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
    assert git(repository, "merge-base", "one", "two") == git(repository, "rev-parse", "one")
    assert git(repository, "show", "two:made.txt") == "two"


def test_commits_of_a_removed_workspace_are_checked_out_in_a_new_clone(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    first = an_attempt(tmp_path, FIRST, **in_a_clone_of(repository))
    first.run()
    shutil.rmtree(first.workspace)
    (repository / "later.txt").write_text("later")
    commit_all(repository)
    second = a_follow_up(first, bundle=True)
    second.run()

    assert second.logs[:2] == [
        "[follow-up of ir-0000000a: a new workspace, the conversation in the prompt]",
        "[the commits of ir-0000000a are checked out]",
    ]
    assert "made.txt: one" in second.logs
    for attempt, name in ((first, "one"), (second, "two")):
        git(repository, "fetch", "-q", str(attempt.path / "commits.bundle"), f"labrats:{name}")
    assert git(repository, "merge-base", "one", "two") == git(repository, "rev-parse", "one")
    assert git(repository, "show", "two:made.txt") == "two"


def test_new_clone_without_the_commit_of_the_bundle_is_used_as_it_is(tmp_path: Path) -> None:
    repository = a_repository(tmp_path / "repository")
    first = an_attempt(tmp_path, FIRST, **in_a_clone_of(repository))
    first.run()
    shutil.rmtree(first.workspace)
    shutil.rmtree(repository)
    a_repository(tmp_path / "repository").joinpath("other.txt").write_text("other")
    git(tmp_path / "repository", "-c", "user.name=T", "-c", "user.email=t@e", "commit", "-q", "--amend", "-m", "other")
    second = a_follow_up(first, bundle=True)
    second.run()

    assert "[the commits of ir-0000000a cannot be checked out: the repository has changed]" in second.logs
    assert "made.txt: (missing)" in second.logs

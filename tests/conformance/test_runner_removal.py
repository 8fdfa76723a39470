"""The contract of every Runner (labrats/ports.py): the files that attempts leave, and their removal."""

from labrats.ports import NotStarted, OutputTail, Runner
from tests.conformance.attempts import end_of, events_of, logs_in
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import an_attempt


async def test_a_workspace_exists_until_it_is_removed(backend: RunnerBackend, runner: Runner) -> None:
    attempt, other = an_attempt([{"log": "here"}]), an_attempt()
    for each in (attempt, other):
        await runner.start(each)
        await end_of(runner, each)
    if backend.keeps_workspaces:
        assert sorted(await runner.workspaces()) == sorted([attempt.name, other.name])
    await runner.remove(attempt.name, keep_output=True)
    assert await runner.workspaces() == ([other.name] if backend.keeps_workspaces else [])
    assert logs_in(await events_of(runner, attempt)) == ["here"]


async def test_size_of_a_workspace_is_known_until_it_is_removed(backend: RunnerBackend, runner: Runner) -> None:
    attempt = an_attempt([{"write": {"path": "a.txt", "text": "x"}}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    assert (await runner.workspace_bytes(attempt.name) > 0) is backend.keeps_workspaces
    await runner.remove(attempt.name, keep_output=True)
    assert await runner.workspace_bytes(attempt.name) == 0


async def test_session_of_an_attempt_is_retained_until_its_workspace_is_removed(runner: Runner) -> None:
    attempt = an_attempt([{"remember": True}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    assert await runner.workspaces() == [attempt.name]
    assert await runner.workspace_bytes(attempt.name) > 0
    await runner.remove(attempt.name, keep_output=True)
    assert await runner.workspaces() == []


async def test_an_attempt_is_listed_until_all_its_files_are_removed(runner: Runner) -> None:
    attempt, other = an_attempt(), an_attempt()
    assert await runner.retained() == []
    for each in (attempt, other):
        await runner.start(each)
        await end_of(runner, each)
    await runner.remove(other.name, keep_output=True)
    assert sorted(await runner.retained()) == sorted([attempt.name, other.name])
    for each in (attempt, other):
        await runner.remove(each.name)
    assert await runner.retained() == []


async def test_an_attempt_without_its_workspace_is_still_known_as_ended(runner: Runner) -> None:
    attempt = an_attempt([{"log": "once"}])
    await runner.start(attempt)
    ended = await end_of(runner, attempt)
    await runner.remove(attempt.name, keep_output=True)
    await runner.start(attempt)
    assert await runner.find(attempt.name) == ended
    assert logs_in(await events_of(runner, attempt)) == ["once"]


async def test_a_removed_attempt_is_unknown(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}])
    await runner.start(attempt)
    await end_of(runner, attempt)
    await runner.remove(attempt.name)
    assert await runner.find(attempt.name) == NotStarted()
    assert await events_of(runner, attempt) == []
    assert await runner.tail(attempt.name) == OutputTail()
    assert await runner.workspaces() == []


async def test_removal_of_a_missing_attempt_is_harmless(runner: Runner) -> None:
    await runner.remove(an_attempt().name)
    await runner.remove(an_attempt().name, keep_output=True)

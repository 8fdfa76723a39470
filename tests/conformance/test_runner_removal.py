"""The contract of every Runner (labrats/ports.py): the files that attempts leave, and their removal."""

import pytest

from labrats.files.attempt_output import OUTPUT_REMOVED
from labrats.model.errors import NotFound
from labrats.model.found_secrets import SecretDigest
from labrats.model.protocol import ErrorEvent, ResultEvent
from labrats.model.redaction import Redactor
from labrats.ports import NotStarted, OutputTail, Runner
from tests.conformance.attempts import end_of, events_of, logs_in
from tests.conformance.runner_backends import RunnerBackend
from tests.support.builders import an_attempt
from tests.support.runners import retained_by


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
    assert await retained_by(runner) == []
    for each in (attempt, other):
        await runner.start(each)
        await end_of(runner, each)
    await runner.remove(other.name, keep_output=True)
    assert sorted(await retained_by(runner)) == sorted([attempt.name, other.name])
    for each in (attempt, other):
        await runner.remove(each.name)
    assert await retained_by(runner) == []


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


async def test_end_of_an_attempt_outlives_its_output(runner: Runner) -> None:
    attempt = an_attempt([{"log": "x" * 10_000}, {"write": {"path": "a.txt", "text": "x"}}, {"result": "y" * 50_000}])
    await runner.start(attempt)
    await end_of(runner, attempt)

    assert await runner.remove_output(attempt.name) > 0

    assert await runner.remove_output(attempt.name) == 0
    await runner.start(attempt)
    assert isinstance((await end_of(runner, attempt)).outcome, ResultEvent)
    events = await events_of(runner, attempt)
    assert (logs_in(events), isinstance(events[-1], ResultEvent)) == ([OUTPUT_REMOVED], True)
    for read in (runner.result, runner.patch, runner.bundle, runner.publication):
        with pytest.raises(NotFound):
            await read(attempt.name)


async def test_failure_of_an_attempt_outlives_its_output(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, {"fail": "no disk"}])
    await runner.start(attempt)
    ended = await end_of(runner, attempt)
    await runner.remove_output(attempt.name)
    gone = await end_of(runner, attempt)
    assert isinstance(gone.outcome, ErrorEvent)
    assert (gone.outcome, gone.tail.logs) == (ended.outcome, (OUTPUT_REMOVED,))


async def test_output_of_an_attempt_without_an_outcome_can_be_removed(runner: Runner) -> None:
    attempt = an_attempt([{"log": "here"}, {"hang": True}])
    await runner.start(attempt)
    await runner.kill(attempt.name)
    ended = await end_of(runner, attempt)
    await runner.remove_output(attempt.name)
    gone = await end_of(runner, attempt)
    assert (gone.outcome, gone.code) == (None, ended.code)
    assert logs_in(await events_of(runner, attempt)) == [OUTPUT_REMOVED]


async def test_removal_of_a_missing_attempt_is_harmless(runner: Runner) -> None:
    await runner.remove(an_attempt().name)
    await runner.remove(an_attempt().name, keep_output=True)
    assert await runner.remove_output(an_attempt().name) == 0
    assert await retained_by(runner) == []


async def test_redacted_output_has_the_secret_nowhere(runner: Runner) -> None:
    secret = "0123456789abcdef-ABCDEF"
    script = [{"log": f"TOKEN={secret}"}, {"write": {"path": "a.txt", "text": secret}}, {"result": [secret] * 3}]
    attempt = an_attempt(script)
    await runner.start(attempt)
    await end_of(runner, attempt)

    for _ in range(2):
        await runner.redact(attempt.name, Redactor(digests=[SecretDigest.of(secret)]))

    gone = await end_of(runner, attempt)
    assert isinstance(gone.outcome, ResultEvent)
    assert gone.outcome.result == ["[redacted]"] * 3
    assert "TOKEN=[redacted]" in logs_in(await events_of(runner, attempt))
    await runner.redact(an_attempt().name, Redactor(digests=[SecretDigest.of(secret)]))

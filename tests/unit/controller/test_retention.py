"""Retention: deletion after the configured times, and only of ended jobs."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.history_bound import HistoryBound
from labrats.controller.retention import NEW_SECONDS, PASS_SECONDS, TOKEN_PASS_SECONDS
from labrats.metrics import Metrics
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import Secret
from labrats.model.errors import BecameUnreadable, LabratsError, RetryLater, Unreadable
from labrats.model.job import TOKEN_LIFETIME, Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.ports import Alive, Gone, NotStarted
from tests.fakes.clock import FakeClock
from tests.support.background import run_in_background
from tests.support.builders import a_job, a_session, a_spec
from tests.support.runners import retained_by
from tests.support.waiting import eventually
from tests.unit.controller.engine_data import EngineData

P = Phase
DAY = 24 * 3600
HANG = [{"hang": True}]


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary event loop, since files are removed in a thread."""
    return "asyncio"


async def test_a_workspace_is_removed_a_day_after_the_end_without_the_output(data: EngineData) -> None:
    job = await data.ended()
    data.clock.step(DAY - 60)
    await data.retention().clean()
    assert await data.runner.workspaces() == [job.attempt_name]
    data.clock.step(120)
    await data.retention().clean()
    assert await data.runner.workspaces() == []
    assert isinstance(await data.runner.find(job.attempt_name), Gone)
    assert await data.exists(job)


@pytest.mark.parametrize("phase", [P.SUCCEEDED, P.FAILED, P.CANCELLED])
async def test_a_job_is_deleted_with_all_its_attempts_30_days_after_its_end(data: EngineData, phase: Phase) -> None:
    job = await data.ended(phase, attempts=2)
    data.clock.step(30 * DAY - 60)
    await data.retention().clean()
    assert await data.exists(job)
    data.clock.step(120)
    await data.retention().clean()
    assert not await data.exists(job)
    for number in (1, 2):
        assert isinstance(await data.runner.find(AttemptName(job.id, number)), NotStarted)


async def test_files_of_a_job_that_somebody_deletes_are_removed_at_once(data: EngineData, tmp_path: Path) -> None:
    files = await data.attachments.save("ir-0000000a", [("a.txt", b"a")])
    deleted = await data.ended(job_id="ir-0000000a", spec=a_spec(workspace_files=files), attempts=2)
    kept = await data.ended(job_id="ir-0000000b")
    async with run_in_background(data.retention().run()):
        await eventually(lambda: data.store.watchers_of(Job) == 2)  # the index and retention
        await data.store.delete(Job, deleted.id)
        await eventually(lambda: not any(path.is_file() for path in tmp_path.rglob("*")))
        for number in (1, 2):
            assert isinstance(await data.runner.find(AttemptName(deleted.id, number)), NotStarted)
        assert isinstance(await data.runner.find(kept.attempt_name), Gone)


@pytest.mark.parametrize(("stored", "left", "is_degraded"), [(70, 4, 0.0), (90, 4, 1.0), (150, 2, 1.0)])
async def test_oldest_ended_jobs_are_deleted_beyond_the_bound_of_bytes(
    data: EngineData, stored: int, left: int, is_degraded: float
) -> None:
    jobs = []
    for number in range(4):
        jobs.append(await data.ended(job_id=f"ir-0000000{number}"))
        data.clock.step(60)

    async def measure() -> int:
        return stored

    metrics = Metrics()
    await data.retention(history=HistoryBound(measure, 100, metrics)).clean()

    assert [job.id for job in jobs if await data.exists(job)] == [job.id for job in jobs[4 - left :]]
    exposed = metrics.exposition().decode()
    assert f'labrats_degraded{{what="history"}} {is_degraded}' in exposed
    assert f"labrats_history_bytes {float(stored)}" in exposed


async def test_the_bound_of_bytes_deletes_no_job_whose_caller_waits_for_its_end(data: EngineData) -> None:
    waiting = await data.ended(job_id="ir-00000000", spec=a_spec(callback_url="https://ci.example.com/done"))
    informed = await data.ended(job_id="ir-00000001")

    async def measure() -> int:
        return 1_000

    data.clock.step(60)
    await data.retention(history=HistoryBound(measure, 100, Metrics())).clean()

    assert await data.exists(waiting)
    assert not await data.exists(informed)


async def test_the_attachments_of_a_job_are_deleted_with_it(data: EngineData, tmp_path: Path) -> None:
    files = await data.attachments.save("ir-0000000a", [("a.txt", b"a"), ("b.txt", b"b")])
    await data.ended(job_id="ir-0000000a", spec=a_spec(workspace_files=files))
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    data.clock.step(31 * DAY)
    await data.retention().clean()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("path", ["{of_other}", "jobs/{folder_of_other}", "up-0123456789abcdef/a.txt", "a.txt"])
async def test_files_of_others_stay_when_a_job_that_names_them_is_deleted(
    data: EngineData, tmp_path: Path, path: str
) -> None:
    (of_other,) = await data.attachments.save("ir-0000000b", [("a.txt", b"a")])
    other = await data.add(a_job(P.RUNNING, job_id="ir-0000000b", spec=a_spec(HANG, workspace_files=(of_other,))))
    upload = tmp_path / "up-0123456789abcdef" / "a.txt"
    upload.parent.mkdir()
    upload.write_text("a")
    path = path.format(of_other=of_other.path, folder_of_other=Path(of_other.path).parent.name)
    copy = await data.ended(spec=a_spec(workspace_files=(replace(of_other, path=path),)))
    data.clock.step(31 * DAY)
    await data.retention().clean()
    assert (await data.exists(copy), await data.exists(other)) == (False, True)
    assert (tmp_path / of_other.path).exists()
    assert upload.exists()


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING])
async def test_a_live_job_is_never_deleted(data: EngineData, phase: Phase) -> None:
    job = await data.add(a_job(phase, attempts=1, spec=a_spec(HANG)))
    data.clock.step(400 * DAY)
    await data.retention().clean()
    assert await data.exists(job)
    assert await data.runner.workspaces() == [job.attempt_name]


async def test_the_workspace_of_an_earlier_attempt_is_removed_at_once(data: EngineData) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "no"}]}, *HANG]
    job = await data.add(a_job(P.RUNNING, attempts=2, spec=a_spec(steps)))
    await data.retention().clean()
    assert await data.runner.workspaces() == [job.attempt_name]
    assert isinstance(await data.runner.find(AttemptName(job.id, 1)), Gone)


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING, P.FAILED])
async def test_the_workspace_of_a_session_stays_for_attempts_that_may_resume_it(data: EngineData, phase: Phase) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "no"}]}, *HANG]
    job = await data.add(a_job(phase, attempts=2, spec=a_spec(steps), session=a_session(1)))
    await data.retention().clean()
    assert sorted(await data.runner.workspaces()) == [AttemptName(job.id, 1), AttemptName(job.id, 2)]


async def test_the_workspace_of_a_session_is_removed_a_day_after_the_end(data: EngineData) -> None:
    await data.ended(P.FAILED, attempts=2, session=a_session(1))
    data.clock.step(DAY + 60)
    await data.retention().clean()
    assert await data.runner.workspaces() == []


async def test_a_job_retried_during_the_pass_is_not_deleted(data: EngineData, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await data.ended(P.FAILED)
    data.clock.step(31 * DAY)

    async def retry(name: str) -> None:
        (found,) = await data.store.get_many(Job, [name])
        if found.ended:
            await data.store.update(replace(found, status=replace(found.status, phase=P.PENDING, finished_at=None)))

    monkeypatch.setattr(data.store, "before_reading", retry)
    await data.retention().clean()
    assert await data.exists(job)
    assert isinstance(await data.runner.find(job.attempt_name), Gone)


async def test_a_job_deleted_during_the_pass_does_not_end_the_pass(
    data: EngineData, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, other = await data.ended(), await data.ended()
    data.clock.step(31 * DAY)

    async def delete_one(_: str) -> None:
        if await data.exists(deleted):
            await data.store.delete(Job, deleted.id)

    monkeypatch.setattr(data.store, "before_reading", delete_one)
    await data.retention().clean()
    assert not await data.exists(other)


async def test_the_running_attempt_of_a_deleted_job_is_killed_and_removed(data: EngineData) -> None:
    job = await data.add(a_job(P.RUNNING, spec=a_spec(HANG)))
    executor = data.machine.executors[job.attempt_name]
    await data.store.delete(Job, job.id)
    await data.retention().clean()
    assert executor.gone
    assert await data.runner.workspaces() == []


async def test_the_output_of_a_deleted_job_is_removed_even_without_a_workspace(data: EngineData) -> None:
    job, other = await data.ended(), await data.ended()
    await data.runner.remove(job.attempt_name, keep_output=True)
    await data.store.delete(Job, job.id)

    await data.retention().clean()

    assert await retained_by(data.runner) == [other.attempt_name]


def refuse_to_read(data: EngineData, job: Job, error: LabratsError) -> None:
    async def before_reading(name: str) -> None:
        if name == job.id:
            raise error

    data.store.before_reading = before_reading  # type: ignore[method-assign]


@pytest.mark.parametrize("error", [Unreadable("of a newer version"), BecameUnreadable("edited by a person")])
async def test_nothing_of_a_job_that_this_version_cannot_read_is_removed(
    data: EngineData, tmp_path: Path, error: LabratsError
) -> None:
    files = await data.attachments.save("ir-0000000a", [("a.txt", b"a")])
    make_older((tmp_path / files[0].path).parent, NEW_SECONDS + 60)
    job = await data.add(a_job(P.RUNNING, job_id="ir-0000000a", spec=a_spec(HANG, workspace_files=files)))
    await data.store.delete(Job, job.id)  # neither lists nor the index have a job that cannot be read
    refuse_to_read(data, job, error)

    await data.retention().clean()

    assert isinstance(await data.runner.find(job.attempt_name), Alive)
    assert (tmp_path / files[0].path).exists()


async def test_an_unreadable_job_does_not_stop_the_deletion_of_others(data: EngineData) -> None:
    edited, other = await data.ended(), await data.ended()
    data.clock.step(31 * DAY)
    refuse_to_read(data, edited, BecameUnreadable("edited by a person"))

    await data.retention().clean()

    assert (await data.exists(edited), await data.exists(other)) == (True, False)


async def test_the_cleanup_continues_if_a_job_may_not_be_deleted(
    data: EngineData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster, a policy may refuse the deletion."""
    expired, orphan = await data.ended(), await data.ended()
    files = await data.attachments.save("ir-0000000a", [("a.txt", b"a")])
    make_older((tmp_path / files[0].path).parent, NEW_SECONDS + 60)
    await data.store.delete(Job, orphan.id)
    data.clock.step(31 * DAY)

    async def refuse(*_: Any) -> None:
        raise RetryLater("a policy forbids it")

    monkeypatch.setattr(data.store, "delete", refuse)
    await data.retention().clean()

    assert await data.exists(expired)
    assert await data.runner.workspaces() == []
    assert await retained_by(data.runner) == []
    assert not (tmp_path / files[0].path).exists()


async def test_an_orphaned_attempt_that_cannot_be_killed_blocks_no_other(
    data: EngineData, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = await data.ended(), await data.ended()
    for job in (stuck, other):
        await data.store.delete(Job, job.id)
    kill = data.runner.kill

    async def kill_others(name: AttemptName) -> None:
        if name == stuck.attempt_name:
            raise RetryLater("its node is out of reach")
        await kill(name)

    monkeypatch.setattr(data.runner, "kill", kill_others)
    await data.retention().clean()

    assert await retained_by(data.runner) == [stuck.attempt_name]


async def test_files_without_a_job_are_removed_once_they_are_old_enough(data: EngineData, tmp_path: Path) -> None:
    files = {name: await data.attachments.save(name, [("a.txt", b"a")]) for name in ("ir-0000000a", "ir-0000000b")}
    unstored = await data.attachments.save("ir-0000000b", [("a.txt", b"a")])  # another job has the id
    deleted = await data.ended(job_id="ir-0000000a", spec=a_spec(workspace_files=files["ir-0000000a"]))
    await data.ended(job_id="ir-0000000b", spec=a_spec(workspace_files=files["ir-0000000b"]))
    await data.store.delete(Job, deleted.id)

    await data.retention().clean()
    assert all((tmp_path / file.path).exists() for file in (*files["ir-0000000a"], *unstored))
    for folder in (tmp_path / "jobs").iterdir():
        make_older(folder, NEW_SECONDS + 60)
    await data.retention().clean()

    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [
        Path(files["ir-0000000b"][0].path)
    ]


def make_older(path: Path, seconds: float) -> None:
    modified = path.stat().st_mtime - seconds
    os.utime(path, (modified, modified))


async def test_passes_continue_after_an_error_of_the_store(data: EngineData, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await data.ended()
    data.clock.step(31 * DAY)
    data.clock = clock = HurryingClock(data.clock.now())

    async def fail(_: str) -> None:
        raise RetryLater("the database cannot be read")

    with monkeypatch.context() as while_it_fails:
        while_it_fails.setattr(data.store, "before_reading", fail)
        passing = asyncio.create_task(data.retention().run())
        await eventually(lambda: clock.slept >= 2)
        assert await data.exists(job)
    await eventually(lambda: data.index.count_in(P.SUCCEEDED) == 0)
    passing.cancel()
    await asyncio.wait([passing])


async def test_passes_continue_after_an_error_of_the_volume(data: EngineData, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await data.ended()
    await data.store.delete(Job, job.id)
    data.clock = clock = HurryingClock(data.clock.now())

    def fail() -> AsyncIterator[list[AttemptName]]:
        raise OSError("stale file handle")

    with monkeypatch.context() as while_it_fails:
        while_it_fails.setattr(data.runner, "retained", fail)
        passing = asyncio.create_task(data.retention().run())
        await eventually(lambda: clock.slept >= 2)
    await eventually(lambda: not data.machine.executors)
    passing.cancel()
    await asyncio.wait([passing])


class HurryingClock(FakeClock):
    """A clock whose sleeps are short. slept: number of passes that slept."""

    slept = 0

    async def sleep(self, seconds: float) -> None:
        assert seconds in (PASS_SECONDS, TOKEN_PASS_SECONDS)
        self.slept += seconds == PASS_SECONDS
        await asyncio.sleep(0.001)


# Git tokens


def a_token_of(job: Job) -> Secret:
    return Secret(metadata=Metadata(name=f"{job.id}-git", owner=job.as_owner()), data={"password": "test-token"})


@pytest.mark.parametrize(
    ("phase", "kept_seconds"),
    [(P.SUCCEEDED, TOKEN_PASS_SECONDS), (P.CANCELLED, TOKEN_PASS_SECONDS), (P.FAILED, TOKEN_LIFETIME.total_seconds())],
)
async def test_the_token_of_a_job_that_cannot_be_retried_with_it_is_deleted(
    data: EngineData, phase: Phase, kept_seconds: float
) -> None:
    job = await data.ended(phase, created_at=data.clock.now())
    await data.store.create(a_token_of(job))
    await data.store.create(Secret(metadata=Metadata(name="anthropic"), data={"ANTHROPIC_API_KEY": "test-key"}))

    data.clock.step(kept_seconds - 10)
    await data.retention().delete_tokens()
    assert len(await data.store.list(Secret)) == 2

    data.clock.step(20)
    await data.retention().delete_tokens()
    assert [secret.name for secret in await data.store.list(Secret)] == ["anthropic"]


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING])
async def test_the_token_of_a_live_job_is_not_deleted(data: EngineData, phase: Phase) -> None:
    job = await data.store.create(a_job(phase))
    await data.store.create(a_token_of(job))
    data.clock.step(DAY)
    await data.retention().delete_tokens()
    assert len(await data.store.list(Secret)) == 1


@pytest.mark.parametrize("error", [OSError("is a directory"), RetryLater("a policy forbids it")])
async def test_an_attempt_that_cannot_be_removed_blocks_no_other(
    data: EngineData, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stuck, other = await data.ended(), await data.ended()
    remove = data.runner.remove

    async def remove_others(name: AttemptName, *, keep_output: bool = False) -> None:
        if name == stuck.attempt_name:
            raise error
        await remove(name, keep_output=keep_output)

    monkeypatch.setattr(data.runner, "remove", remove_others)
    data.clock.step(2 * DAY)
    await data.retention().clean()
    assert await data.runner.workspaces() == [stuck.attempt_name]
    data.clock.step(31 * DAY)
    await data.retention().clean()
    assert await data.exists(stuck)
    assert not await data.exists(other)

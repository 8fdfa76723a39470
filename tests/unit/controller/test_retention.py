"""What is kept how long, and that nothing live is thrown away."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from labrats.controller.retention import NEW_SECONDS, PASS_SECONDS, TOKEN_PASS_SECONDS, Retention
from labrats.files.attachments import Attachments
from labrats.index.jobs import JobFilter, JobIndex
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import Secret
from labrats.model.errors import RetryLater
from labrats.model.job import TOKEN_LIFETIME, Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from labrats.ports import Attempt, Gone, NotStarted
from labrats.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_session, a_spec
from tests.support.waiting import eventually

R = TypeVar("R", bound=Resource)

P = Phase
DAY = 24 * 3600
HANG = [{"hang": True}]


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary loop, since files are removed in a thread."""
    return "asyncio"


class Kept:
    """An engine's store, attempts and files, and what keeps them for a day (workspaces) and 30 days (jobs)."""

    def __init__(self, machine: MemoryMachine, uploads: Path) -> None:
        self.clock = FakeClock()
        self.store, self.cache, self.machine = MeddledStore(self.clock), JobIndex(), machine
        self.runner = MemoryRunner(self.store, machine)
        self.attachments = Attachments(uploads)

    def retention(self) -> Retention:
        settings = EngineSettings(workspace_retention_hours=24, job_retention_days=30)
        return Retention(self.store, self.runner, self.cache, self.attachments, self.clock, settings)

    async def add(self, job: Job) -> Job:
        """A job that the cache knows, all of whose attempts have been started."""
        created = await self.store.create(job)
        for number in range(1, job.status.attempts + 1):
            attempt = Attempt(replace(created, status=replace(created.status, attempts=number)))
            await self.runner.start(attempt)
        await eventually(lambda: all(executor.has_workspace for executor in self.machine.executors.values()))
        await eventually(lambda: self.cache.page(JobFilter(q=job.id), page=1, limit=1)[1] == 1)
        return created

    async def ended(self, phase: Phase = P.SUCCEEDED, **fields: Any) -> Job:
        """A job that ends now."""
        return await self.add(a_job(phase, finished_at=self.clock.now(), **fields))

    async def exists(self, job: Job) -> bool:
        return bool(await self.store.get_many(Job, [job.id]))


class MeddledStore(MemoryStore):
    """Something happens each time just before a job is read."""

    async def before_reading(self, name: str) -> None:
        """Nothing, until a test puts something else in its place."""

    async def get(self, kind: type[R], name: str) -> R:
        await self.before_reading(name)
        return await super().get(kind, name)


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with MemoryMachine() as machine:
        kept = Kept(machine, tmp_path)
        async with following(kept):
            yield kept


@asynccontextmanager
async def following(kept: Kept) -> AsyncIterator[None]:
    task = asyncio.create_task(kept.cache.follow(kept.store))
    await kept.cache.synced.wait()
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_a_workspace_is_removed_a_day_after_the_end_and_the_output_stays(kept: Kept) -> None:
    job = await kept.ended()
    kept.clock.step(DAY - 60)
    await kept.retention().clean()
    assert await kept.runner.workspaces() == [job.attempt_name]
    kept.clock.step(120)
    await kept.retention().clean()
    assert await kept.runner.workspaces() == []
    assert isinstance(await kept.runner.find(job.attempt_name), Gone)
    assert await kept.exists(job)


@pytest.mark.parametrize("phase", [P.SUCCEEDED, P.FAILED, P.CANCELLED])
async def test_a_job_is_forgotten_30_days_after_its_end_with_all_its_attempts(kept: Kept, phase: Phase) -> None:
    job = await kept.ended(phase, attempts=2)
    kept.clock.step(30 * DAY - 60)
    await kept.retention().clean()
    assert await kept.exists(job)
    kept.clock.step(120)
    await kept.retention().clean()
    assert not await kept.exists(job)
    for number in (1, 2):
        assert isinstance(await kept.runner.find(AttemptName(job.id, number)), NotStarted)


async def test_the_files_that_came_with_a_job_go_with_it(kept: Kept, tmp_path: Path) -> None:
    files = await kept.attachments.save("ir-0000000a", [("a.txt", b"a"), ("b.txt", b"b")])
    await kept.ended(spec=a_spec(workspace_files=files))
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    kept.clock.step(31 * DAY)
    await kept.retention().clean()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING])
async def test_a_live_job_is_kept_however_old_it_is(kept: Kept, phase: Phase) -> None:
    job = await kept.add(a_job(phase, attempts=1, spec=a_spec(HANG)))
    kept.clock.step(400 * DAY)
    await kept.retention().clean()
    assert await kept.exists(job)
    assert await kept.runner.workspaces() == [job.attempt_name]


async def test_the_workspace_of_an_attempt_that_another_one_followed_goes_at_once(kept: Kept) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "no"}]}, *HANG]
    job = await kept.add(a_job(P.RUNNING, attempts=2, spec=a_spec(steps)))
    await kept.retention().clean()
    assert await kept.runner.workspaces() == [job.attempt_name]
    assert isinstance(await kept.runner.find(AttemptName(job.id, 1)), Gone)


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING, P.FAILED])
async def test_the_workspace_of_a_session_stays_for_the_attempts_that_go_on_with_it(kept: Kept, phase: Phase) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "no"}]}, *HANG]
    job = await kept.add(a_job(phase, attempts=2, spec=a_spec(steps), session=a_session(1)))
    await kept.retention().clean()
    assert sorted(await kept.runner.workspaces()) == [AttemptName(job.id, 1), AttemptName(job.id, 2)]


async def test_it_too_is_removed_a_day_after_the_end(kept: Kept) -> None:
    await kept.ended(P.FAILED, attempts=2, session=a_session(1))
    kept.clock.step(DAY + 60)
    await kept.retention().clean()
    assert await kept.runner.workspaces() == []


async def test_a_job_that_is_retried_before_it_is_read_is_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await kept.ended(P.FAILED)
    kept.clock.step(31 * DAY)

    async def retry(name: str) -> None:
        (found,) = await kept.store.get_many(Job, [name])
        if found.ended:
            await kept.store.update(replace(found, status=replace(found.status, phase=P.PENDING, finished_at=None)))

    monkeypatch.setattr(kept.store, "before_reading", retry)
    await kept.retention().clean()
    assert await kept.exists(job)
    assert isinstance(await kept.runner.find(job.attempt_name), Gone)


async def test_a_job_that_is_deleted_before_it_is_read_stops_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, other = await kept.ended(), await kept.ended()
    kept.clock.step(31 * DAY)

    async def delete_one(_: str) -> None:
        if await kept.exists(deleted):
            await kept.store.delete(Job, deleted.id)

    monkeypatch.setattr(kept.store, "before_reading", delete_one)
    await kept.retention().clean()
    assert not await kept.exists(other)


async def test_what_a_deleted_job_left_running_is_ended_and_removed(kept: Kept) -> None:
    job = await kept.add(a_job(P.RUNNING, spec=a_spec(HANG)))
    executor = kept.machine.executors[job.attempt_name]
    await kept.store.delete(Job, job.id)
    await kept.retention().clean()
    assert executor.gone
    assert await kept.runner.workspaces() == []


async def test_what_a_deleted_job_left_ended_is_removed_though_its_workspace_is_gone(kept: Kept) -> None:
    job, other = await kept.ended(), await kept.ended()
    await kept.runner.remove(job.attempt_name, keep_output=True)
    await kept.store.delete(Job, job.id)

    await kept.retention().clean()

    assert await kept.runner.kept() == [other.attempt_name]


async def test_an_attempt_that_cannot_be_ended_yet_keeps_no_other_from_being_removed(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = await kept.ended(), await kept.ended()
    for job in (stuck, other):
        await kept.store.delete(Job, job.id)
    kill = kept.runner.kill

    async def kill_others(name: AttemptName) -> None:
        if name == stuck.attempt_name:
            raise RetryLater("its node is out of reach")
        await kill(name)

    monkeypatch.setattr(kept.runner, "kill", kill_others)
    await kept.retention().clean()

    assert await kept.runner.kept() == [stuck.attempt_name]


async def test_files_that_no_job_has_are_removed_when_they_are_no_longer_new(kept: Kept, tmp_path: Path) -> None:
    files = {name: await kept.attachments.save(name, [("a.txt", b"a")]) for name in ("ir-0000000a", "ir-0000000b")}
    unstored = await kept.attachments.save("ir-0000000b", [("a.txt", b"a")])  # another has the name
    deleted = await kept.ended(job_id="ir-0000000a", spec=a_spec(workspace_files=files["ir-0000000a"]))
    await kept.ended(job_id="ir-0000000b", spec=a_spec(workspace_files=files["ir-0000000b"]))
    await kept.store.delete(Job, deleted.id)

    await kept.retention().clean()
    assert all((tmp_path / file.path).exists() for file in (*files["ir-0000000a"], *unstored))
    for folder in (tmp_path / "jobs").iterdir():
        make_older(folder, NEW_SECONDS + 60)
    await kept.retention().clean()

    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [
        Path(files["ir-0000000b"][0].path)
    ]


def make_older(path: Path, seconds: float) -> None:
    modified = path.stat().st_mtime - seconds
    os.utime(path, (modified, modified))


async def test_it_passes_again_and_again_though_the_store_fails(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await kept.ended()
    kept.clock.step(31 * DAY)
    kept.clock = clock = HurryingClock(kept.clock.now())

    async def fail(_: str) -> None:
        raise RetryLater("the database cannot be read")

    with monkeypatch.context() as while_it_fails:
        while_it_fails.setattr(kept.store, "before_reading", fail)
        passing = asyncio.create_task(kept.retention().run())
        await eventually(lambda: clock.slept >= 2)
        assert await kept.exists(job)
    await eventually(lambda: kept.cache.count(P.SUCCEEDED) == 0)
    passing.cancel()
    await asyncio.wait([passing])


async def test_a_volume_that_cannot_be_read_ends_no_pass_for_good(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await kept.ended()
    await kept.store.delete(Job, job.id)
    kept.clock = clock = HurryingClock(kept.clock.now())

    async def fail() -> list[str]:
        raise OSError("stale file handle")

    with monkeypatch.context() as while_it_fails:
        while_it_fails.setattr(kept.runner, "kept", fail)
        passing = asyncio.create_task(kept.retention().run())
        await eventually(lambda: clock.slept >= 2)
    await eventually(lambda: not kept.machine.executors)
    passing.cancel()
    await asyncio.wait([passing])


class HurryingClock(FakeClock):
    """Hardly lets anybody wait."""

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
    kept: Kept, phase: Phase, kept_seconds: float
) -> None:
    job = await kept.ended(phase, created_at=kept.clock.now())
    await kept.store.create(a_token_of(job))
    await kept.store.create(Secret(metadata=Metadata(name="anthropic"), data={"ANTHROPIC_API_KEY": "test-key"}))

    kept.clock.step(kept_seconds - 10)
    await kept.retention().delete_tokens()
    assert len(await kept.store.list(Secret)) == 2

    kept.clock.step(20)
    await kept.retention().delete_tokens()
    assert [secret.name for secret in await kept.store.list(Secret)] == ["anthropic"]


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING])
async def test_the_token_of_a_job_that_is_not_over_stays(kept: Kept, phase: Phase) -> None:
    job = await kept.store.create(a_job(phase))
    await kept.store.create(a_token_of(job))
    kept.clock.step(DAY)
    await kept.retention().delete_tokens()
    assert len(await kept.store.list(Secret)) == 1

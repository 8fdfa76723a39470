"""Retention: deletion after the configured times, and only of ended jobs."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.controller.retention import (
    DISK_PASS_SECONDS,
    NEW_SECONDS,
    PASS_SECONDS,
    QUOTA_PASS_SECONDS,
    TOKEN_PASS_SECONDS,
    Retention,
)
from labrats.files.attachments import Attachments
from labrats.index.jobs import JobIndex
from labrats.model.agent import ChainLink
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import Secret
from labrats.model.errors import RetryLater
from labrats.model.job import TOKEN_LIFETIME, Chain, Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from labrats.model.report import Published, PullRequestReport, Report, ReportTarget
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
GIB = 2**30
HANG = [{"hang": True}]


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary event loop, since files are removed in a thread."""
    return "asyncio"


class Data:
    """The store, attempts and files of an engine. Workspaces are retained for a day, jobs for 30 days."""

    def __init__(self, machine: MemoryMachine, uploads: Path) -> None:
        self.clock = FakeClock()
        self.store, self.index, self.machine = MeddledStore(self.clock), JobIndex(), machine
        self.runner = MemoryRunner(self.store, machine)
        self.attachments = Attachments(uploads)

    def retention(self, **limits: Any) -> Retention:
        settings = EngineSettings(workspace_retention_hours=24, job_retention_days=30, **limits)
        return Retention(self.store, self.runner, self.index, self.attachments, self.clock, settings)

    async def add(self, job: Job) -> Job:
        """Create a job, start all its attempts, and wait until the index has it."""
        created = await self.store.create(job)
        for number in range(1, job.status.attempts + 1):
            attempt = Attempt(replace(created, status=replace(created.status, attempts=number)))
            await self.runner.start(attempt)
        await eventually(lambda: all(executor.has_workspace for executor in self.machine.executors.values()))
        await eventually(lambda: self.index.contains(job.id))
        return created

    async def ended(self, phase: Phase = P.SUCCEEDED, **fields: Any) -> Job:
        """Create a job that ends now."""
        return await self.add(a_job(phase, finished_at=self.clock.now(), **fields))

    async def exists(self, job: Job) -> bool:
        return bool(await self.store.get_many(Job, [job.id]))


class MeddledStore(MemoryStore):
    """A store that calls a hook before each read of a job."""

    async def before_reading(self, name: str) -> None:
        """Do nothing. Tests replace this hook."""

    async def get(self, kind: type[R], name: str) -> R:
        await self.before_reading(name)
        return await super().get(kind, name)


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Data]:
    async with MemoryMachine() as machine:
        data = Data(machine, tmp_path)
        async with following(data):
            yield data


@asynccontextmanager
async def following(data: Data) -> AsyncIterator[None]:
    task = asyncio.create_task(data.index.follow(data.store))
    await data.index.synced.wait()
    yield
    task.cancel()
    await asyncio.wait([task])


async def test_a_workspace_is_removed_a_day_after_the_end_without_the_output(data: Data) -> None:
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
async def test_a_job_is_deleted_with_all_its_attempts_30_days_after_its_end(data: Data, phase: Phase) -> None:
    job = await data.ended(phase, attempts=2)
    data.clock.step(30 * DAY - 60)
    await data.retention().clean()
    assert await data.exists(job)
    data.clock.step(120)
    await data.retention().clean()
    assert not await data.exists(job)
    for number in (1, 2):
        assert isinstance(await data.runner.find(AttemptName(job.id, number)), NotStarted)


async def test_the_attachments_of_a_job_are_deleted_with_it(data: Data, tmp_path: Path) -> None:
    files = await data.attachments.save("ir-0000000a", [("a.txt", b"a"), ("b.txt", b"b")])
    await data.ended(job_id="ir-0000000a", spec=a_spec(workspace_files=files))
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    data.clock.step(31 * DAY)
    await data.retention().clean()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("path", ["{of_other}", "jobs/{folder_of_other}", "up-0123456789abcdef/a.txt", "a.txt"])
async def test_files_of_others_stay_when_a_job_that_names_them_is_deleted(
    data: Data, tmp_path: Path, path: str
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
async def test_a_live_job_is_never_deleted(data: Data, phase: Phase) -> None:
    job = await data.add(a_job(phase, attempts=1, spec=a_spec(HANG)))
    data.clock.step(400 * DAY)
    await data.retention().clean()
    assert await data.exists(job)
    assert await data.runner.workspaces() == [job.attempt_name]


async def test_the_workspace_of_an_earlier_attempt_is_removed_at_once(data: Data) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "no"}]}, *HANG]
    job = await data.add(a_job(P.RUNNING, attempts=2, spec=a_spec(steps)))
    await data.retention().clean()
    assert await data.runner.workspaces() == [job.attempt_name]
    assert isinstance(await data.runner.find(AttemptName(job.id, 1)), Gone)


@pytest.mark.parametrize("phase", [P.PENDING, P.RUNNING, P.FAILED])
async def test_the_workspace_of_a_session_stays_for_attempts_that_may_resume_it(data: Data, phase: Phase) -> None:
    steps = [{"onAttempt": 1, "steps": [{"fail": "no"}]}, *HANG]
    job = await data.add(a_job(phase, attempts=2, spec=a_spec(steps), session=a_session(1)))
    await data.retention().clean()
    assert sorted(await data.runner.workspaces()) == [AttemptName(job.id, 1), AttemptName(job.id, 2)]


async def test_the_workspace_of_a_session_is_removed_a_day_after_the_end(data: Data) -> None:
    await data.ended(P.FAILED, attempts=2, session=a_session(1))
    data.clock.step(DAY + 60)
    await data.retention().clean()
    assert await data.runner.workspaces() == []


async def test_a_job_retried_during_the_pass_is_not_deleted(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_a_job_deleted_during_the_pass_does_not_end_the_pass(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted, other = await data.ended(), await data.ended()
    data.clock.step(31 * DAY)

    async def delete_one(_: str) -> None:
        if await data.exists(deleted):
            await data.store.delete(Job, deleted.id)

    monkeypatch.setattr(data.store, "before_reading", delete_one)
    await data.retention().clean()
    assert not await data.exists(other)


async def test_the_running_attempt_of_a_deleted_job_is_killed_and_removed(data: Data) -> None:
    job = await data.add(a_job(P.RUNNING, spec=a_spec(HANG)))
    executor = data.machine.executors[job.attempt_name]
    await data.store.delete(Job, job.id)
    await data.retention().clean()
    assert executor.gone
    assert await data.runner.workspaces() == []


async def test_the_output_of_a_deleted_job_is_removed_even_without_a_workspace(data: Data) -> None:
    job, other = await data.ended(), await data.ended()
    await data.runner.remove(job.attempt_name, keep_output=True)
    await data.store.delete(Job, job.id)

    await data.retention().clean()

    assert await data.runner.retained() == [other.attempt_name]


async def test_an_orphaned_attempt_that_cannot_be_killed_blocks_no_other(
    data: Data, monkeypatch: pytest.MonkeyPatch
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

    assert await data.runner.retained() == [stuck.attempt_name]


async def test_files_without_a_job_are_removed_once_they_are_old_enough(data: Data, tmp_path: Path) -> None:
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


async def test_passes_continue_after_an_error_of_the_store(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_passes_continue_after_an_error_of_the_volume(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await data.ended()
    await data.store.delete(Job, job.id)
    data.clock = clock = HurryingClock(data.clock.now())

    async def fail() -> list[str]:
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
        assert seconds in (PASS_SECONDS, TOKEN_PASS_SECONDS, DISK_PASS_SECONDS)
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
    data: Data, phase: Phase, kept_seconds: float
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
async def test_the_token_of_a_live_job_is_not_deleted(data: Data, phase: Phase) -> None:
    job = await data.store.create(a_job(phase))
    await data.store.create(a_token_of(job))
    data.clock.step(DAY)
    await data.retention().delete_tokens()
    assert len(await data.store.list(Secret)) == 1


async def test_oldest_workspaces_of_ended_jobs_are_removed_until_all_fit_the_limit(data: Data) -> None:
    running = await data.add(a_job(P.RUNNING))
    jobs = []
    for phase in (P.SUCCEEDED, P.FAILED, P.CANCELLED, P.SUCCEEDED):
        jobs.append(await data.ended(phase))
        data.clock.step(60)
    for executor in data.machine.executors.values():
        executor.workspace_bytes = 2**30

    await data.retention(workspaces_gib=3).limit_workspaces()

    retained = {running.attempt_name, *(job.attempt_name for job in jobs[2:])}
    assert set(await data.runner.workspaces()) == retained
    assert all([await data.exists(job) for job in jobs])
    assert isinstance(await data.runner.find(jobs[0].attempt_name), Gone)


async def test_workspace_that_an_unfinished_job_uses_is_not_removed_for_the_limit(data: Data) -> None:
    running = await data.add(a_job(P.RUNNING))
    waiting = await data.add(a_job(P.PENDING, attempts=1, session=a_session()))
    await data.retention(workspaces_gib=1e-9).limit_workspaces()
    assert {name.job_id for name in await data.runner.workspaces()} == {running.id, waiting.id}


async def test_workspaces_within_their_limit_are_retained(data: Data) -> None:
    job = await data.ended()
    await data.retention(workspaces_gib=1).limit_workspaces()
    await data.retention().limit_workspaces()
    assert await data.runner.workspaces() == [job.attempt_name]


async def test_workspace_of_a_job_that_is_retried_meanwhile_is_not_removed(data: Data) -> None:
    job = await data.ended(P.FAILED)

    async def retry(name: str) -> None:
        [stored] = await data.store.get_many(Job, [name])
        if stored.ended:
            await data.store.update(replace(stored, status=replace(stored.status, phase=P.PENDING)))

    data.store.before_reading = retry  # type: ignore[method-assign]
    await data.retention(workspaces_gib=1e-9).limit_workspaces()
    assert await data.runner.workspaces() == [job.attempt_name]


async def test_workspace_of_an_ended_job_is_measured_once(data: Data) -> None:
    await data.ended()
    retention = data.retention(workspaces_gib=1)
    await retention.limit_workspaces()
    for executor in data.machine.executors.values():
        executor.workspace_bytes = 2**40
    await retention.limit_workspaces()
    assert await data.runner.workspaces() != []


def outputs_left(data: Data) -> set[str]:
    """Return the ids of the jobs whose output is not removed."""
    return {name.job_id for name, executor in data.machine.executors.items() if not executor.lost_output}


class Disk:
    """A volume of 10 GiB. Each attempt has an output of 1 GiB."""

    def __init__(self, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
        self._data, self.used_by_others = data, 0
        monkeypatch.setattr("shutil.disk_usage", lambda _: self)

    total = 10 * GIB

    @property
    def free(self) -> int:
        outputs = sum(not executor.lost_output for executor in self._data.machine.executors.values())
        return self.total - outputs * GIB - self.used_by_others


@pytest.fixture
def disk(data: Data, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(data, monkeypatch)


async def test_oldest_outputs_of_ended_jobs_are_removed_until_enough_space_is_free(data: Data, disk: Disk) -> None:
    running = await data.add(a_job(P.RUNNING, attempts=1, spec=a_spec(HANG)))
    jobs = []
    for phase in (P.SUCCEEDED, P.FAILED, P.CANCELLED, P.SUCCEEDED):
        jobs.append(await data.ended(phase))
        data.clock.step(60)
    retention = data.retention(free_gib=5)
    await retention.free_disk()
    assert outputs_left(data) == {running.id, *(job.id for job in jobs)}

    disk.used_by_others = 2 * GIB
    await retention.free_disk()

    assert outputs_left(data) == {running.id, *(job.id for job in jobs[2:])}
    assert all([await data.exists(job) for job in jobs])
    assert isinstance(await data.runner.find(jobs[0].attempt_name), Gone)
    disk.used_by_others = 3 * GIB
    await retention.free_disk()
    assert outputs_left(data) == {running.id, jobs[3].id}


async def test_output_of_an_unfinished_job_is_not_removed(data: Data, disk: Disk) -> None:
    running = await data.add(a_job(P.RUNNING, attempts=1, spec=a_spec(HANG)))
    waiting = await data.add(a_job(P.PENDING, attempts=1))
    with capture_logs() as entries:
        await data.retention(free_gib=10).free_disk()
    assert outputs_left(data) == {running.id, waiting.id}
    assert [entry["event"] for entry in entries] == ["disk nearly full"]


async def test_all_ended_jobs_are_looked_at_again_when_the_disk_stays_full(data: Data, disk: Disk) -> None:
    retention = data.retention(free_gib=20)
    first = await data.ended()
    await retention.free_disk()
    second = await data.ended()
    await retention.free_disk()
    assert outputs_left(data) == {second.id}
    data.clock.step(QUOTA_PASS_SECONDS)
    await retention.free_disk()
    assert outputs_left(data) == set()
    assert await data.exists(first)


async def test_output_is_not_removed_before_its_commits_are_published(data: Data, disk: Disk) -> None:
    report = Report(pull_request=PullRequestReport(), target=ReportTarget(repository="octo/repo"))
    job = await data.ended(spec=a_spec(report=report))
    await data.retention(free_gib=10).free_disk()
    assert outputs_left(data) == {job.id}

    [stored] = await data.store.get_many(Job, [job.id])
    published = Published(attempts=stored.status.attempts, finished_at=stored.status.finished_at)
    await data.store.update(replace(stored, status=replace(stored.status, published=published)))
    await data.retention(free_gib=10).free_disk()
    assert outputs_left(data) == set()


async def test_output_is_not_removed_before_the_chain_has_read_it(data: Data, disk: Disk) -> None:
    job = await data.ended(spec=a_spec(chain=Chain(id="c", next=ChainLink(agent_trigger_name="next"))))
    await data.retention(free_gib=10).free_disk()
    assert outputs_left(data) == {job.id}


@pytest.mark.parametrize(
    ("total", "free", "is_enough"), [(100, 1.1, True), (100, 0.9, False), (10, 0.6, True), (10, 0.4, False)]
)
async def test_some_space_stays_free_by_default(
    data: Data, monkeypatch: pytest.MonkeyPatch, total: float, free: float, is_enough: bool
) -> None:
    job = await data.ended()
    disk = SimpleNamespace(total=total * GIB, free=free * GIB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    await data.retention().free_disk()
    assert outputs_left(data) == ({job.id} if is_enough else set())

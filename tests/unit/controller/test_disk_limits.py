"""Limits of the disk: what is deleted when workspaces and outputs take too much space, and what never is."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from labrats.controller.disk_limits import FULL_DISK_SECONDS, LARGE_BYTES, DiskLimits
from labrats.model.agent import ChainLink
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import BecameUnreadable, RetryLater
from labrats.model.job import Chain, Job, Outputs
from labrats.model.phases import Phase
from labrats.model.report import Published, PullRequestReport, Report, ReportTarget
from labrats.ports import Gone
from tests.support.builders import a_job, a_session, a_spec
from tests.unit.controller.engine_data import EngineData

P = Phase
GIB = 2**30
HANG = [{"hang": True}]


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary event loop, since files are removed in a thread."""
    return "asyncio"


async def test_oldest_workspaces_of_ended_jobs_are_removed_until_all_fit_the_limit(data: EngineData) -> None:
    running = await data.add(a_job(P.RUNNING))
    jobs = []
    for phase in (P.SUCCEEDED, P.FAILED, P.CANCELLED, P.SUCCEEDED):
        jobs.append(await data.ended(phase))
        data.clock.step(60)
    for executor in data.machine.executors.values():
        executor.workspace_bytes = 2**30

    await data.disk_limits(workspaces_gib=3).limit_workspaces()

    retained = {running.attempt_name, *(job.attempt_name for job in jobs[2:])}
    assert set(await data.runner.workspaces()) == retained
    assert all([await data.exists(job) for job in jobs])
    assert isinstance(await data.runner.find(jobs[0].attempt_name), Gone)


async def test_workspaces_with_commits_that_are_in_no_bundle_are_removed_last(data: EngineData) -> None:
    jobs = []
    for outputs in (Outputs(commit="a" * 40), Outputs(commit="a" * 40, bundle_bytes=9), Outputs()):
        jobs.append(await data.ended(P.SUCCEEDED, outputs=outputs))
        data.clock.step(60)
    for executor in data.machine.executors.values():
        executor.workspace_bytes = 2**30
    for gib, retained in ((2, (jobs[0], jobs[2])), (1, (jobs[0],)), (0.1, ())):
        await data.disk_limits(workspaces_gib=gib).limit_workspaces()
        assert set(await data.runner.workspaces()) == {job.attempt_name for job in retained}


async def test_workspace_that_an_unfinished_job_uses_is_not_removed_for_the_limit(data: EngineData) -> None:
    running = await data.add(a_job(P.RUNNING))
    waiting = await data.add(a_job(P.PENDING, attempts=1, session=a_session()))
    await data.disk_limits(workspaces_gib=1e-9).limit_workspaces()
    assert {name.job_id for name in await data.runner.workspaces()} == {running.id, waiting.id}


async def test_workspaces_within_their_limit_are_retained(data: EngineData) -> None:
    job = await data.ended()
    await data.disk_limits(workspaces_gib=1).limit_workspaces()
    await data.disk_limits().limit_workspaces()
    assert await data.runner.workspaces() == [job.attempt_name]


async def test_workspace_of_a_job_that_is_retried_meanwhile_is_not_removed(data: EngineData) -> None:
    job = await data.ended(P.FAILED)

    async def retry(name: str) -> None:
        [stored] = await data.store.get_many(Job, [name])
        if stored.ended:
            await data.store.update(replace(stored, status=replace(stored.status, phase=P.PENDING)))

    data.store.before_reading = retry  # type: ignore[method-assign]
    await data.disk_limits(workspaces_gib=1e-9).limit_workspaces()
    assert await data.runner.workspaces() == [job.attempt_name]


async def test_an_unreadable_job_does_not_stop_the_deletion_of_other_workspaces(data: EngineData) -> None:
    unreadable, *_ = [await data.ended() for _ in range(3)]
    for executor in data.machine.executors.values():
        executor.workspace_bytes = GIB

    async def refuse(name: str) -> None:
        if name == unreadable.id:
            raise BecameUnreadable("edited by a person")

    data.store.before_reading = refuse  # type: ignore[method-assign]
    await data.disk_limits(workspaces_gib=1).limit_workspaces()
    assert await data.runner.workspaces() == [unreadable.attempt_name]


async def test_workspace_of_an_ended_job_is_measured_once(data: EngineData) -> None:
    await data.ended()
    limits = data.disk_limits(workspaces_gib=1)
    await limits.limit_workspaces()
    for executor in data.machine.executors.values():
        executor.workspace_bytes = 2**40
    await limits.limit_workspaces()
    assert await data.runner.workspaces() != []


def outputs_left(data: EngineData) -> set[str]:
    """Return the ids of the jobs whose output is not removed."""
    return {name.job_id for name, executor in data.machine.executors.items() if not executor.lost_output}


class Disk:
    """A volume of 10 GiB. Each attempt has an output of 1 GiB. Only large workspaces take space."""

    def __init__(self, data: EngineData, monkeypatch: pytest.MonkeyPatch) -> None:
        self._data, self.used_by_others = data, 0
        monkeypatch.setattr("shutil.disk_usage", lambda _: self)

    total = 10 * GIB

    @property
    def free(self) -> int:
        outputs = sum(not executor.lost_output for executor in self._data.machine.executors.values())
        sizes = (each.workspace_bytes for each in self._data.machine.executors.values() if each.has_workspace)
        workspaces = sum(size for size in sizes if size >= LARGE_BYTES)
        return self.total - outputs * GIB - workspaces - self.used_by_others


async def free_disk(limits: DiskLimits) -> None:
    """Make two passes, since outputs are not deleted in the first."""
    for _ in range(2):
        await limits.free_disk()


@pytest.fixture
def disk(data: EngineData, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(data, monkeypatch)


async def test_oldest_outputs_of_ended_jobs_are_removed_until_enough_space_is_free(
    data: EngineData, disk: Disk
) -> None:
    running = await data.add(a_job(P.RUNNING, attempts=1, spec=a_spec(HANG)))
    jobs = []
    for phase in (P.SUCCEEDED, P.FAILED, P.CANCELLED, P.SUCCEEDED):
        jobs.append(await data.ended(phase))
        data.clock.step(60)
    limits = data.disk_limits(free_gib=5)
    await free_disk(limits)
    assert outputs_left(data) == {running.id, *(job.id for job in jobs)}

    disk.used_by_others = 2 * GIB
    await free_disk(limits)

    assert outputs_left(data) == {running.id, *(job.id for job in jobs[2:])}
    assert all([await data.exists(job) for job in jobs])
    assert isinstance(await data.runner.find(jobs[0].attempt_name), Gone)
    disk.used_by_others = 3 * GIB
    await free_disk(limits)
    assert outputs_left(data) == {running.id, jobs[3].id}


async def test_large_workspaces_of_ended_jobs_are_removed_before_any_output(data: EngineData, disk: Disk) -> None:
    jobs = [await data.ended() for _ in range(4)]
    for job, size in zip(jobs, (LARGE_BYTES - 1, 2 * GIB, GIB, LARGE_BYTES), strict=True):
        data.machine.executors[job.attempt_name].workspace_bytes = size

    await free_disk(data.disk_limits(free_gib=4))

    assert outputs_left(data) == {job.id for job in jobs}
    assert set(await data.runner.workspaces()) == {job.attempt_name for job in (jobs[0], jobs[2], jobs[3])}


async def test_output_is_not_removed_for_a_file_that_is_soon_deleted(data: EngineData, disk: Disk) -> None:
    job = await data.ended()
    limits = data.disk_limits(free_gib=5)
    for _ in range(3):
        disk.used_by_others = 9 * GIB
        await limits.free_disk()
        disk.used_by_others = 0
        await limits.free_disk()
    assert outputs_left(data) == {job.id}


async def test_output_of_an_unfinished_job_is_not_removed(data: EngineData, disk: Disk) -> None:
    running = await data.add(a_job(P.RUNNING, attempts=1, spec=a_spec(HANG)))
    waiting = await data.add(a_job(P.PENDING, attempts=1))
    with capture_logs() as entries:
        await free_disk(data.disk_limits(free_gib=10))
    assert outputs_left(data) == {running.id, waiting.id}
    assert [entry["event"] for entry in entries] == ["disk nearly full"]


async def test_outputs_of_earlier_attempts_are_removed_before_those_of_ended_jobs(data: EngineData, disk: Disk) -> None:
    ended = await data.ended()
    running = await data.add(a_job(P.RUNNING, attempts=5, spec=a_spec(HANG), session=a_session(attempt=3)))

    await free_disk(data.disk_limits(free_gib=7))

    left = {name for name, executor in data.machine.executors.items() if not executor.lost_output}
    assert left == {ended.attempt_name, AttemptName(running.id, 3), AttemptName(running.id, 5)}


async def test_all_ended_jobs_are_looked_at_again_when_the_disk_stays_full(data: EngineData, disk: Disk) -> None:
    limits = data.disk_limits(free_gib=20)
    first = await data.ended()
    await free_disk(limits)
    second = await data.ended()
    await free_disk(limits)
    assert outputs_left(data) == {second.id}
    data.clock.step(FULL_DISK_SECONDS)
    await free_disk(limits)
    assert outputs_left(data) == set()
    assert await data.exists(first)


async def test_output_is_not_removed_before_its_commits_are_published(data: EngineData, disk: Disk) -> None:
    report = Report(pull_request=PullRequestReport(), target=ReportTarget(repository="octo/repo"))
    job = await data.ended(spec=a_spec(report=report))
    await free_disk(data.disk_limits(free_gib=10))
    assert outputs_left(data) == {job.id}

    [stored] = await data.store.get_many(Job, [job.id])
    published = Published(attempts=stored.status.attempts, finished_at=stored.status.finished_at)
    await data.store.update(replace(stored, status=replace(stored.status, published=published)))
    await free_disk(data.disk_limits(free_gib=10))
    assert outputs_left(data) == set()


async def test_output_is_not_removed_before_the_chain_has_read_it(data: EngineData, disk: Disk) -> None:
    job = await data.ended(spec=a_spec(chain=Chain(id="c", next=ChainLink(agent_trigger_name="next"))))
    await free_disk(data.disk_limits(free_gib=10))
    assert outputs_left(data) == {job.id}


@pytest.mark.parametrize(
    ("total", "free", "is_enough"), [(100, 1.1, True), (100, 0.9, False), (10, 0.6, True), (10, 0.4, False)]
)
async def test_some_space_stays_free_by_default(
    data: EngineData, monkeypatch: pytest.MonkeyPatch, total: float, free: float, is_enough: bool
) -> None:
    job = await data.ended()
    disk = SimpleNamespace(total=total * GIB, free=free * GIB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    await free_disk(data.disk_limits())
    assert outputs_left(data) == ({job.id} if is_enough else set())


@pytest.mark.parametrize("error", [OSError("is a directory"), RetryLater("a policy forbids it")])
async def test_an_attempt_that_cannot_be_removed_keeps_no_other(
    data: EngineData, disk: Disk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stuck, *others = [await data.ended() for _ in range(3)]
    for executor in data.machine.executors.values():
        executor.workspace_bytes = GIB
    data.machine.executors[stuck.attempt_name].workspace_bytes = 2 * GIB
    remove, remove_output = data.runner.remove, data.runner.remove_output

    async def remove_others(name: AttemptName, *, keep_output: bool = False) -> None:
        if name == stuck.attempt_name:
            raise error
        await remove(name, keep_output=keep_output)

    async def remove_other_outputs(name: AttemptName) -> int:
        if name == stuck.attempt_name:
            raise error
        return await remove_output(name)

    monkeypatch.setattr(data.runner, "remove", remove_others)
    monkeypatch.setattr(data.runner, "remove_output", remove_other_outputs)
    await data.disk_limits(workspaces_gib=3).limit_workspaces()
    assert set(await data.runner.workspaces()) == {stuck.attempt_name, others[1].attempt_name}

    disk.used_by_others = 5 * GIB
    await free_disk(data.disk_limits(free_gib=3))
    assert await data.runner.workspaces() == [stuck.attempt_name]
    assert outputs_left(data) == {stuck.id}

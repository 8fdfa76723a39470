"""The observers of the kill test: recorded versions and observed processes are complete."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labrats.backends.embedded.store import EmbeddedStore
from labrats.model.job import Job, JobSpec, advance
from labrats.model.phases import JobEvent, Phase
from labrats.model.record import Metadata
from labrats.processes import ProcessId
from tests.support.waiting import eventually
from tests.torture.witnesses import ProcessWatch, kill, record_versions, recorded_versions
from tests.unit.executor.attempts import wait_until


async def test_the_store_records_every_version_in_order(tmp_path: Path) -> None:
    record_versions(tmp_path / "labrats.db")
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        spec = JobSpec(source="test", type="test", metadata={"tag": "a"}, priority=1)
        job = await store.create(Job(metadata=Metadata(name="ir-0000000a"), spec=spec))
        job = await store.update(advance(job, JobEvent.START, attempts=1))
        await store.update(advance(job, JobEvent.SUCCEED))
    versions = recorded_versions(tmp_path / "labrats.db")
    assert [version.phase for version in versions] == [Phase.PENDING, Phase.RUNNING, Phase.SUCCEEDED]
    assert {(version.job_id, version.tag, version.priority) for version in versions} == {("ir-0000000a", "a", 1)}
    assert [version.attempts for version in versions] == [0, 1, 1]


async def test_a_process_of_an_agent_is_observed_while_it_lives(tmp_path: Path) -> None:
    with ProcessWatch(str(tmp_path)) as watch, sleeping(tmp_path, {"LABRATS_ATTEMPT": "ir-0000000a-1"}) as process:
        await eventually(lambda: len(watch.sightings) == 1 and watch.sightings[0].first < watch.sightings[0].last)
        assert watch.sightings[0].attempt == "ir-0000000a-1"
        assert not watch.executors()
        process.kill()
        await eventually(lambda: not watch.scan())  # a zombie does not count


async def test_an_executor_is_recognized_by_its_output_file(tmp_path: Path) -> None:
    folder = tmp_path / "ir-0000000a-1"
    folder.mkdir()
    with ProcessWatch(str(tmp_path)) as watch, sleeping(tmp_path, {}, folder / "output.jsonl") as process:
        await eventually(lambda: bool(watch.executors()))
        assert watch.executors() == [ProcessId.of(process.pid)]
        assert watch.sightings[0].attempt == "ir-0000000a-1"


def test_an_executor_is_observed_in_each_of_its_attempts(tmp_path: Path) -> None:
    attempts = ["ir-0000000a-1", "ir-0000000b-1"]
    for attempt in attempts:
        (tmp_path / attempt).mkdir()
    script = "".join(f"exec > {tmp_path}/{attempt}/output.jsonl; read line; " for attempt in attempts)
    with (
        ProcessWatch(str(tmp_path)) as watch,
        subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, env={"PATH": f"{tmp_path}:/bin"}) as executor,
    ):
        assert executor.stdin
        wait_until(lambda: len(watch.executors()) == 1, "it has an attempt")
        executor.stdin.write(b"\n")
        executor.stdin.flush()
        wait_until(lambda: [each.attempt for each in watch.sightings] == attempts, "it has both")
        first, second = watch.sightings
        assert first.process == second.process
        assert first.last <= second.first


async def test_processes_without_the_mark_are_not_observed(tmp_path: Path) -> None:
    with sleeping(tmp_path / "others", {"LABRATS_ATTEMPT": "ir-0000000a-1"}):
        assert ProcessWatch(str(tmp_path / "ours")).scan() == []


async def test_a_kill_needs_the_same_start_time_and_boot(tmp_path: Path) -> None:
    with sleeping(tmp_path, {}) as process:
        here = ProcessId.of(process.pid)
        assert here
        earlier = ProcessId(here.pid, here.start_ticks - 1, here.boot_id)
        assert not kill(earlier)
        assert kill(here)
        assert process.wait() == -9
        assert not kill(here)


@contextmanager
def sleeping(
    mark: Path, environment: dict[str, str], output: Path = Path("/dev/null")
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with `mark` in its environment until the block ends."""
    with open(output, "wb") as stdout:
        process = subprocess.Popen(["sleep", "60"], stdout=stdout, env={"PATH": f"{mark}:/usr/bin:/bin"} | environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()

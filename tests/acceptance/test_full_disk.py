"""An engine whose disk is full: it says so everywhere, refuses writes, and goes on once there is space."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine import LocalEngine, a_submission


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small_engine(small_disk: Path) -> Iterator[LocalEngine]:
    """An engine whose data folder is on the small disk."""
    with LocalEngine(small_disk) as engine:
        yield engine


def fill(path: Path) -> None:
    """Write to the file until the disk is full."""
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=64k"], check=False, stderr=subprocess.DEVNULL)


def run_doctor(engine: LocalEngine) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "labrats"), "doctor", "--json"]
    environment = {"PATH": os.environ["PATH"], "LABRATS_DATA_DIR": str(engine.data_dir)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


async def test_full_disk_is_named_wherever_somebody_looks_and_needs_no_restart(
    small_disk: Path, small_engine: LocalEngine
) -> None:
    async with small_engine.admin() as admin:
        before = (await admin.get("/api/system")).json()["disk"]["problem"]
        filler = small_disk / "filler"
        fill(filler)

        refused = await admin.post("/api/jobs/submit", a_submission(prompt="x" * 800_000))
        ready = await admin.get("/ready")
        system = (await admin.get("/api/system")).json()["disk"]
        metrics = (await admin.get("/metrics")).text
        doctor = await asyncio.to_thread(run_doctor, small_engine)
        alive = await admin.get("/health")
        filler.unlink()
        accepted = await admin.post("/api/jobs/submit", a_submission())
        again = await admin.get("/ready")

    assert before is None
    for answer in (refused, ready):
        assert (answer.status_code, answer.json()["code"]) == (503, "disk_full"), answer.text
        assert answer.json()["error"].startswith(f"the disk with {small_disk}")
        assert "is full (" in answer.json()["error"]
        assert int(answer.headers["Retry-After"]) == 60
    assert "is full" in system["problem"]
    [disk] = (each for each in json.loads(doctor.stdout) if each["check"] == "disk")
    assert (disk["result"], doctor.returncode) == ("fails", 1)
    assert "is full" in disk["detail"]
    assert "\nlabrats_disk_full 1.0" in metrics
    assert (alive.status_code, accepted.status_code, again.status_code) == (200, 201, 200)

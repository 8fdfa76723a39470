"""Limits on the disk of an attempt, with real programs that exceed them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from tests.unit.executor.attempts import DEADLINE_SECONDS
from tests.unit.executor.resource_limits.limited_attempts import MEBIBYTE, an_attempt_of

DISK = ResourceLimits(disk_bytes=4 * MEBIBYTE)
FILL = "import os, time; open({path} + 'large', 'wb').write(os.urandom(8 << 20)); time.sleep(20)"
PLACES = {
    "workspace": "''",
    "home": "os.environ['HOME'] + '/'",
    "temporary files": "os.environ['TMPDIR'] + '/'",
    "credentials": "os.environ['HOME'] + '/../credentials/'",
}
WRITE_LITTLE = """
import os, time
with open('sparse', 'wb') as sparse:
    sparse.truncate(1 << 25)
with open('once', 'wb') as file:
    file.write(os.urandom(3 << 20))
for number in range(9):
    os.link('once', str(number))
os.symlink('/', 'root')
time.sleep(2.5)
"""


@pytest.mark.parametrize("script", [FILL.format(path=place) for place in PLACES.values()], ids=PLACES)
def test_attempt_over_the_disk_limit_is_ended(tmp_path: Path, isolation: dict[str, Any], script: str) -> None:
    attempt = an_attempt_of(tmp_path, script, limits=DISK, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.DISK_LIMIT
    assert "over LABRATS_WORKSPACE_GIB (4 MiB): raise the limit, or let the agent write less" in message


def test_sparse_files_links_and_further_names_take_no_disk(tmp_path: Path, isolation: dict[str, Any]) -> None:
    attempt = an_attempt_of(tmp_path, WRITE_LITTLE, limits=DISK, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the program ends without a result


FILL_DISK = """
import asyncio, pathlib, subprocess, sys, types
from labrats.executor.resource_limits import sampler, watcher
from labrats.model.errors import GiveUp
from labrats.model.protocol import ResourceLimits

MIB = 2**20
folder, free = pathlib.Path(sys.argv[1]), int(sys.argv[2]) * MIB
watcher.LONG_SAMPLE_SECONDS = 0.1
sampler.shutil.disk_usage = lambda _: types.SimpleNamespace(total=100 * MIB, free=free)
script = f"import os, time; open('{folder}/file', 'wb').write(os.urandom(12 << 20)); time.sleep({sys.argv[3]})"

async def work():
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script])
    return "ended by itself"

async def main():
    try:
        limits = ResourceLimits(kept_free_bytes=(20 if free else 8) * MIB)
        print(await watcher.run_within_limits(work, limits, [folder]))
    except GiveUp as failure:
        print(failure.code)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("free", "seconds", "is_ended"),
    [(0, 20, True), (15, 20, True), (25, 1, False)],
    ids=["full", "nearly full", "not full"],
)
def test_an_attempt_that_fills_the_disk_is_ended_and_its_files_are_deleted(
    tmp_path: Path, free: int, seconds: int, is_ended: bool
) -> None:
    """Otherwise the engine deletes what all other jobs have left, and cannot record the end of the attempt."""
    done = subprocess.run(
        [sys.executable, "-c", FILL_DISK, str(tmp_path), str(free), str(seconds)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    assert done.stdout.strip() == (FailedCode.DISK_LIMIT if is_ended else "ended by itself")
    assert tmp_path.exists() != is_ended

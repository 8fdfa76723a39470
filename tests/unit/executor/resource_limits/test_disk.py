"""Limits on the disk of an attempt, with real programs that exceed them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labrats.files.trees import remove_tree
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from tests.unit.executor.attempts import DEADLINE_SECONDS
from tests.unit.executor.resource_limits.limited_attempts import MEBIBYTE, an_attempt_of, looks_at_mapped_files

DISK = ResourceLimits(disk_bytes=4 * MEBIBYTE)
FILL = "import os, time; open({path} + 'large', 'wb').write(os.urandom(8 << 20)); time.sleep(20)"
FILL_DELETED_FILE = """
import os, time
with open('deleted', 'wb') as file:
    os.unlink('deleted')
    file.write(os.urandom(8 << 20))
    file.flush()
    time.sleep(20)
"""


FILL_DELETED_FILE_OF_A_THREAD = """
import ctypes, os, threading, time
UNSHARE_FILES = 0x400
def fill():
    ctypes.CDLL(None).unshare(UNSHARE_FILES)
    with open('deleted', 'wb') as file:
        os.unlink('deleted')
        file.write(os.urandom(8 << 20))
        file.flush()
        time.sleep(20)
threading.Thread(target=fill, daemon=True).start()
time.sleep(20)
"""


MAP_DELETED_FILES = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
READ_AND_WRITE, SHARED = 3, 1
for number in range(3):
    name = FOLDER + str(number)
    with open(name, 'wb+') as file:
        file.write(os.urandom(4 << 20))
        file.flush()
        libc.mmap(None, 4096, READ_AND_WRITE, SHARED, file.fileno(), 0)
    os.unlink(name)
time.sleep(20)
"""
RUN_DELETED_PROGRAM = """
import os, shutil, subprocess, time
shutil.copy('/bin/sleep', 'program')
with open('program', 'ab') as file:
    file.write(os.urandom(8 << 20))
with subprocess.Popen(['./program', '20']):
    os.unlink('program')
"""
RENAME_FOLDERS = """
import ctypes, itertools, os, time
LEVELS, PROCESSES, EXCHANGE = 1500, 4, 2
renameat2, folders = ctypes.CDLL(None).renameat2, []
top = os.getcwd()
for _ in range(LEVELS):
    os.mkdir('empty')
    os.mkdir('full')
    folders.append(os.open('.', os.O_RDONLY))
    os.chdir('full')
end = time.monotonic() + 20
for number in range(1, PROCESSES):
    if os.fork() == 0:
        break
else:
    number = 0
    time.sleep(0.5)
    with open('large', 'wb') as file:
        file.write(os.urandom(8 << 20))
for folder in itertools.cycle(folders[number::PROCESSES]):
    renameat2(folder, b'empty', folder, b'full', EXCHANGE)
    if time.monotonic() > end:
        break
"""
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


@pytest.mark.parametrize(
    "script",
    [
        *(FILL.format(path=place) for place in PLACES.values()),
        *(FILL_DELETED_FILE, FILL_DELETED_FILE_OF_A_THREAD, RUN_DELETED_PROGRAM),
    ],
    ids=[*PLACES, "deleted file", "deleted file of a thread", "deleted program that runs"],
)
def test_attempt_over_the_disk_limit_is_ended(tmp_path: Path, isolation: dict[str, Any], script: str) -> None:
    attempt = an_attempt_of(tmp_path, script, limits=DISK, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.DISK_LIMIT
    assert "over LABRATS_WORKSPACE_GIB (4 MiB): raise the limit, or let the agent write less" in message


def test_files_below_folders_that_always_change_their_names_count(tmp_path: Path) -> None:
    """No walk finds all of them under the names that it has read."""
    attempt = an_attempt_of(tmp_path, RENAME_FOLDERS, limits=DISK)
    attempt.run()
    remove_tree(attempt.workspace)  # too deep for pytest
    assert attempt.failure[0] is FailedCode.DISK_LIMIT


@pytest.mark.skipif(not looks_at_mapped_files(), reason="only root may look at mapped files")
def test_deleted_files_that_are_only_mapped_count(tmp_path: Path, isolation: dict[str, Any]) -> None:
    attempt = an_attempt_of(tmp_path, MAP_DELETED_FILES.replace("FOLDER", "''"), limits=DISK, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.DISK_LIMIT


def test_sparse_files_links_and_further_names_take_no_disk(tmp_path: Path, isolation: dict[str, Any]) -> None:
    attempt = an_attempt_of(tmp_path, WRITE_LITTLE, limits=DISK, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the program ends without a result


FILL_DISK = """
import asyncio, pathlib, subprocess, sys, types
from labrats.executor.resource_limits import disk, watcher
from labrats.model.errors import GiveUp
from labrats.model.protocol import ResourceLimits

MIB = 2**20
folder, free = pathlib.Path(sys.argv[1]), int(sys.argv[2]) * MIB
watcher.LONG_SAMPLE_SECONDS = 0.1
disk.shutil.disk_usage = lambda _: types.SimpleNamespace(total=100 * MIB, free=free)
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


def result_on_full_disk(folder: Path, script: str, free: int, setting: str = "") -> str:
    """Run a script as the work of an attempt with `free` MiB left on the disk, and return what came of it."""
    program = FILL_DISK.replace("script = ", "_ = ").replace('"-c", script', f'"-c", {script!r}')
    done = subprocess.run(
        [sys.executable, "-c", program.replace("MIB = 2**20", f"MIB = 2**20; {setting}"), str(folder), str(free), ""],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    return done.stdout.strip()


def test_an_attempt_that_fills_the_disk_with_deleted_and_mapped_files_is_ended(tmp_path: Path) -> None:
    """Only root can read their size. With an executor of another user, any such file ends the attempt."""
    script = MAP_DELETED_FILES.replace("FOLDER", f"'{tmp_path}/'")
    assert result_on_full_disk(tmp_path, script, free=0) == FailedCode.DISK_LIMIT


@pytest.mark.parametrize(
    ("room", "is_ended"), [(0, True), (40, True), (50, False)], ids=["full", "nearly full", "not full"]
)
def test_an_attempt_with_many_files_is_ended_when_the_disk_has_room_for_few(
    tmp_path: Path, room: int, is_ended: bool
) -> None:
    """Otherwise no other attempt can start."""
    seconds = 20 if is_ended else 1
    script = f"import time; [open(f'{tmp_path}/{{i}}', 'w') for i in range(120)]; time.sleep({seconds})"
    setting = "from labrats.files.free_files import FileRoom; disk.file_room = lambda _: FileRoom(1000, ROOM)"
    result = result_on_full_disk(tmp_path, script, free=25, setting=setting.replace("ROOM", str(room)))
    assert result == (FailedCode.DISK_LIMIT if is_ended else "ended by itself")
    assert tmp_path.exists() != is_ended

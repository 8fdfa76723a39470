"""Deleted files that a process has open or mapped, and its sockets."""

import mmap
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.resource_limits import open_descriptors
from labrats.executor.resource_limits.open_descriptors import (
    UnlinkedFile,
    hides_files,
    is_in_sandbox,
    memory_of_proc_files,
    memory_of_sandbox,
    memory_of_tables,
    open_pipes,
    open_sockets,
    unlinked_files,
    watched_by_epoll,
)
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode

SIZE = 64 * 1024


def deleted_and_mapped(file: Path) -> mmap.mmap:
    """Map a file, and delete it. The descriptor of the mapping counts as open."""
    file.write_bytes(os.urandom(SIZE))
    with file.open("r+b") as opened:
        mapping = mmap.mmap(opened.fileno(), SIZE)
    file.unlink()
    return mapping


@pytest.mark.parametrize("name", ["plain", "two words (deleted)", "line\rbreak\nand another"])
def test_a_file_that_is_open_and_mapped_counts_once(tmp_path: Path, name: str) -> None:
    with deleted_and_mapped(tmp_path / name):
        device = tmp_path.stat().st_dev
        found = [file for file in unlinked_files([os.getpid()], mapped=True) if file.size == SIZE]
    assert found == [UnlinkedFile(device, SIZE)]


def test_deleted_program_that_runs_counts(tmp_path: Path) -> None:
    """A process can unmap its program, which keeps the file all the same."""
    program = tmp_path / "program"
    shutil.copy("/bin/sleep", program)
    with program.open("ab") as opened:
        opened.write(os.urandom(SIZE))
    with subprocess.Popen([program, "60"]) as process:
        try:
            size = program.stat().st_blocks * 512
            program.unlink()
            assert UnlinkedFile(tmp_path.stat().st_dev, size) in list(unlinked_files([process.pid], mapped=False))
        finally:
            process.kill()


WITH_DELETED_FOLDER = """
import os, sys, threading
{how}
os.rmdir(sys.argv[1])
print(flush=True)
sys.stdin.read()
"""
BY_A_DESCRIPTOR = "kept = os.open(sys.argv[1], os.O_RDONLY)"
BY_A_THREAD = """
import ctypes
CLONE_FS, moved = 0x200, threading.Event()
def move():
    ctypes.CDLL(None).unshare(CLONE_FS)
    os.chdir(sys.argv[1])
    moved.set()
    threading.Event().wait()
threading.Thread(target=move, daemon=True).start()
moved.wait()
"""


@pytest.mark.parametrize("how", [BY_A_DESCRIPTOR, BY_A_THREAD], ids=["descriptor", "current folder of a thread"])
def test_deleted_folder_counts(tmp_path: Path, how: str) -> None:
    """On ext4 it keeps the blocks of all the names that it ever had."""
    folder = tmp_path / "folder"
    folder.mkdir()
    size = folder.stat().st_blocks * 512
    program = [sys.executable, "-c", WITH_DELETED_FOLDER.format(how=how), str(folder)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdout.readline()
            assert UnlinkedFile(tmp_path.stat().st_dev, size) in list(unlinked_files([process.pid], mapped=False))
        finally:
            process.stdin.close()


@pytest.mark.parametrize(
    "count",
    [
        lambda pids: list(unlinked_files(pids, mapped=False)),
        open_sockets,
        open_pipes,
        lambda pids: watched_by_epoll(pids, 1000),
    ],
)
def test_number_of_descriptors_is_limited(count: Callable[[list[int]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement of millions takes minutes, in which no limit holds."""
    count([os.getpid()])
    monkeypatch.setattr(open_descriptors, "MOST_DESCRIPTORS", 2)
    with pytest.raises(GiveUp, match="over 2 files open") as failure:
        count([os.getpid()])
    assert failure.value.code is FailedCode.PROCESS_LIMIT


def test_number_of_mappings_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    list(unlinked_files([os.getpid()], mapped=True))
    monkeypatch.setattr(open_descriptors, "MOST_MAPPINGS", 2)
    list(unlinked_files([os.getpid()], mapped=False))
    with pytest.raises(GiveUp, match="over 2 parts of memory mapped") as failure:
        list(unlinked_files([os.getpid()], mapped=True))
    assert failure.value.code is FailedCode.PROCESS_LIMIT


def test_name_of_a_mapped_file_is_found_where_its_size_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root may look at a file that is only mapped."""
    stat = os.stat

    def forbidden(path: str) -> os.stat_result:
        if path.startswith("/proc/"):
            raise PermissionError
        return stat(path)

    with deleted_and_mapped(tmp_path / "two words"):
        monkeypatch.setattr(os, "stat", forbidden)
        found = list(unlinked_files([os.getpid()], mapped=True))
        monkeypatch.undo()
    assert UnlinkedFile(None, None, os.fsencode(tmp_path / "two words")) in found


def test_a_process_outside_of_a_sandbox_hides_nothing() -> None:
    assert not hides_files(os.getpid())
    assert not is_in_sandbox(os.getpid())
    assert memory_of_sandbox([os.getpid()]) == 0


@pytest.mark.parametrize("name", ["plain", "two words", "line\nbreak", "\nline break", "\0hidden"])
def test_connections_that_nobody_accepts_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No descriptor leads to them once their clients have closed them, but what they have sent takes memory."""
    monkeypatch.chdir(tmp_path)
    before = open_sockets([os.getpid()])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name + os.urandom(4).hex())
        listener.listen(8)
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listener.getsockname())
                client.send(b"something")
        assert open_sockets([os.getpid()]) == before + 6
    assert open_sockets([os.getpid()]) == before


def test_only_records_about_descriptors_grow_with_what_is_watched(tmp_path: Path) -> None:
    """Many programs watch files, and keep such files as mountinfo open."""
    with ExitStack() as files:
        poll = files.enter_context(select.epoll())
        for _ in range(100):
            poll.register(files.enter_context(socket.socket()))
        before = memory_of_proc_files([os.getpid()])
        files.enter_context(open("/proc/self/mountinfo"))
        after = memory_of_proc_files([os.getpid()])
        files.enter_context(open(f"/proc/self/fdinfo/{poll.fileno()}"))
        assert after - before == 64 * 1024
        assert memory_of_proc_files([os.getpid()]) - after >= 100 * 200


def test_table_that_threads_share_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many containers do not let a process ask what threads share."""
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    try:
        known = memory_of_tables([os.getpid()])
        monkeypatch.setattr(open_descriptors, "share_descriptors", lambda *_: False)
        unknown = memory_of_tables([os.getpid()])
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert 0 < unknown == known

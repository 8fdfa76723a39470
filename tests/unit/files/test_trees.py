"""Sizes of folders that somebody has made hard to measure."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labrats.files import trees
from labrats.files.trees import ENTRY_BYTES, remove_tree, sizes_on_disk

MEBIBYTE = 2**20
ORDINARY_USER = 12345
"""A user who is not root: root can read any folder."""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "tree").mkdir()
    yield tmp_path / "tree"
    remove_tree(tmp_path / "tree")


@contextmanager
def an_ordinary_user(tree: Path) -> Iterator[None]:
    """Act as a user to whom the tree belongs."""
    if os.geteuid() != 0:
        yield
        return
    for folder in tree.parents:
        if not (mode := folder.stat().st_mode) & stat.S_IXGRP:  # pytest's own; the group remains root's
            folder.chmod(mode | stat.S_IXGRP)
    os.chown(tree, ORDINARY_USER, ORDINARY_USER)
    os.seteuid(ORDINARY_USER)
    try:
        yield
    finally:
        os.seteuid(0)


def fill(folder: int) -> None:
    """Write a mebibyte to a file in an open folder."""
    with os.fdopen(os.open("large", os.O_WRONLY | os.O_CREAT, dir_fd=folder), "wb") as file:
        file.write(os.urandom(MEBIBYTE))


def test_folders_that_no_path_can_name_are_measured(tree: Path) -> None:
    folder, name = os.open(tree, os.O_RDONLY), "n" * 200
    for _ in range(60):
        os.mkdir(name, dir_fd=folder)
        deeper = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    fill(folder)
    os.close(folder)
    before = len(os.listdir("/proc/self/fd"))

    assert sum(sizes_on_disk([tree])) >= MEBIBYTE
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("mode", [0o300, 0o400, 0o000], ids=oct)
def test_folders_without_the_owners_permissions_are_measured(tree: Path, mode: int) -> None:
    with an_ordinary_user(tree):
        (tree / "closed").mkdir()
        folder = os.open(tree / "closed", os.O_RDONLY)
        fill(folder)
        os.close(folder)
        (tree / "closed").chmod(mode)

        assert sum(sizes_on_disk([tree])) >= MEBIBYTE


def test_link_to_a_closed_folder_does_not_open_it(tree: Path, tmp_path: Path) -> None:
    with an_ordinary_user(tree):
        (tree / "closed").mkdir(mode=0)
        (tree / "link").symlink_to(tree / "closed")
        assert sum(sizes_on_disk([tree / "link"])) == 0
        assert (tree / "closed").stat().st_mode & 0o777 == 0


@pytest.fixture(params=["openat2", "older kernel"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a kernel without the system call be tested, too."""
    if request.param == "older kernel":
        monkeypatch.setattr("labrats.files.trees._OPENAT2", 4000)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("place", ["folder", "folder/deeper"])
def test_folder_that_becomes_a_link_leads_nowhere(tree: Path, tmp_path: Path, place: str) -> None:
    """An agent exchanges a folder for a link between its discovery and its measurement."""
    with an_ordinary_user(tree):
        outside = tree / "outside"
        (outside / "deeper" / "closed").mkdir(parents=True)
        (outside / "closed").mkdir(mode=0)
        for closed in (outside / "deeper" / "closed", outside / "closed"):
            closed.chmod(0)
        (tree / "measured" / place / "closed").mkdir(parents=True)
        sizes = sizes_on_disk([tree / "measured"])
        found = [next(sizes) for _ in place.split("/")]  # the folder is known, and its content is not
        (tree / "measured" / place).rename(tree / "gone")
        (tree / "measured" / place).symlink_to(outside / place.partition("/")[2])
        found += sizes
        modes = {path: path.stat().st_mode & 0o777 for path in (outside / "closed", outside / "deeper" / "closed")}
    assert len(found) == len(place.split("/"))
    assert set(modes.values()) == {0}


def test_empty_files_take_room(tree: Path) -> None:
    for number in range(256):
        (tree / str(number)).touch()
        (tree / f"link-{number}").symlink_to("nowhere")
    assert sum(sizes_on_disk([tree])) == 512 * ENTRY_BYTES


@pytest.mark.parametrize("many", [2, 1000])
def test_many_entries_are_deleted_by_a_program(tree: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """`shutil.rmtree` keeps the names of all entries of a folder in memory."""
    for name in ("a", "b", "c"):
        (tree / name).mkdir()
    removed: list[Path] = []
    rmtree = shutil.rmtree

    def noted(path: Path, *, ignore_errors: bool) -> None:
        removed.append(path)
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", noted)
    monkeypatch.setattr(trees, "_MANY_ENTRIES", many)
    remove_tree(tree)
    assert not tree.exists()
    assert removed == ([] if many == 2 else [tree])
    tree.mkdir()


MEASURE_DEEP = """
import os, resource, sys
from pathlib import Path
from labrats.files.trees import sizes_on_disk
os.chdir(sys.argv[1])
for level in range(1000):
    for number in range(3):
        os.mkdir(f"{level}-{number}")
    os.mkdir("x" * 250)
    os.chdir("x" * 250)
Path("file").write_bytes(bytes(4096))
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
print(sum(1 for _ in sizes_on_disk([Path(sys.argv[1])])))
"""


def test_folders_that_are_nested_more_deeply_than_files_can_be_open_count(tree: Path) -> None:
    """Otherwise, what an agent has below them would take no disk."""
    done = subprocess.run([sys.executable, "-c", MEASURE_DEEP, tree], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 4 * 1000 + 1


def test_programs_that_delete_and_open_folders_have_no_file_of_this_process(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any process of the user may open those of another one, such as the output of an executor."""
    folder = tree.parent / "bin"
    folder.mkdir()
    for name in ("rm", "chmod"):
        files = "/proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2"
        (folder / name).write_text(f"#!/bin/sh\nfound=$(readlink {files})\necho $found > {folder}/{name}.files\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(trees, "_MANY_ENTRIES", 0)
    remove_tree(tree)
    for name in ("rm", "chmod"):
        assert (folder / f"{name}.files").read_text().split() == ["/dev/null"] * 3

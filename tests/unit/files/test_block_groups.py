"""The placement of folders on an ext4 file system."""

import subprocess
from pathlib import Path

import pytest

from labrats.files.block_groups import spread_subfolders


def file_system(folder: Path) -> str:
    command = ["stat", "--file-system", "--format", "%T", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_subfolders_are_spread_on_ext4(tmp_path: Path) -> None:
    if file_system(tmp_path) != "ext2/ext3":  # as stat calls all of them
        pytest.skip("the temporary folder is not on ext4")
    folder = tmp_path / "new" / "attempts"
    for _ in range(2):
        spread_subfolders(folder)
        flags = subprocess.run(["lsattr", "-d", folder], capture_output=True, text=True, check=True).stdout.split()[0]
        assert "T" in flags
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_system_without_block_groups_is_no_error() -> None:
    folder = Path("/proc/self/fd")
    assert file_system(folder) == "proc"
    spread_subfolders(folder)


def test_a_folder_that_cannot_be_created_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spread_subfolders(tmp_path / "file" / "attempts")
    assert (tmp_path / "file").is_file()

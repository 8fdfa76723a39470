"""Files in folders that an agent can write to: no name or link leads outside, and nothing but regular files is read."""

import os
import socket
from pathlib import Path

import pytest

from labrats.files.safe_paths import NotRegularFile, read_regular_file, write_inside
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("untouched")
    return tmp_path / "root"


@pytest.mark.parametrize("name", ["a.txt", "a/b/c.txt", "..a", "a..b/c", "%2e%2e", "a b\nc", "ünïcode", "\\..\\a"])
def test_a_file_is_written_below_the_root(root: Path, name: str) -> None:
    write_inside(root, name, b"content")

    assert (root / name).read_bytes() == b"content"


def test_an_existing_file_is_replaced(root: Path) -> None:
    write_inside(root, "a.txt", b"a longer first content")
    write_inside(root, "a.txt", b"second")

    assert (root / "a.txt").read_bytes() == b"second"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "/etc/x", "../outside/file", "a/../../outside/file", "a//b", "a/", "./a", "a\0b", "a/."],
)
def test_a_name_that_leads_outside_the_root_is_refused(root: Path, name: str) -> None:
    with pytest.raises(GiveUp) as refused:
        write_inside(root, name, b"content")

    assert refused.value.code == FailedCode.WORKSPACE
    assert list(root.rglob("*")) == []
    assert (root.parent / "outside" / "file").read_text() == "untouched"


@pytest.mark.parametrize("name", ["link/file", "link/new", "file-link", "dangling", "folder/link/file"])
def test_no_link_is_followed(root: Path, name: str) -> None:
    outside = root.parent / "outside"
    (root / "folder").mkdir()
    (root / "link").symlink_to(outside)
    (root / "folder" / "link").symlink_to("../../outside")
    (root / "file-link").symlink_to(outside / "file")
    (root / "dangling").symlink_to(outside / "new")

    with pytest.raises(GiveUp) as refused:
        write_inside(root, name, b"content")

    assert refused.value.code == FailedCode.WORKSPACE
    assert [file.name for file in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "untouched"


def test_a_file_in_place_of_a_folder_is_a_clear_failure(root: Path) -> None:
    (root / "a").write_text("")

    with pytest.raises(GiveUp, match="'a/b' in the workspace: Not a directory"):
        write_inside(root, "a/b", b"content")


def a_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("of another user")
    path.symlink_to(target)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, a_link, a_socket])
def test_anything_but_a_regular_file_is_refused_at_once(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "claim")
    with pytest.raises(NotRegularFile):
        read_regular_file(tmp_path / "claim", 10)


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "claim").write_bytes(b"0123456789")
    assert read_regular_file(tmp_path / "claim", 100) == b"0123456789"
    assert read_regular_file(tmp_path / "claim", 4) == b"0123"


def test_a_missing_file_is_not_reported_as_irregular(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        read_regular_file(tmp_path / "claim", 10)
    assert not isinstance(raised.value, NotRegularFile)

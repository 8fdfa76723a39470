"""No name, and no link in the workspace, leads outside it."""

from pathlib import Path

import pytest

from labrats.files.safe_paths import write_beneath
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
    write_beneath(root, name, b"content")

    assert (root / name).read_bytes() == b"content"


def test_an_existing_file_is_replaced(root: Path) -> None:
    write_beneath(root, "a.txt", b"a longer first content")
    write_beneath(root, "a.txt", b"second")

    assert (root / "a.txt").read_bytes() == b"second"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "/etc/x", "../outside/file", "a/../../outside/file", "a//b", "a/", "./a", "a\0b", "a/."],
)
def test_a_name_that_is_no_plain_path_below_is_refused(root: Path, name: str) -> None:
    with pytest.raises(GiveUp) as refused:
        write_beneath(root, name, b"content")

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
        write_beneath(root, name, b"content")

    assert refused.value.code == FailedCode.WORKSPACE
    assert [file.name for file in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "untouched"


def test_a_file_in_the_way_is_a_clear_failure(root: Path) -> None:
    (root / "a").write_text("")

    with pytest.raises(GiveUp, match="'a/b' in the workspace: Not a directory"):
        write_beneath(root, "a/b", b"content")

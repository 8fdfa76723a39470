"""Files that came with jobs: kept whole, apart, and under names of our own."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labrats.files.attachments import Attachments
from labrats.model.errors import RetryLater


@pytest.fixture
def attachments(tmp_path: Path) -> Attachments:
    return Attachments(tmp_path / "uploads")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_files_are_kept_byte_for_byte(attachments: Attachments, tmp_path: Path) -> None:
    kept = await attachments.save("ir-00000001", [("a/b.txt", b"one"), ("empty", b"")])

    assert [(file.name, file.size, (tmp_path / "uploads" / file.path).read_bytes()) for file in kept] == [
        ("a/b.txt", 3, b"one"),
        ("empty", 0, b""),
    ]


async def test_no_name_of_a_caller_is_a_name_on_the_disk(attachments: Attachments, tmp_path: Path) -> None:
    await attachments.save("ir-00000001", [("../../escaped", b"one"), ("/etc/absolute", b"two")])

    assert sorted(contents(tmp_path).values()) == [b"one", b"two"]
    assert not [path for path in contents(tmp_path) if "escaped" in path or "absolute" in path]
    assert all(path.startswith("uploads/jobs/ir-00000001-") for path in contents(tmp_path))


async def test_nobody_else_can_read_them(attachments: Attachments, tmp_path: Path) -> None:
    (file,) = await attachments.save("ir-00000001", [("a", b"one")])

    assert (tmp_path / "uploads" / file.path).parent.stat().st_mode & 0o077 == 0


async def test_two_tries_under_one_name_keep_apart(attachments: Attachments, tmp_path: Path) -> None:
    first = await attachments.save("ir-00000001", [("a", b"first")])
    second = await attachments.save("ir-00000001", [("a", b"second")])

    await attachments.remove(second)

    assert list(contents(tmp_path).values()) == [b"first"]
    await attachments.remove(first)
    await attachments.remove(first)  # again, which does no harm
    assert contents(tmp_path) == {}


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a disk that becomes full: to write more fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_cannot_be_stored_whole_leaves_nothing_and_may_be_tried_later(
    attachments: Attachments, tmp_path: Path
) -> None:
    files = [("a", b"one"), ("b", b"x" * 100_000)]

    with no_file_larger_than(50_000), pytest.raises(RetryLater):
        await attachments.save("ir-00000001", files)

    assert contents(tmp_path) == {}
    assert len(await attachments.save("ir-00000001", files)) == 2

"""Files that come with jobs: stored completely, separately, and under the engine's own names."""

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


async def test_files_are_stored_unchanged(attachments: Attachments, tmp_path: Path) -> None:
    kept = await attachments.save("ir-00000001", [("a/b.txt", b"one"), ("empty", b"")])

    assert [(file.name, file.size, (tmp_path / "uploads" / file.path).read_bytes()) for file in kept] == [
        ("a/b.txt", 3, b"one"),
        ("empty", 0, b""),
    ]


async def test_names_from_callers_are_never_used_on_disk(attachments: Attachments, tmp_path: Path) -> None:
    await attachments.save("ir-00000001", [("../../escaped", b"one"), ("/etc/absolute", b"two")])

    assert sorted(contents(tmp_path).values()) == [b"one", b"two"]
    assert not [path for path in contents(tmp_path) if "escaped" in path or "absolute" in path]
    assert all(path.startswith("uploads/jobs/ir-00000001-") for path in contents(tmp_path))


async def test_the_folder_of_files_is_readable_by_its_owner_only(attachments: Attachments, tmp_path: Path) -> None:
    (file,) = await attachments.save("ir-00000001", [("a", b"one")])

    assert (tmp_path / "uploads" / file.path).parent.stat().st_mode & 0o077 == 0


async def test_two_saves_for_the_same_job_name_are_independent(attachments: Attachments, tmp_path: Path) -> None:
    first = await attachments.save("ir-00000001", [("a", b"first")])
    second = await attachments.save("ir-00000001", [("a", b"second")])

    await attachments.remove("ir-00000001", second)

    assert list(contents(tmp_path).values()) == [b"first"]
    await attachments.remove("ir-00000001", first)
    await attachments.remove("ir-00000001", first)  # a second call has no effect
    assert contents(tmp_path) == {}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let longer writes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_failed_save_leaves_nothing_and_can_be_repeated(attachments: Attachments, tmp_path: Path) -> None:
    files = [("a", b"one"), ("b", b"x" * 100_000)]

    with file_size_limit(50_000), pytest.raises(RetryLater):
        await attachments.save("ir-00000001", files)

    assert contents(tmp_path) == {}
    assert len(await attachments.save("ir-00000001", files)) == 2

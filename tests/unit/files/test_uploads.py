"""Uploads on their volume: complete or absent, and each under a generated id."""

import hashlib
import os
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labrats.files.uploads import META_FILE, Upload, Uploads, new_upload_id
from labrats.model.errors import Conflict, NotFound, RetryLater

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "volume" / "uploads")


async def add(uploads: Uploads, name: str = "a.txt", *pieces: bytes, upload_id: str | None = None) -> Upload:
    async with uploads.incoming() as incoming:
        for piece in pieces:
            await incoming.write(piece)
        return await uploads.add(incoming, upload_id or new_upload_id(), name, "ci", NOON)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_an_upload_is_stored_unchanged_under_its_id_and_name(uploads: Uploads, tmp_path: Path) -> None:
    upload = await add(uploads, "ü 📄.csv", b"one", b"", b"two")

    assert (tmp_path / "volume" / "uploads" / upload.id / "ü 📄.csv").read_bytes() == b"onetwo"
    assert (upload.size, upload.sha256, upload.owner) == (6, hashlib.sha256(b"onetwo").hexdigest(), "ci")


async def test_every_engine_on_the_volume_lists_an_upload(uploads: Uploads, tmp_path: Path) -> None:
    upload = await add(uploads, "a.txt", b"one")

    other = Uploads(tmp_path / "volume" / "uploads")

    assert await other.get(upload.id) == upload
    assert await other.list_all() == [upload]


async def test_the_name_on_the_volume_can_be_fixed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", stored_as="document.pdf")

    upload = await add(uploads, "../../escaped.pdf", b"one")

    assert upload.name == "../../escaped.pdf"
    assert files_in(tmp_path) == {f"uploads/{upload.id}/document.pdf", f"uploads/{upload.id}/{META_FILE}"}


async def test_an_abandoned_upload_leaves_nothing_behind(uploads: Uploads, tmp_path: Path) -> None:
    async with uploads.incoming() as incoming:
        await incoming.write(b"half")

    assert files_in(tmp_path) == set()
    assert await uploads.list_all() == []


async def test_an_arriving_upload_is_not_listed(uploads: Uploads) -> None:
    async with uploads.incoming() as incoming:
        await incoming.write(b"half")
        assert await uploads.list_all() == []


async def test_a_second_upload_with_the_same_id_is_a_conflict(uploads: Uploads) -> None:
    first = await add(uploads, "a.txt", b"first")

    with pytest.raises(Conflict):
        await add(uploads, "a.txt", b"second", upload_id=first.id)
    assert uploads.path(first).read_bytes() == b"first"


async def test_a_removed_upload_is_gone(uploads: Uploads, tmp_path: Path) -> None:
    upload = await add(uploads, "a.txt", b"one")

    await uploads.remove(upload.id)

    assert files_in(tmp_path) == set()
    for use in (uploads.get, uploads.remove):
        with pytest.raises(NotFound):
            await use(upload.id)


@pytest.mark.parametrize(
    "upload_id", ["", ".", "..", "../uploads", "jobs", ".incoming", "up-0", "up-" + "0" * 16, "a\0b"]
)
async def test_an_invalid_id_finds_nothing(uploads: Uploads, tmp_path: Path, upload_id: str) -> None:
    present = await add(uploads, "a.txt", b"one")
    (tmp_path / "volume" / "uploads" / "jobs").mkdir()

    for use in (uploads.get, uploads.remove):
        with pytest.raises(NotFound):
            await use(upload_id)
    assert await uploads.list_all() == [present]


async def test_uploads_of_a_dead_engine_are_deleted_once_old(uploads: Uploads, tmp_path: Path) -> None:
    left, recent = (tmp_path / "volume" / "uploads" / ".incoming" / name for name in ("left", "recent"))
    for folder in (left, recent):
        folder.mkdir(parents=True)
        (folder / "content").write_bytes(b"half")
    for path in (left / "content", left):
        os.utime(path, (0, 0))

    await add(uploads)

    assert (left.exists(), recent.exists()) == (False, True)


@pytest.mark.parametrize(("room", "pieces"), [(50_000, (40_000, 40_000)), (10, (100,))])
async def test_a_full_disk_is_retried_later_and_leaves_nothing(
    uploads: Uploads, tmp_path: Path, room: int, pieces: tuple[int, ...]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(RetryLater):
            await add(uploads, "a.txt", *(b"x" * size for size in pieces))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert files_in(tmp_path) == set()
    assert (await add(uploads, "a.txt", b"x" * 80_000)).size == 80_000


async def test_the_newest_upload_is_listed_first(uploads: Uploads) -> None:
    async with uploads.incoming() as incoming:
        late = await uploads.add(incoming, new_upload_id(), "b", "ci", NOON.replace(hour=13))
    early = await add(uploads, "a")

    assert await uploads.list_all() == [late, early]


async def test_uploads_leave_space_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1
    uploads = Uploads(tmp_path / "uploads", free_bytes=lambda folder: free if folder.is_dir() else 0)
    monkeypatch.setattr("labrats.files.uploads._LOOK_BYTES", 100)
    stored = await add(uploads, "a.txt", b"x" * 250)

    async with uploads.incoming() as incoming:
        await incoming.write(b"x" * 60)
        free = 0
        await incoming.write(b"x" * 30)  # too little for another look
        with pytest.raises(RetryLater, match="is nearly full"):
            await incoming.write(b"x" * 30)
    with pytest.raises(RetryLater, match="is nearly full"):
        await add(uploads, "b.txt")

    assert await uploads.list_all() == [stored]
    assert files_in(tmp_path) == {f"uploads/{stored.id}/a.txt", f"uploads/{stored.id}/{META_FILE}"}


async def test_a_file_of_another_program_or_a_damaged_record_keeps_no_upload(uploads: Uploads, tmp_path: Path) -> None:
    damaged, healthy = await add(uploads), await add(uploads)
    (tmp_path / "volume" / "uploads" / damaged.id / META_FILE).write_bytes(b"\xff")
    (tmp_path / "volume" / "uploads" / ".incoming" / ".DS_Store").touch()
    added = await add(uploads)
    assert {upload.id for upload in await uploads.list_all()} == {healthy.id, added.id}
    with pytest.raises(NotFound):
        await uploads.get(damaged.id)

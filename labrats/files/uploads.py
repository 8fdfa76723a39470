"""The files that callers upload before a job uses them, each in a folder of its own under a generated id.

The name and owner of an upload are stored beside its content, so that every engine on the volume knows them.
"""

import asyncio
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar

import msgspec
import structlog

from labrats.files.durability import sync
from labrats.model.errors import Conflict, NotFound, RetryLater
from labrats.model.job import UPLOAD_ID
from labrats.model.record import Record, encode
from labrats.model.sizes import shown_size

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

META_FILE: Final = ".labrats-upload.json"
"""The name of the metadata file of an upload. No upload can have this name."""

_INCOMING: Final = ".incoming"
_CONTENT: Final = "content"
_ID: Final = re.compile(UPLOAD_ID)
_ABANDONED_SECONDS: Final = 24 * 3600.0
"""The age at which an unfinished upload is deleted: its engine has died."""

_FULL_SECONDS: Final = 60
"""Pause that callers are asked for on a nearly full disk."""

_LOOK_BYTES: Final = 16 * 2**20
"""Bytes of an upload between two looks at the free space."""


def new_upload_id() -> str:
    """Return an unguessable id for an upload."""
    return f"up-{secrets.token_hex(8)}"


class Upload(Record):
    """An uploaded file. `name` is the caller's name for it, `file` its name on the volume."""

    id: str
    name: str
    file: str
    size: int
    sha256: str
    owner: str
    created_at: datetime

    @property
    def path(self) -> str:
        """The path of the content, relative to the folder of uploads."""
        return f"{self.id}/{self.file}"


class IncomingUpload:
    """An upload that is still arriving. It is invisible until it is added to the uploads."""

    def __init__(self, folder: Path, file: BinaryIO, check_space: Callable[[], None]) -> None:
        self.folder, self._file, self._check_space = folder, file, check_space
        self._sha256, self.size = hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    async def write(self, data: bytes) -> None:
        """Append data. Raises RetryLater."""
        await _on_disk(self._write, data)

    def _write(self, data: bytes) -> None:
        if self.size // _LOOK_BYTES < (self.size + len(data)) // _LOOK_BYTES:
            self._check_space()
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)

    def finish(self, upload_id: str, name: str, file: str, owner: str, now: datetime) -> Upload:
        """Rename the file and write its metadata, both to stable storage."""
        upload = Upload(
            id=upload_id,
            name=name,
            file=file,
            size=self.size,
            sha256=self.sha256,
            owner=owner,
            created_at=now,
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        os.rename(self.folder / _CONTENT, self.folder / file)
        with open(self.folder / META_FILE, "xb") as meta:
            meta.write(encode(upload))
            meta.flush()
            os.fsync(meta.fileno())
        sync(self.folder)
        return upload


class Uploads:
    """The uploads in one folder, which several engines may share."""

    def __init__(
        self, root: Path, *, stored_as: str | None = None, free_bytes: Callable[[Path], int] | None = None
    ) -> None:
        """Describe the folder.

        stored_as: the name of every upload on the volume; by default, the caller's name.
        free_bytes: returns how many bytes uploads may still use of the volume with a folder. By default, all of them.
        """
        self._root, self._stored_as, self._free_bytes = root, stored_as, free_bytes

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[IncomingUpload]:
        """Receive an upload. Unless it is added within the block, it is deleted.

        Raises RetryLater, also when the volume is nearly full: the outputs of jobs would be deleted for the upload.
        """
        folder = await _on_disk(self._begin)
        try:
            file = await _on_disk(open, folder / _CONTENT, "xb")
            try:
                yield IncomingUpload(folder, file, self._check_space)
            finally:
                with suppress(OSError):  # of a full disk: the rest of an upload that is deleted
                    file.close()
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def add(self, incoming: IncomingUpload, upload_id: str, name: str, owner: str, now: datetime) -> Upload:
        """Add an upload, on stable storage when this returns. Raises Conflict when the id is taken, RetryLater.

        name: a valid file name without a folder.
        """
        return await _on_disk(self._add, incoming, upload_id, name, owner, now)

    async def list_all(self) -> list[Upload]:
        """Return all uploads, newest first. Raises RetryLater."""
        return await _on_disk(self._list_all)

    async def get(self, upload_id: str) -> Upload:
        """Return an upload. Raises NotFound, RetryLater."""
        if (upload := await _on_disk(self._read, upload_id)) is None:
            raise NotFound(f"there is no upload {upload_id!r}")
        return upload

    async def remove(self, upload_id: str) -> None:
        """Delete an upload. Jobs that use it have links of their own to its content. Raises NotFound, RetryLater."""
        await self.get(upload_id)
        await _on_disk(self._remove, upload_id)

    def path(self, upload: Upload) -> Path:
        return self._root / upload.path

    def _begin(self) -> Path:
        parent = self._root / _INCOMING
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(parent)
        self._check_space()
        folder = parent / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        return folder

    def _check_space(self) -> None:
        if self._free_bytes and self._free_bytes(self._root) <= 0:
            free = shown_size(shutil.disk_usage(self._root).free)
            advice = "delete uploads, or ask an administrator for space"
            raise RetryLater(f"the disk with {self._root} is nearly full ({free} free): {advice}", _FULL_SECONDS)

    def _add(self, incoming: IncomingUpload, upload_id: str, name: str, owner: str, now: datetime) -> Upload:
        upload = incoming.finish(upload_id, name, self._stored_as or name, owner, now)
        try:
            os.rename(incoming.folder, self._root / upload_id)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise Conflict(f"the upload {upload_id!r} exists already") from error
        for folder in (self._root, *list(self._root.parents)[:2]):  # they may be new, too
            sync(folder)
        return upload

    def _list_all(self) -> list[Upload]:
        try:
            names = [entry.name for entry in os.scandir(self._root)]
        except FileNotFoundError:
            return []
        found = [upload for name in names if (upload := self._read(name))]
        return sorted(found, key=lambda upload: (upload.created_at, upload.id), reverse=True)

    def _read(self, upload_id: str) -> Upload | None:
        if not _ID.fullmatch(upload_id):
            return None
        try:
            return msgspec.json.decode((self._root / upload_id / META_FILE).read_bytes(), type=Upload)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("upload unreadable", upload=upload_id, reason=str(error))
            return None

    def _remove(self, upload_id: str) -> None:
        trash = self._root / _INCOMING / f"{upload_id}-{secrets.token_hex(4)}"
        trash.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            os.rename(self._root / upload_id, trash)  # atomic: after a crash the remains are deleted as abandoned
        except FileNotFoundError as error:
            raise NotFound(f"there is no upload {upload_id!r}") from error
        sync(self._root)
        shutil.rmtree(trash, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.iterdir():
        with suppress(OSError):  # it has just been added or deleted, or is another program's file
            last_written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if last_written < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


async def _on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise RetryLater(f"the uploads folder cannot be used: {error.strerror}", delay_seconds=5) from error

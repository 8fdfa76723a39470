"""Files that callers upload before a job uses them: each in a folder of its own, under an id of ours.

What an upload is called and whose it is lies beside its bytes, so that every engine on the volume knows it.
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

from labrats.files.durability import sync
from labrats.model.errors import Conflict, NotFound, RetryLater
from labrats.model.record import Record, encode

P = ParamSpec("P")
T = TypeVar("T")

META_FILE: Final = ".labrats-upload.json"
"""The one name that no upload can have: what is known of it lies there."""

_INCOMING: Final = ".incoming"
_CONTENT: Final = "content"
_ID: Final = re.compile(r"up-[0-9a-f]{16}")
_ABANDONED_SECONDS: Final = 24 * 3600.0
"""An upload that has not been written to for as long belongs to nobody: its engine died."""


def fresh_upload_id() -> str:
    """An id that nobody can guess."""
    return f"up-{secrets.token_hex(8)}"


class Upload(Record):
    """A file that was uploaded. `name` is what its owner calls it, `file` what it is called on the volume."""

    id: str
    name: str
    file: str
    size: int
    sha256: str
    owner: str
    created_at: datetime

    @property
    def path(self) -> str:
        """Where its bytes are, below the folder of all uploads."""
        return f"{self.id}/{self.file}"


class Incoming:
    """An upload on its way. Nobody sees it before it is kept."""

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        self.folder, self._file = folder, file
        self._sha256, self.size = hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    async def write(self, data: bytes) -> None:
        """Add to it. Raises RetryLater."""
        await _on_disk(self._write, data)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)

    def finish(self, upload_id: str, name: str, file: str, owner: str, now: datetime) -> Upload:
        """Give it its name, and write down what it is, onto stable storage."""
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
    """Keeps uploads in one folder, which several engines may share."""

    def __init__(self, root: Path, *, stored_as: str | None = None) -> None:
        """stored_as: what every upload is called on the volume; by default, each as its owner calls it."""
        self._root, self._stored_as = root, stored_as

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[Incoming]:
        """A place for an upload while it arrives. Unless it is kept, nothing of it is left. Raises RetryLater."""
        folder = await _on_disk(self._begin)
        try:
            with open(folder / _CONTENT, "xb") as file:
                yield Incoming(folder, file)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def keep(self, incoming: Incoming, upload_id: str, name: str, owner: str, now: datetime) -> Upload:
        """Make it an upload, on stable storage when it returns. Raises Conflict when the id is taken, RetryLater.

        name: a name that a file may have in a folder.
        """
        return await _on_disk(self._keep, incoming, upload_id, name, owner, now)

    async def every(self) -> list[Upload]:
        """All of them, the newest first. Raises RetryLater."""
        return await _on_disk(self._every)

    async def get(self, upload_id: str) -> Upload:
        """Raises NotFound, RetryLater."""
        if (upload := await _on_disk(self._read, upload_id)) is None:
            raise NotFound(f"there is no upload {upload_id!r}")
        return upload

    async def remove(self, upload_id: str) -> None:
        """Forget it; the jobs that were given it have links of their own. Raises NotFound, RetryLater."""
        await self.get(upload_id)
        await _on_disk(self._remove, upload_id)

    def path(self, upload: Upload) -> Path:
        return self._root / upload.path

    def _begin(self) -> Path:
        place = self._root / _INCOMING
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(place)
        folder = place / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        return folder

    def _keep(self, incoming: Incoming, upload_id: str, name: str, owner: str, now: datetime) -> Upload:
        upload = incoming.finish(upload_id, name, self._stored_as or name, owner, now)
        try:
            os.rename(incoming.folder, self._root / upload_id)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise Conflict(f"there is an upload {upload_id!r} already") from error
        for folder in (self._root, *list(self._root.parents)[:2]):  # they may be new too
            sync(folder)
        return upload

    def _every(self) -> list[Upload]:
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

    def _remove(self, upload_id: str) -> None:
        grave = self._root / _INCOMING / f"{upload_id}-{secrets.token_hex(4)}"
        grave.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            os.rename(self._root / upload_id, grave)  # at once, and for good: what a crash leaves of it is swept later
        except FileNotFoundError as error:
            raise NotFound(f"there is no upload {upload_id!r}") from error
        sync(self._root)
        shutil.rmtree(grave, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    for folder in place.iterdir():
        with suppress(FileNotFoundError):  # it has just been kept, or removed
            last_written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if last_written < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


async def _on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise RetryLater(f"the folder of uploads cannot be used: {error.strerror}", delay_seconds=5) from error

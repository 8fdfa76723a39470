"""Downloads, finds and deletes weights in the folder of models: the work itself, wherever it runs.

A file is on its way in a hidden one beside it, and gets its name when it is whole and checked. How much of it is on
stable storage, and which version of it, is written down there too, so that a download that was killed goes on.
"""

import asyncio
import errno
import hashlib
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import IO, Final
from urllib.parse import urlsplit

import msgspec

from labrats.files.durability import replace_file, sync
from labrats.model.config import LOCAL_PROVIDERS
from labrats.model.errors import LabratsError
from labrats.model.model_files import FileOperation, FoundFile, Refused, Work, check_head, check_kind, check_place
from labrats.model.record import Record, encode
from labrats.net.address_policy import Unresolvable
from labrats.net.client import Answer, OutboundClient, Unreachable
from labrats.settings import EngineSettings

Log = Callable[[str], None]
"""Told what happens, a line at a time, in words for people."""

BLOCK_BYTES: Final = 2**20
CHECKPOINT_BYTES: Final = 16 * BLOCK_BYTES
CHECKPOINT_SECONDS: Final = 2.0
"""How often what has come is brought to stable storage: after a kill, as much may have to come once more."""

BLOCK_SECONDS: Final = 60.0
"""How long a block may take to come. Who sends more slowly keeps an operation busy for days."""

REDIRECTS: Final = 5
"""Hubs send to where their files really are; each address on the way is judged."""

RETRY_SECONDS: Final = (1.0, 5.0, 15.0, 30.0)
"""Waits between one failure of the network and the next try, as long as nothing new comes in between."""

_PART: Final = re.compile(r"\.(?P<filename>.+)\.part")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)")


class Interrupted(LabratsError):
    """The network failed, or the hub did: it may pass."""


class Progress(Record):
    """What lies beside a file on its way: `synced` bytes of the version `etag` of what is at `url` are safe.

    size: of the whole file, where it was said.
    """

    url: str
    etag: str = ""
    size: int | None = None
    synced: int = 0


class ModelFolder:
    """The files of local models, each in the folder of its provider."""

    def __init__(
        self,
        root: Path,
        client: OutboundClient,
        max_bytes: int,
        *,
        block_seconds: float = BLOCK_SECONDS,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
    ) -> None:
        """max_bytes: the largest file that is taken."""
        self.root = root
        self._client, self._max_bytes = client, max_bytes
        self._block_seconds, self._checkpoint_seconds = block_seconds, checkpoint_seconds
        self._retry_seconds = retry_seconds

    async def carry_out(self, operation: FileOperation, log: Log) -> None:
        """Do it, or as much of it as is still to be done. One at a time for a file.

        Raises Refused, and Interrupted and OSError, after which it can be tried again.
        """
        check_place(operation.provider, operation.filename)
        if operation.work is Work.DELETE:
            await asyncio.to_thread(self._delete, operation)
            log(f"{operation.filename} is deleted")
        else:
            check_kind(operation.filename)
            await self._download(operation, log)

    def scan(self) -> list[FoundFile]:
        """What there is, by provider and name. Raises OSError."""
        return [found for provider in LOCAL_PROVIDERS for found in _scan(self.root / provider, provider)]

    def _delete(self, operation: FileOperation) -> None:
        folder = self.root / operation.provider
        part = Part(folder, operation.filename)
        for path in (folder / operation.filename, part.path, part.note):
            path.unlink(missing_ok=True)
        if folder.exists():
            sync(folder)

    async def _download(self, operation: FileOperation, log: Log) -> None:
        if await asyncio.to_thread(self._has, operation):
            log(f"{operation.filename} is there already, and is what it should be")
            return
        part = await asyncio.to_thread(Part.in_folder, self.root / operation.provider, operation.filename)
        try:
            await self._receive_insistently(operation, part, log)
            found = await asyncio.to_thread(part.keep, operation.sha256, log)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                part.remove()  # others need the room
                raise Refused("the volume of models is full; what had come of the file is deleted") from error
            raise
        except Refused:
            part.remove()
            raise
        log(f"{operation.filename} is there; its SHA-256 is {found}")

    def _has(self, operation: FileOperation) -> bool:
        if operation.sha256 is None:
            return False
        try:
            with open(self.root / operation.provider / operation.filename, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == operation.sha256
        except FileNotFoundError:
            return False

    async def _receive_insistently(self, operation: FileOperation, part: "Part", log: Log) -> None:
        failures = 0
        while True:
            had = part.progress(operation.url).synced
            try:
                await self._receive(operation.url, part, log)
                return
            except (Interrupted, Unreachable, Unresolvable) as error:
                failures = failures + 1 if part.progress(operation.url).synced == had else 1
                if failures > len(self._retry_seconds):
                    raise Interrupted(f"{error}, {failures} times in a row") from error
                log(f"{error}; trying again in {self._retry_seconds[failures - 1]:g} s")
                await asyncio.sleep(self._retry_seconds[failures - 1])

    async def _receive(self, url: str, part: "Part", log: Log) -> None:
        """Have all of the file in `part`, beginning with what is missing."""
        had = part.progress(url)
        if had.synced == had.size:
            return
        resuming = {"range": f"bytes={had.synced}-", "if-range": had.etag} if had.synced else {}
        log(f"asking {urlsplit(url).hostname}" + (f" for what follows {megabytes(had.synced)}" if had.synced else ""))
        async with self._client.send(
            "GET", url, headers=resuming, redirects=REDIRECTS, idle_seconds=self._block_seconds
        ) as answer:
            if answer.status == 416:
                part.note.unlink()
                raise Interrupted("the file has become shorter")
            start = _begins_at(answer, had.synced)
            size = self._checked_size(answer, start, part.folder)
            progress = Progress(url=url, etag=answer.headers.get("etag", ""), size=size, synced=start)
            async with aclosing(_blocks(answer.body, self._block_seconds)) as blocks:
                await self._write(blocks, part, progress, log)

    async def _write(self, blocks: AsyncIterator[bytes], part: "Part", progress: Progress, log: Log) -> None:
        of_all = "" if progress.size is None else f" of {megabytes(progress.size)}"
        written, synced_at = progress.synced, monotonic()
        with open(part.path, "r+b") as file:
            file.truncate(written)
            file.seek(written)
            await asyncio.to_thread(part.checkpoint, file, progress)
            try:
                async for block in blocks:
                    if written + len(block) > self._max_bytes:
                        raise Refused(f"the file is larger than {megabytes(self._max_bytes)}, the most that is taken")
                    await asyncio.to_thread(file.write, block)
                    written += len(block)
                    is_due = monotonic() - synced_at >= self._checkpoint_seconds
                    if is_due or written - progress.synced >= CHECKPOINT_BYTES:
                        progress, synced_at = msgspec.structs.replace(progress, synced=written), monotonic()
                        await asyncio.to_thread(part.checkpoint, file, progress)
                        log(f"{megabytes(written)}{of_all}")
            finally:  # also where it breaks off: what has come need not come again
                await asyncio.to_thread(part.checkpoint, file, msgspec.structs.replace(progress, synced=written))

    def _checked_size(self, answer: Answer, start: int, folder: Path) -> int | None:
        """How large the whole file will be, if that is said. Raises Refused where it must not or cannot be."""
        length = answer.headers.get("content-length", "")
        if not _LENGTH.fullmatch(length):
            return None
        if (size := start + int(length)) > self._max_bytes:
            raise Refused(f"the file has {megabytes(size)}, and at most {megabytes(self._max_bytes)} are taken")
        if int(length) > (free := shutil.disk_usage(folder).free):
            raise Refused(f"{megabytes(int(length))} are to come, and the volume of models has {megabytes(free)} left")
        return size


def model_folder(settings: EngineSettings) -> ModelFolder:
    """The folder of models that the settings name."""
    client = OutboundClient(settings.outbound_allowed_cidrs)
    return ModelFolder(settings.models, client, settings.max_model_file_bytes)


class Part:
    """A file on its way, and the note of how far it is."""

    def __init__(self, folder: Path, filename: str) -> None:
        self.folder, self.filename = folder, filename
        self.path, self.note = folder / f".{filename}.part", folder / f".{filename}.progress"

    @classmethod
    def in_folder(cls, folder: Path, filename: str) -> "Part":
        """The one there is, or a new one."""
        folder.mkdir(parents=True, exist_ok=True)
        part = cls(folder, filename)
        part.path.touch()
        return part

    def progress(self, url: str) -> Progress:
        """How much is there of what is at `url`, if it can be gone on with."""
        nothing = Progress(url=url)
        try:
            known = msgspec.json.decode(self.note.read_bytes(), type=Progress)
        except (FileNotFoundError, msgspec.DecodeError):
            return nothing
        is_sure = known.etag.startswith('"')  # a weak ETag says that two versions mean the same, not that they are
        is_there = known.synced <= self.path.stat().st_size
        return known if known.url == url and is_sure and is_there else nothing

    def checkpoint(self, file: IO[bytes], progress: Progress) -> None:
        """Bring what was written to stable storage, and then the note of it."""
        file.flush()
        os.fsync(file.fileno())
        replace_file(self.note, encode(progress))

    def keep(self, sha256: str | None, log: Log) -> str:
        """Give the file its name, and return its SHA-256. Raises Refused unless it is what it should be."""
        with open(self.path, "rb") as file:
            if doubt := check_head(self.filename, file.read(32)):
                log(doubt)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 and found != sha256:
            raise Refused(f"the file's SHA-256 is {found}, and should be {sha256}; it is deleted")
        self.path.rename(self.folder / self.filename)
        sync(self.folder)
        self.note.unlink(missing_ok=True)
        return found

    def remove(self) -> None:
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)


def _scan(folder: Path, provider: str) -> list[FoundFile]:
    found = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    for entry in entries:
        if not entry.is_file(follow_symlinks=False):
            continue
        size = entry.stat(follow_symlinks=False).st_size
        if part := _PART.fullmatch(entry.name):
            found.append(FoundFile(provider=provider, filename=part["filename"], size=size, is_whole=False))
        elif not entry.name.startswith("."):
            found.append(FoundFile(provider=provider, filename=entry.name, size=size))
    return found


def _begins_at(answer: Answer, asked: int) -> int:
    """Where in the file the answer's body begins. Raises Refused and Interrupted where it is no part of a file."""
    if answer.status == 200:
        return 0
    if answer.status == 206:
        begun = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        if begun and int(begun[1]) == asked:
            return asked
        raise Refused("the hub sent another part of the file than was asked for")
    if answer.status in (408, 429) or answer.status >= 500:
        raise Interrupted(f"the hub answered {answer.status}")
    raise Refused(f"the hub answered {answer.status}")


async def _blocks(body: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes]:
    """The body in blocks of one size, the last one apart. Raises Interrupted when one takes longer than `seconds`.

    Where the body breaks off, what had come is yielded before that is raised.
    """
    block = bytearray()
    ended = False
    failure: Interrupted | Unreachable | None = None
    while not ended:
        try:
            async with asyncio.timeout(seconds):
                while len(block) < BLOCK_BYTES:
                    block += await anext(body)
        except StopAsyncIteration:
            ended = True
        except TimeoutError:
            ended, failure = True, Interrupted(f"the hub sent less than 1 MiB in {seconds:g} s")
        except Unreachable as error:
            ended, failure = True, error
        if block:
            yield bytes(block)
            block.clear()
    if failure:
        raise failure


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"

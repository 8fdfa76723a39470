"""The folder of local models, with downloads and deletions, for the engine's process and for pods.

A download goes to a hidden file, which is renamed once it is complete and verified. Beside it lies a record of the
version and of how many bytes are on stable storage, so that the next process can resume a killed download.
"""

import asyncio
import errno
import hashlib
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import IO, Final
from urllib.parse import urlsplit

import msgspec

from labrats.files.durability import replace_file, sync
from labrats.model.errors import LabratsError
from labrats.model.model_files import (
    DownloadProgress,
    FileOperation,
    FoundFile,
    ModelFileError,
    OperationType,
    check_content,
    check_file_name,
    check_file_type,
)
from labrats.model.provider_spec import LOCAL_PROVIDERS
from labrats.model.record import Record, encode
from labrats.net.address_policy import Unresolvable
from labrats.net.client import OutboundClient, Response, Unreachable
from labrats.settings import EngineSettings

Log = Callable[[str], None]
"""A function that takes one line of an operation's log, for people."""

BLOCK_BYTES: Final = 2**20
CHECKPOINT_BYTES: Final = 16 * BLOCK_BYTES
CHECKPOINT_SECONDS: Final = 2.0
"""Limits on the data between two checkpoints: a killed download loses at most the data since the last one."""

BLOCK_SECONDS: Final = 60.0
"""Timeout for each block: a slower hub would keep a download busy for days."""

REDIRECTS: Final = 5
"""Maximum number of redirects: hubs redirect to a storage host. The address policy applies to each address."""

RETRY_SECONDS: Final = (1.0, 5.0, 15.0, 30.0)
"""Pauses between consecutive network failures. New data starts the sequence from its beginning."""

_PART: Final = re.compile(r"\.(?P<filename>.+)\.part")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_PROGRESS_LINE: Final = re.compile(r"Z ([0-9]+\.[0-9]) MiB(?: of ([0-9]+\.[0-9]) MiB)?$")
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)")


class DownloadInterrupted(LabratsError):
    """The network or the hub failed. A retry may succeed."""


class Progress(Record):
    """The record beside a download: `synced` bytes of the version `etag` of `url` are on stable storage.

    size: of the complete file, if the hub sent it.
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
        """max_bytes: the limit on the size of a file."""
        self.root = root
        self._client, self._max_bytes = client, max_bytes
        self._block_seconds, self._checkpoint_seconds = block_seconds, checkpoint_seconds
        self._retry_seconds = retry_seconds

    async def carry_out(self, operation: FileOperation, log: Log) -> None:
        """Carry out the operation, or continue an interrupted one. The caller runs at most one per file at a time.

        Raises ModelFileError when it can never succeed, DownloadInterrupted or OSError when a retry may.
        """
        check_file_name(operation.provider, operation.filename)
        if operation.work is OperationType.DELETE:
            await asyncio.to_thread(self._delete, operation)
            log(f"{operation.filename} deleted")
        else:
            check_file_type(operation.filename)
            await self._download(operation, log)

    def scan(self) -> list[FoundFile]:
        """Return the files in the folder, by provider and name. Raises OSError."""
        return [found for provider in LOCAL_PROVIDERS for found in _scan(self.root / provider, provider)]

    def progress_of(self, operation: FileOperation) -> DownloadProgress | None:
        """Return the progress of a download; None if it has received nothing. Raises OSError."""
        part = PartialFile(self.root / operation.provider, operation.filename)
        try:
            known = msgspec.json.decode(part.note.read_bytes(), type=Progress)
            received = part.path.stat().st_size
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return None
        return DownloadProgress(received_bytes=received, total_bytes=known.size)

    def _delete(self, operation: FileOperation) -> None:
        folder = self.root / operation.provider
        part = PartialFile(folder, operation.filename)
        for path in (folder / operation.filename, part.path, part.note):
            path.unlink(missing_ok=True)
        if folder.exists():
            sync(folder)

    async def _download(self, operation: FileOperation, log: Log) -> None:
        if await asyncio.to_thread(self._is_downloaded, operation):
            log(f"{operation.filename} already downloaded with the expected SHA-256")
            return
        part = await asyncio.to_thread(PartialFile.in_folder, self.root / operation.provider, operation.filename)
        try:
            await self._receive_with_retries(operation, part, log)
            found = await asyncio.to_thread(part.complete, operation.sha256, log)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                part.remove()  # frees the space for other files
                raise ModelFileError("the models volume is full; the partial file was deleted") from error
            raise
        except ModelFileError:
            part.remove()
            raise
        log(f"{operation.filename} downloaded; its SHA-256 is {found}")

    def _is_downloaded(self, operation: FileOperation) -> bool:
        if operation.sha256 is None:
            return False
        try:
            with open(self.root / operation.provider / operation.filename, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == operation.sha256
        except FileNotFoundError:
            return False

    async def _receive_with_retries(self, operation: FileOperation, part: "PartialFile", log: Log) -> None:
        failures = 0
        while True:
            synced_before = part.progress(operation.url).synced
            try:
                await self._receive(operation.url, part, log)
                return
            except (DownloadInterrupted, Unreachable, Unresolvable) as error:
                failures = failures + 1 if part.progress(operation.url).synced == synced_before else 1
                if failures > len(self._retry_seconds):
                    raise DownloadInterrupted(f"{error}; gave up after {failures} attempts") from error
                log(f"{error}; retrying in {self._retry_seconds[failures - 1]:g} s")
                await asyncio.sleep(self._retry_seconds[failures - 1])

    async def _receive(self, url: str, part: "PartialFile", log: Log) -> None:
        """Download the missing rest of the file into `part`."""
        known = part.progress(url)
        if known.synced == known.size:
            return
        headers = {"range": f"bytes={known.synced}-", "if-range": known.etag} if known.synced else {}
        log(f"requesting {urlsplit(url).hostname}" + (f", from {megabytes(known.synced)}" if known.synced else ""))
        async with self._client.send(
            "GET", url, headers=headers, redirects=REDIRECTS, idle_seconds=self._block_seconds
        ) as response:
            if response.status == 416:
                part.note.unlink()
                raise DownloadInterrupted("the file at the hub is now shorter")
            start = _body_offset(response, known.synced)
            size = self._checked_size(response, start, part.folder)
            progress = Progress(url=url, etag=response.headers.get("etag", ""), size=size, synced=start)
            async with aclosing(_blocks(response.body, self._block_seconds)) as blocks:
                received = await self._write(blocks, part, progress, log)
            if size is not None and received < size:
                raise DownloadInterrupted(f"the hub sent only {megabytes(received)} of {megabytes(size)}")

    async def _write(self, blocks: AsyncIterator[bytes], part: "PartialFile", progress: Progress, log: Log) -> int:
        """Write the blocks to the file, after its synced bytes. Return how many bytes the file has then."""
        written, synced_at = progress.synced, monotonic()
        with open(part.path, "r+b") as file:
            file.truncate(written)
            file.seek(written)
            await asyncio.to_thread(part.checkpoint, file, progress)
            log(_progress_line(written, progress.size))
            try:
                async for block in blocks:
                    if written + len(block) > self._max_bytes:
                        raise ModelFileError(f"the file is larger than the limit of {megabytes(self._max_bytes)}")
                    await asyncio.to_thread(file.write, block)
                    written += len(block)
                    is_due = monotonic() - synced_at >= self._checkpoint_seconds
                    if is_due or written - progress.synced >= CHECKPOINT_BYTES:
                        progress, synced_at = msgspec.structs.replace(progress, synced=written), monotonic()
                        await asyncio.to_thread(part.checkpoint, file, progress)
                        log(_progress_line(written, progress.size))
            finally:  # an interrupted download resumes from here
                await asyncio.to_thread(part.checkpoint, file, msgspec.structs.replace(progress, synced=written))
        return written

    def _checked_size(self, response: Response, start: int, folder: Path) -> int | None:
        """Return the size of the complete file, if the hub sends it. Raises ModelFileError when it is too large."""
        if (size := _file_size(response, start)) is None:
            return None
        if size > self._max_bytes:
            raise ModelFileError(f"the file has {megabytes(size)}; the limit is {megabytes(self._max_bytes)}")
        if size - start > (free := shutil.disk_usage(folder).free):
            raise ModelFileError(
                f"the download needs {megabytes(size - start)}; the models volume has {megabytes(free)} free"
            )
        return size


def model_folder(settings: EngineSettings) -> ModelFolder:
    """Return the folder of models that the settings name."""
    client = OutboundClient(settings.outbound_allowed_cidrs)
    return ModelFolder(settings.models, client, settings.max_model_file_bytes)


class PartialFile:
    """A file that is being downloaded, and the record of its progress."""

    def __init__(self, folder: Path, filename: str) -> None:
        self.folder, self.filename = folder, filename
        self.path, self.note = folder / f".{filename}.part", folder / f".{filename}.progress"

    @classmethod
    def in_folder(cls, folder: Path, filename: str) -> "PartialFile":
        """Return the existing partial file, or create an empty one."""
        folder.mkdir(parents=True, exist_ok=True)
        part = cls(folder, filename)
        part.path.touch()
        return part

    def progress(self, url: str) -> Progress:
        """Return the progress of the download of `url`; zero when it cannot be resumed."""
        nothing = Progress(url=url)
        try:
            known = msgspec.json.decode(self.note.read_bytes(), type=Progress)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return nothing
        is_strong = known.etag.startswith('"')  # versions with the same weak ETag may differ in their bytes
        is_present = known.synced <= self.path.stat().st_size
        return known if known.url == url and is_strong and is_present else nothing

    def checkpoint(self, file: IO[bytes], progress: Progress) -> None:
        """Bring the written data to stable storage, then the record of it."""
        file.flush()
        os.fsync(file.fileno())
        replace_file(self.note, encode(progress))

    def complete(self, sha256: str | None, log: Log) -> str:
        """Verify the file, give it its final name and return its SHA-256. Raises ModelFileError if it is invalid."""
        with open(self.path, "rb") as file:
            if warning := check_content(self.filename, file.read(32)):
                log(warning)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 and found != sha256:
            raise ModelFileError(f"the file's SHA-256 is {found} instead of {sha256}; the file was deleted")
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


def _body_offset(response: Response, offset: int) -> int:
    """Return the offset of the body in the file. Raises ModelFileError or DownloadInterrupted if it is not the file."""
    if response.status == 200:
        return 0
    if response.status == 206:
        begun = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if begun and int(begun[1]) == offset:
            return offset
        raise ModelFileError(f"the hub sent another range than the requested one, from byte {offset}")
    if response.status in (408, 429) or response.status >= 500:
        raise DownloadInterrupted(f"the hub answered {response.status}")
    raise ModelFileError(f"the hub answered {response.status}")


def _file_size(response: Response, start: int) -> int | None:
    """Return the size of the complete file, if the hub sends it. A hub may send less than the requested range."""
    sent = _RANGE.fullmatch(response.headers.get("content-range", "")) if response.status == 206 else None
    if sent and sent[2] != "*":
        return int(sent[2])
    length = response.headers.get("content-length", "")
    return start + int(length) if _LENGTH.fullmatch(length) else None


async def _blocks(body: AsyncIterator[bytes], seconds: float) -> AsyncGenerator[bytes]:
    """Yield the body in blocks of BLOCK_BYTES; the last one may be shorter.

    Raises DownloadInterrupted when a block takes longer than `seconds`, after it has yielded the data received so far.
    """
    block = bytearray()
    ended = False
    failure: DownloadInterrupted | Unreachable | None = None
    while not ended:
        try:
            async with asyncio.timeout(seconds):
                while len(block) < BLOCK_BYTES:
                    block += await anext(body)
        except StopAsyncIteration:
            ended = True
        except TimeoutError:
            ended, failure = True, DownloadInterrupted(f"the hub sent less than 1 MiB in {seconds:g} s")
        except Unreachable as error:
            ended, failure = True, error
        if block:
            yield bytes(block)
            block.clear()
    if failure:
        raise failure


def _progress_line(received: int, size: int | None) -> str:
    return megabytes(received) + ("" if size is None else f" of {megabytes(size)}")


def progress_in(lines: Sequence[str]) -> DownloadProgress | None:
    """Return the last progress in the lines of a log, rounded to a tenth of a MiB; None if there is none."""
    found = next(filter(None, map(_PROGRESS_LINE.search, reversed(lines))), None)
    if found is None:
        return None
    received, total = (None if each is None else round(float(each) * 2**20) for each in found.groups())
    return DownloadProgress(received_bytes=received or 0, total_bytes=total)


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"

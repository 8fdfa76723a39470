"""The files of each attempt on the shared volume: its output, its result and its ending.

All replicas read them, and the leader writes them. For a moment two engines may believe that they lead, so writes are
idempotent: the same output yields the same bytes at the same offsets, and an ending is written only once.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, ParamSpec, TypeVar

import msgspec

from labrats.backends.kubernetes.failures import ENDING_WAS_DAMAGED, AttemptFailure
from labrats.files.attempt_output import UNFINISHED
from labrats.files.durability import sync
from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import (
    BUNDLE_BYTES,
    BUNDLE_FILE,
    CHANGES_FILE,
    FILES_IN_PARTS,
    LINE_BYTES,
    OUTPUT_BYTES,
    OUTPUT_FILE,
    PATCH_FILE,
    SESSION_FILE,
    BriefEvent,
    ErrorEvent,
    PartEvent,
    ResultEvent,
    decode_briefly,
)
from labrats.model.record import encode

P = ParamSpec("P")
T = TypeVar("T")

SPARE_BYTES: Final = 1024 * 1024
"""Tolerance above the bound that executors keep to. Only the output of a foreign executor is cut here."""

PARTS_BYTES: Final = 104 * 1024 * 1024
"""Maximum size of all files in parts together: more than a result, two patches, a bundle and a session may have."""

ATTEMPTS_FOLDER: Final = "attempts"
"""Folder of the attempts on the volume."""


def attempt_path(name: AttemptName) -> PurePath:
    """Return the attempt's folder, relative to the root of the volume."""
    return PurePath(ATTEMPTS_FOLDER, name.job_id[-2:], str(name))


@dataclass(frozen=True)
class AttemptFiles:
    """The folder of one attempt. It exists once the attempt's Job was created."""

    folder: Path

    @classmethod
    def of(cls, root: Path, name: AttemptName) -> "AttemptFiles":
        """Return the files of an attempt, in a subfolder of `root` named after the end of the job's id."""
        return cls(root.joinpath(*attempt_path(name).relative_to(ATTEMPTS_FOLDER).parts))

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT_FILE

    @property
    def session(self) -> Path:
        return self.folder / SESSION_FILE

    @property
    def has_kept_work(self) -> bool:
        """True if a later attempt can restore the agent's session or changes from the files."""
        return any((self.folder / file).is_file() for file in (SESSION_FILE, BUNDLE_FILE, PATCH_FILE))

    @property
    def exists(self) -> bool:
        return self.folder.is_dir()

    @property
    def owner(self) -> str:
        """The uid of the attempt's job; empty if it is unknown."""
        try:
            return self._owner.read_text()
        except FileNotFoundError:
            return ""

    def create(self, owner: str) -> None:
        """Create the folder, to record that the attempt's Job was created. owner: uid of the job, if it is known."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if owner and not self.owner:
            self._owner.write_text(owner)

    @property
    def pod(self) -> str | None:
        """The pod in which the executor runs or ran; None before it started."""
        try:
            return self._pod.read_text()
        except FileNotFoundError:
            return None

    def record_pod(self, name: str) -> None:
        self._pod.write_text(name)

    @property
    def has_ended(self) -> bool:
        return self._ending.exists()

    def ending(self) -> AttemptFailure | None:
        """Return the failure of an attempt without a terminal event; None while the attempt may run."""
        try:
            return msgspec.json.decode(self._ending.read_bytes(), type=AttemptFailure)
        except FileNotFoundError:
            return None
        except (
            msgspec.DecodeError,
            UnicodeDecodeError,
        ):  # the volume's server crashed while it stored it
            return ENDING_WAS_DAMAGED

    def record_ending(self, failure: AttemptFailure) -> None:
        """Record that nothing of the attempt runs and its output is complete. Only the first record counts."""
        self.create(owner="")
        with suppress(FileNotFoundError):
            sync(self.output)
        for name in (CHANGES_FILE, f"{CHANGES_FILE}{UNFINISHED}"):
            (self.folder / name).unlink(missing_ok=True)
        unfinished = self.folder / f"ending.{os.urandom(4).hex()}"
        unfinished.write_bytes(encode(failure))
        sync(unfinished)
        try:
            os.link(unfinished, self._ending)  # unlike a rename, it fails if the file exists
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _owner(self) -> Path:
        return self.folder / "owner"

    @property
    def _pod(self) -> Path:
        return self.folder / "pod"

    @property
    def _ending(self) -> Path:
        return self.folder / "ending.json"


async def in_thread(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Run `call` in a thread. When cancelled, wait for its end first: the caller may then remove the written files."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


class OutputCopy:
    """The copy of an attempt's output, which can be continued after an interruption.

    max_bytes:   size after which only the terminal event is added. Files in parts have PARTS_BYTES of their own.
    last:        last event in the copy.
    missing:     number of events that never came.
    is_complete: True once the terminal event is in the copy.
    """

    def __init__(self, files: AttemptFiles, max_bytes: int = OUTPUT_BYTES) -> None:
        self._files, self._max_bytes = files, max_bytes
        self._size, self.last = _end_of(files.output)
        self._next_seq = self.last.seq + 1 if self.last else 1
        self.missing = 0
        self._parts = {
            file: _FileInParts(files.folder / file, is_repeated=file == CHANGES_FILE) for file in FILES_IN_PARTS
        }
        self.is_complete = isinstance(self.last, ResultEvent | ErrorEvent)

    def append(self, lines: Iterable[bytes]) -> None:
        """Append the events in `lines` that are not in the copy yet, by one write to each file."""
        fresh: list[bytes] = []
        for line in lines:
            event = decode_briefly(line)
            if event is None or event.seq < self._next_seq or self.is_complete:
                continue
            self.missing += event.seq - self._next_seq
            self._next_seq = event.seq + 1
            if isinstance(event, PartEvent):
                self._add_part(event)
            elif self._size < self._max_bytes or isinstance(event, ResultEvent | ErrorEvent):
                fresh.append(line + b"\n")
                self.last = event
                self.is_complete = isinstance(event, ResultEvent | ErrorEvent)
        for file in self._parts.values():
            file.write()
        if fresh:
            data = b"".join(fresh)
            _write_at(self._files.output, data, self._size)
            self._size += len(data)

    def _add_part(self, part: PartEvent) -> None:
        """Take a part of a file. The file appears with its last part, or never if a part was missed."""
        if part.file not in FILES_IN_PARTS:
            return
        others = sum(file.size for name, file in self._parts.items() if name != part.file)
        end = part.offset + len(part.data)
        if others + end > PARTS_BYTES or (part.file == BUNDLE_FILE and end > BUNDLE_BYTES):
            return  # the publisher has the bundles of several jobs in its memory
        self._parts[part.file].add(part)


class _FileInParts:
    """A file that an executor prints in parts, in order and once. Other parts are ignored.

    is_repeated: whether the executor may print the file again. The last one counts, and may be lost in a crash.
    size: the largest size that it has had.
    """

    def __init__(self, path: Path, *, is_repeated: bool) -> None:
        self._is_repeated = is_repeated
        self._path, self._unfinished = path, path.with_name(f"{path.name}{UNFINISHED}")
        self._begun = _size_of(self._unfinished)
        self.size = max(_size_of(path), self._begun)
        self._next_offset: int | None = None
        self._fresh = bytearray()
        self._has_last_part = self._is_complete = False

    def add(self, part: PartEvent) -> None:
        """Take a part, if it is the next one. An earlier engine may have written those before the first."""
        if self._is_repeated and part.offset == 0:
            self._begun, self._next_offset = 0, 0
            self._fresh.clear()
            self._has_last_part = self._is_complete = False
        if self._next_offset is None and 0 <= part.offset <= self._begun:
            self._next_offset = part.offset
        if self._has_last_part or part.offset != self._next_offset:
            return
        self._fresh += part.data
        self._next_offset += len(part.data)
        self.size = max(self.size, self._next_offset)
        self._has_last_part = part.is_last

    def write(self) -> None:
        """Write the parts that were added since the last write."""
        is_empty = self._is_repeated and self._next_offset == 0 and not self._is_complete
        if self._next_offset is not None and (self._fresh or is_empty):
            offset = self._next_offset - len(self._fresh)
            if self._is_repeated and offset == 0:
                self._unfinished.unlink(missing_ok=True)  # the one before may be incomplete
            _write_at(self._unfinished, bytes(self._fresh), offset)
            self._fresh.clear()
        if self._has_last_part and not self._is_complete:
            if not self._is_repeated:
                sync(self._unfinished)
            self._unfinished.replace(self._path)
            self._is_complete = True


def _end_of(path: Path) -> tuple[int, BriefEvent | None]:
    """Return the size of all complete lines of a file, and their last event. An incomplete line is overwritten."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - 2 * LINE_BYTES))
            lines = file.read()
    except FileNotFoundError:
        return 0, None
    end = lines.rfind(b"\n") + 1
    events = (decode_briefly(line) for line in reversed(lines[:end].split(b"\n")))
    return start + end, next((event for event in events if event), None)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write_at(path: Path, data: bytes, offset: int) -> None:
    """Write to a file, then close it: on a network volume, only then other machines see the data."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(descriptor)

"""What the engine keeps of each attempt on the shared volume: its output, its result, and how it ended.

All replicas read it, one writes it: the one that leads. Two may for a moment believe that they do. So nothing here
depends on who writes: the same output gives the same bytes in the same places, and an ending is written once.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from labrats.backends.kubernetes.failures import AttemptFailure
from labrats.files.durability import sync
from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import (
    LINE_BYTES,
    OUTPUT_BYTES,
    PATCH_FILE,
    RESULT_FILE,
    AnyEvent,
    ErrorEvent,
    PartEvent,
    ResultEvent,
    decode_event,
)
from labrats.model.record import encode

P = ParamSpec("P")
T = TypeVar("T")

SPARE_BYTES: Final = 1024 * 1024
"""An executor of ours keeps to its bound. The output of a foreign one is cut by so much above that."""

_FILE_BYTES: Final = 64 * 1024 * 1024
"""The largest result, and the largest patch, that is kept."""


@dataclass(frozen=True)
class AttemptFiles:
    """The folder of one attempt. It is there from the moment when the attempt's Job was created."""

    folder: Path

    @classmethod
    def of(cls, root: Path, name: AttemptName) -> "AttemptFiles":
        """Spread over 256 folders by the end of the job's name, so that none grows huge."""
        return cls(root / name.job_id[-2:] / str(name))

    @property
    def output(self) -> Path:
        return self.folder / "output.jsonl"

    @property
    def result(self) -> Path:
        return self.folder / RESULT_FILE

    @property
    def patch(self) -> Path:
        return self.folder / PATCH_FILE

    @property
    def has_begun(self) -> bool:
        return self.folder.is_dir()

    @property
    def owner(self) -> str:
        """The uid of the job whose attempt this is; empty where that is not known."""
        try:
            return self._owner.read_text()
        except FileNotFoundError:
            return ""

    def begin(self, owner: str) -> None:
        """Remember that the attempt's Job was created, and for whom, whatever becomes of it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if owner and not self.owner:
            self._owner.write_text(owner)

    @property
    def pod(self) -> str | None:
        """The pod that its executor runs or ran in, once that has started."""
        try:
            return self._pod.read_text()
        except FileNotFoundError:
            return None

    def note_pod(self, name: str) -> None:
        self._pod.write_text(name)

    @property
    def has_ended(self) -> bool:
        return self._ending.exists()

    def ending(self) -> AttemptFailure | None:
        """How the attempt ended, unless its output says otherwise; None while it may run."""
        try:
            return msgspec.json.decode(self._ending.read_bytes(), type=AttemptFailure)
        except FileNotFoundError:
            return None

    def conclude(self, failure: AttemptFailure) -> None:
        """Write down that nothing of the attempt runs any more and all its output is here. The first word counts."""
        self.begin(owner="")
        with suppress(FileNotFoundError):
            sync(self.output)
        unfinished = self.folder / f"ending.{os.urandom(4).hex()}"
        unfinished.write_bytes(encode(failure))
        sync(unfinished)
        try:
            os.link(unfinished, self._ending)  # unlike a rename, it fails when somebody was first
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
    """What `call` returns. Cancelled, this ends only when the call has: whoever cancelled may remove what it writes."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


class OutputCopy:
    """The copy of an attempt's output, as far as it goes, and how to go on with it.

    most_bytes: of an output no more is kept, but for the terminal event.
    last: the last event in it. missing: how many events never came. is_complete: the terminal event has come.
    """

    def __init__(self, files: AttemptFiles, most_bytes: int = OUTPUT_BYTES) -> None:
        self._files, self._most_bytes = files, most_bytes
        self._size, self.last = _end_of(files.output)
        self._next_seq = self.last.seq + 1 if self.last else 1
        self.missing = 0
        self.is_complete = isinstance(self.last, ResultEvent | ErrorEvent)

    def take(self, lines: Iterable[bytes]) -> None:
        """Add what is new in `lines`, and pass over what is known or is no event."""
        fresh: list[bytes] = []
        for line in lines:
            event = decode_event(line)
            if event is None or event.seq < self._next_seq or self.is_complete:
                continue
            self.missing += event.seq - self._next_seq
            self._next_seq = event.seq + 1
            if isinstance(event, PartEvent):
                self._take_part(event)
            elif self._size < self._most_bytes or isinstance(event, ResultEvent | ErrorEvent):
                fresh.append(line + b"\n")
                self.last = event
                self.is_complete = isinstance(event, ResultEvent | ErrorEvent)
        if fresh:
            data = b"".join(fresh)
            _write_at(self._files.output, data, self._size)
            self._size += len(data)

    def _take_part(self, part: PartEvent) -> None:
        """A file is there when all its parts are: where one was missed it never is."""
        if part.file not in (RESULT_FILE, PATCH_FILE) or part.offset + len(part.data) > _FILE_BYTES:
            return
        file = self._files.folder / part.file
        unfinished = file.with_name(f"{part.file}.part")
        if not 0 <= part.offset <= _size_of(unfinished):
            return
        _write_at(unfinished, part.data, part.offset)
        if part.is_last:
            sync(unfinished)
            unfinished.replace(file)


def _end_of(path: Path) -> tuple[int, AnyEvent | None]:
    """How much of a file is whole lines, and the last event among them. A torn line is written again."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - 2 * LINE_BYTES))
            lines = file.read()
    except FileNotFoundError:
        return 0, None
    end = lines.rfind(b"\n") + 1
    events = (decode_event(line) for line in reversed(lines[:end].split(b"\n")))
    return start + end, next((event for event in events if event), None)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write_at(path: Path, data: bytes, offset: int) -> None:
    """Opened each time, and closed, since on a network volume others see what was written only then."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(descriptor)

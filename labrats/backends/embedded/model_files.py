"""Operations on models' files as tasks of this engine: each with a record and a log beside the files."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from labrats.files.durability import replace_file
from labrats.files.model_folder import ModelFolder
from labrats.model.errors import Conflict, LabratsError, NotFound, RetryLater
from labrats.model.model_files import FileOperation, FoundFile, OperationStatus
from labrats.model.record import encode
from labrats.ports import Clock, ModelPlace

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE: Final = 2
"""Downloads share one line and one disk: more of them at once make none sooner."""

_RECORDS: Final = ".operations"

log = structlog.get_logger()


class LocalModelFiles:
    """See ModelFiles in labrats/ports.py. `run` does what was begun, by this engine or the one before it."""

    def __init__(self, folder: ModelFolder, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._records = folder.root / _RECORDS
        self._to_do: asyncio.Queue[FileOperation] = asyncio.Queue()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._beginning = asyncio.Lock()
        self._taken_on: set[str] = set()
        """The names of those that `run` does or will do."""

    @property
    def place(self) -> ModelPlace:
        return ModelPlace(folder=str(self._folder.root))

    async def run(self) -> None:
        """Carry operations out until cancelled, beginning with those that an engine before this one did not end."""
        async with asyncio.TaskGroup() as tasks:
            for operation in await self.operations():
                if not operation.has_ended:
                    self._take_on(operation)
            while True:
                operation = await self._to_do.get()
                tasks.create_task(self._carry_out(operation), name=operation.name)

    async def scan(self) -> Sequence[FoundFile]:
        return await _on_disk(self._folder.scan)

    async def begin(self, operation: FileOperation) -> FileOperation:
        async with self._beginning:
            for name in (operation.name, operation.opposite.name):
                known = await _on_disk(_read, self._record_of(name)) if name in self._taken_on else None
                if known and known.matches(operation):
                    return known
                if known:
                    raise Conflict(f"{known.filename} is busy with a {known.work}; wait until that has ended")
            begun = replace(operation, status=OperationStatus.WAITING, created_at=self._clock.now())
            await _on_disk(self._record_of(begun.name).with_suffix(".log").unlink, missing_ok=True)
            await _on_disk(self._write, begun)
            self._take_on(begun)
        return begun

    async def operations(self) -> Sequence[FileOperation]:
        return await _on_disk(self._read_all)

    async def log(self, name: str) -> Sequence[str]:
        if name not in [operation.name for operation in await self.operations()]:
            raise NotFound(f"there is no operation {name!r} on a model's file")
        return await _on_disk(_lines, self._record_of(name).with_suffix(".log"))

    def _take_on(self, operation: FileOperation) -> None:
        if operation.name not in self._taken_on:
            self._taken_on.add(operation.name)
            self._to_do.put_nowait(operation)

    async def _carry_out(self, operation: FileOperation) -> None:
        tell = self._log_of(operation)
        async with self._turns:
            try:
                await self._note(replace(operation, status=OperationStatus.ACTIVE))
                await self._folder.carry_out(operation, tell)
            except (LabratsError, OSError) as error:
                reason = str(error) if isinstance(error, LabratsError) else f"the folder of models: {error.strerror}"
                tell(reason)
                await self._end(operation, OperationStatus.FAILED, reason)
            else:
                await self._end(operation, OperationStatus.COMPLETED, None)

    async def _end(self, operation: FileOperation, status: OperationStatus, reason: str | None) -> None:
        log.info("a model's file", operation=operation.name, work=operation.work, status=status, reason=reason)
        async with self._beginning:
            await self._note(replace(operation, status=status, reason=reason, finished_at=self._clock.now()))
            self._taken_on.discard(operation.name)

    async def _note(self, operation: FileOperation) -> None:
        """Write down how it stands. Where that cannot be, it is done once more by the next engine."""
        try:
            await _on_disk(self._write, operation)
        except RetryLater as error:
            log.warning("how an operation stands could not be written", operation=operation.name, reason=str(error))

    def _log_of(self, operation: FileOperation) -> Callable[[str], None]:
        path = self._record_of(operation.name).with_suffix(".log")

        def write(line: str) -> None:
            with suppress(OSError), open(path, "a") as file:  # a full disk is told by what it stops
                file.write(f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ} {line}\n")

        return write

    def _record_of(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _write(self, operation: FileOperation) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        replace_file(self._record_of(operation.name), encode(operation))

    def _read_all(self) -> list[FileOperation]:
        found = [operation for path in self._records.glob("*.json") if (operation := _read(path))]
        return sorted(found, key=lambda operation: (str(operation.created_at), operation.name), reverse=True)


def _read(path: Path) -> FileOperation | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=FileOperation)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:  # not one that we have written
        log.warning("a record of an operation on a model's file cannot be read", path=str(path))
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


async def _on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise RetryLater(f"the folder of models cannot be used: {error.strerror}", delay_seconds=5) from error

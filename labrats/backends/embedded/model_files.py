"""Operations on model files as tasks of this engine, each with a record and a log beside the files."""

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
from labrats.model.model_files import FileOperation, FoundFile, OperationStatus, OperationType
from labrats.model.record import encode
from labrats.ports import Clock, ModelPlace

P = ParamSpec("P")
T = TypeVar("T")

MAX_ACTIVE: Final = 2
"""The limit on concurrent operations: downloads share one network and one disk, so more are not faster."""

_RECORDS: Final = ".operations"

log = structlog.get_logger()


class LocalModelFiles:
    """ModelFiles (labrats/ports.py) in a folder. `run` carries out operations, including those of an earlier engine."""

    def __init__(self, folder: ModelFolder, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._records = folder.root / _RECORDS
        self._queue: asyncio.Queue[FileOperation] = asyncio.Queue()
        self._slots = asyncio.Semaphore(MAX_ACTIVE)
        self._lock = asyncio.Lock()
        self._unfinished: set[str] = set()
        """The names of the operations that are queued or active."""

    @property
    def place(self) -> ModelPlace:
        return ModelPlace(folder=str(self._folder.root))

    async def run(self) -> None:
        """Carry out operations until cancelled, first those that an earlier engine left unfinished."""
        async with asyncio.TaskGroup() as tasks:
            for operation in await self._left_by_an_earlier_engine():
                if not operation.has_ended:
                    self._enqueue(operation)
            while True:
                operation = await self._queue.get()
                tasks.create_task(self._carry_out(operation), name=operation.name)

    async def _left_by_an_earlier_engine(self) -> Sequence[FileOperation]:
        while True:
            try:
                return await _on_disk(self._read_all)
            except RetryLater as error:
                log.warning("operations on model files not continued yet", reason=str(error))
                await self._clock.sleep(error.delay_seconds)

    async def scan(self) -> Sequence[FoundFile]:
        return await _on_disk(self._folder.scan)

    async def begin(self, operation: FileOperation) -> FileOperation:
        async with self._lock:
            for name in (operation.name, operation.opposite.name):
                known = await _on_disk(_read, self._record_of(name)) if name in self._unfinished else None
                if known and known.matches(operation):
                    return known
                if known:
                    raise Conflict(f"{known.filename} is busy with a {known.work}; wait until it has ended")
            begun = replace(operation, status=OperationStatus.WAITING, created_at=self._clock.now())
            await _on_disk(self._record_of(begun.name).with_suffix(".log").unlink, missing_ok=True)
            await _on_disk(self._write, begun)
            self._enqueue(begun)
        return begun

    async def operations(self) -> Sequence[FileOperation]:
        return await _on_disk(lambda: [self._with_progress(each) for each in self._read_all()])

    async def log(self, name: str) -> Sequence[str]:
        if name not in [operation.name for operation in await self.operations()]:
            raise NotFound(f"there is no operation {name!r} on a model file")
        return await _on_disk(_lines, self._record_of(name).with_suffix(".log"))

    def _enqueue(self, operation: FileOperation) -> None:
        if operation.name not in self._unfinished:
            self._unfinished.add(operation.name)
            self._queue.put_nowait(operation)

    async def _carry_out(self, operation: FileOperation) -> None:
        write_line = self._log_of(operation)
        async with self._slots:
            try:
                await self._record(replace(operation, status=OperationStatus.ACTIVE))
                await self._folder.carry_out(operation, write_line)
            except (LabratsError, OSError) as error:
                reason = str(error) if isinstance(error, LabratsError) else f"models folder: {error.strerror}"
                write_line(reason)
                await self._end(operation, OperationStatus.FAILED, reason)
            except Exception:  # a defect that one file triggers must not end the engine, again at each start
                log.exception("model file operation failed", operation=operation.name)
                await self._end(operation, OperationStatus.FAILED, "an unexpected error: the engine's log says why")
            else:
                await self._end(operation, OperationStatus.COMPLETED, None)

    async def _end(self, operation: FileOperation, status: OperationStatus, reason: str | None) -> None:
        log.info(
            "model file operation ended", operation=operation.name, work=operation.work, status=status, reason=reason
        )
        async with self._lock:
            await self._record(replace(operation, status=status, reason=reason, finished_at=self._clock.now()))
            self._unfinished.discard(operation.name)

    async def _record(self, operation: FileOperation) -> None:
        """Store the status of an operation. If that fails, the next engine repeats the operation."""
        try:
            await _on_disk(self._write, operation)
        except RetryLater as error:
            log.warning("operation record not written", operation=operation.name, reason=str(error))

    def _log_of(self, operation: FileOperation) -> Callable[[str], None]:
        path = self._record_of(operation.name).with_suffix(".log")

        def write(line: str) -> None:
            with suppress(OSError), open(path, "a") as file:  # a full disk makes the operation itself fail
                file.write(f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ} {line}\n")

        return write

    def _record_of(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _write(self, operation: FileOperation) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        replace_file(self._record_of(operation.name), encode(operation))

    def _with_progress(self, operation: FileOperation) -> FileOperation:
        if operation.work is OperationType.DELETE or operation.status is not OperationStatus.ACTIVE:
            return operation
        return replace(operation, progress=self._folder.progress_of(operation))

    def _read_all(self) -> list[FileOperation]:
        found = [operation for path in self._records.glob("*.json") if (operation := _read(path))]
        return sorted(found, key=lambda operation: (str(operation.created_at), operation.name), reverse=True)


def _read(path: Path) -> FileOperation | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=FileOperation)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:  # somebody else wrote the file
        log.warning("operation record unreadable", path=str(path), reason=str(error))
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
        raise RetryLater(f"the models folder cannot be used: {error.strerror}", delay_seconds=5) from error

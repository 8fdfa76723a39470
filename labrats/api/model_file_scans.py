"""What is on the models volume, as it was lately: a scan may take a pod, and is not made for everybody."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from labrats.model.model_files import FileOperation, FoundFile
from labrats.ports import Clock, ModelFiles

FRESH: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class Scan:
    """The files that were there at that time."""

    files: Sequence[FoundFile]
    at: datetime

    def find(self, provider: str, filename: str) -> FoundFile | None:
        return next((each for each in self.files if (each.provider, each.filename) == (provider, filename)), None)


class ModelFileScans:
    """The files of local models, with the last scan of them.

    It is made anew when somebody asks and it is old, or was made before an operation began or ended.
    """

    def __init__(self, files: ModelFiles, clock: Clock) -> None:
        self.files, self._clock = files, clock
        self._scanning = asyncio.Lock()
        self.last: Scan | None = None

    async def current(self) -> Scan:
        """Raises RetryLater."""
        async with self._scanning:
            if self.last is None or await self._is_past(self.last):
                at = self._clock.now()
                self.last = Scan(await self.files.scan(), at)
            return self.last

    async def _is_past(self, scan: Scan) -> bool:
        if self._clock.now() - scan.at >= FRESH:
            return True
        return any(_moved(each) >= scan.at for each in await self.files.operations())


def _moved(operation: FileOperation) -> datetime:
    """When it ended, or else began."""
    moment = operation.finished_at or operation.created_at
    assert moment is not None, "an operation that a backend knows was begun"
    return moment

"""Cached scans of the models volume. A scan may need a pod, so callers share one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from labrats.model.model_files import FileOperation, FoundFile
from labrats.ports import Clock, ModelFiles

MAX_AGE: Final = timedelta(seconds=30)


@dataclass(frozen=True)
class Scan:
    """The files on the volume at the time of the scan."""

    files: Sequence[FoundFile]
    scanned_at: datetime

    def find(self, provider: str, filename: str) -> FoundFile | None:
        return next((each for each in self.files if (each.provider, each.filename) == (provider, filename)), None)


class ModelFileScans:
    """The files of local models, and the last scan of them."""

    def __init__(self, files: ModelFiles, clock: Clock) -> None:
        self.files, self._clock = files, clock
        self._scanning = asyncio.Lock()
        self.last: Scan | None = None

    async def current(self) -> Scan:
        """Return the last scan. Scan again if it is older than MAX_AGE, or if an operation has started or ended since.

        Raises RetryLater.
        """
        async with self._scanning:
            if self.last is None or await self._is_stale(self.last):
                scanned_at = self._clock.now()
                self.last = Scan(await self.files.scan(), scanned_at)
            return self.last

    async def _is_stale(self, scan: Scan) -> bool:
        if not timedelta() <= self._clock.now() - scan.scanned_at < MAX_AGE:  # older, or the clock was set back
            return True
        return any(_last_change(each) >= scan.scanned_at for each in await self.files.operations())


def _last_change(operation: FileOperation) -> datetime:
    """Return the time at which the operation ended or, if it has not, started."""
    changed_at = operation.finished_at or operation.created_at
    assert changed_at is not None, "backends return only operations that have started"
    return changed_at

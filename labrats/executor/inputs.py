"""The inputs of an attempt, in its folder."""

from pathlib import Path
from typing import Final

import msgspec

from labrats.model.protocol import TASK_FILE, Task

_TASK_DECODER: Final = msgspec.json.Decoder(Task)


def read_task(folder: Path) -> Task:
    """Return the task of the attempt whose inputs are in `folder`."""
    return _TASK_DECODER.decode((folder / TASK_FILE).read_bytes())

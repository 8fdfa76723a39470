"""The program in the pods of model_files.py: `python -m labrats.backends.kubernetes.model_files_pod`.

It carries out the operation that LABRATS_MODEL_FILE holds; without one it scans. Other settings are as the engine's.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

from labrats.files.model_folder import DownloadInterrupted, ModelFolder, model_folder
from labrats.model.errors import LabratsError
from labrats.model.model_files import FileOperation
from labrats.model.record import encode
from labrats.net.address_policy import Unresolvable
from labrats.settings import EngineSettings

OPERATION_VARIABLE: Final = "LABRATS_MODEL_FILE"

DONE: Final = 0
AGAIN: Final = 3
"""It failed, and may do better in another pod. A pod that is killed exits otherwise, and is made again too."""

NEVER: Final = 4
"""It failed for good. The last line says why."""


def main() -> int:
    folder = model_folder(EngineSettings())
    if operation := os.environ.get(OPERATION_VARIABLE):
        return asyncio.run(_carry_out(folder, msgspec.json.decode(operation, type=FileOperation)))
    _print(encode(list(folder.scan())).decode())
    return DONE


async def _carry_out(folder: ModelFolder, operation: FileOperation) -> int:
    try:
        await folder.carry_out(operation, _log)
    except (DownloadInterrupted, Unresolvable) as error:
        _log(str(error))
        return AGAIN
    except LabratsError as error:
        _log(str(error))
        return NEVER
    except OSError as error:
        _log(f"the volume of models: {error.strerror}")
        return NEVER
    return DONE


def _log(line: str) -> None:
    _print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""The files that an attempt leaves beside its output: its result, its changes, and what it proposes to publish."""

import asyncio
import os
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from labrats.files.attempt_output import read_end, redact_output, remove_output
from labrats.files.safe_paths import open_regular_file, read_regular_file
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import NotFound
from labrats.model.nesting import is_too_deep
from labrats.model.protocol import (
    BUNDLE_FILE,
    CHANGES_FILE,
    MAX_VALUES_BYTES,
    OUTPUT_FILE,
    PATCH_FILE,
    PUBLICATION_FILE,
    RESULT_FILE,
    ResultEvent,
)
from labrats.model.publication import STORED_PUBLICATION_BYTES
from labrats.model.redaction import Redactor

MAX_RESULT_BYTES: Final = 64 * 1024 * 1024
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Limits on reading a result, and another file that an attempt leaves. No executor writes larger ones, but an agent
might.
"""

_NO_RESULT: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of reading a file that is no result: one from a pod may be incomplete, and an agent may have written it."""


class AttemptResults(ABC):
    """The methods of a Runner that read or delete what an attempt has left. A subclass knows the attempts' folders."""

    @abstractmethod
    def path_of(self, name: AttemptName) -> Path:
        """Return the folder with the attempt's output."""

    async def result(self, name: AttemptName) -> Any:
        return await asyncio.to_thread(read_result, name, self.path_of(name))

    async def patch(self, name: AttemptName) -> BinaryIO:
        return await asyncio.to_thread(open_file, name, self.path_of(name) / PATCH_FILE, "patch")

    async def changes_so_far(self, name: AttemptName) -> BinaryIO:
        with suppress(NotFound):
            return await self.patch(name)
        file = await asyncio.to_thread(open_file, name, self.path_of(name) / CHANGES_FILE, "changes so far")
        if os.fstat(file.fileno()).st_size > 0:
            return file
        file.close()
        raise NotFound(f"attempt {name} has changed no file so far")

    async def bundle(self, name: AttemptName) -> BinaryIO:
        return await asyncio.to_thread(open_file, name, self.path_of(name) / BUNDLE_FILE, "bundle")

    async def publication(self, name: AttemptName) -> bytes:
        def read() -> bytes:
            file = self.path_of(name) / PUBLICATION_FILE
            with open_file(name, file, "publication", STORED_PUBLICATION_BYTES) as opened:
                return opened.read()

        return await asyncio.to_thread(read)

    async def redact(self, name: AttemptName, redactor: Redactor) -> None:
        await asyncio.to_thread(redact_output, self.path_of(name), redactor)

    async def remove_output(self, name: AttemptName) -> int:
        return await asyncio.to_thread(remove_output, self.path_of(name))


def read_result(name: AttemptName, folder: Path) -> Any:
    """Return the result of the attempt `name`, from its output or from the file that it names. Raises NotFound."""
    outcome, _ = read_end(folder / OUTPUT_FILE)
    if not isinstance(outcome, ResultEvent):
        raise NotFound(f"the result of attempt {name} is no longer stored")
    if outcome.file is None:
        return outcome.result
    try:
        content = read_regular_file(folder / RESULT_FILE, MAX_RESULT_BYTES)
        is_text = content.startswith(b'"')
        if (len(content) > MAX_VALUES_BYTES and not is_text) or is_too_deep(content):
            raise NotFound(f"the result of attempt {name} is too large to be read")
        return msgspec.json.decode(content)
    except (FileNotFoundError, *_NO_RESULT) as error:
        raise NotFound(f"the result of attempt {name} is no longer stored") from error


def open_file(name: AttemptName, file: Path, kind: str, most_bytes: int = MAX_FILE_BYTES) -> BinaryIO:
    """Open a file that an attempt has left. Raises NotFound, also for a file that no executor can have written."""
    try:
        opened = os.fdopen(open_regular_file(file), "rb")
    except FileNotFoundError as error:
        raise NotFound(f"attempt {name} left no {kind}, or the {kind} is no longer stored") from error
    if os.fstat(opened.fileno()).st_size > most_bytes:
        opened.close()
        raise NotFound(f"the {kind} of attempt {name} is larger than {most_bytes // 2**20} MiB")
    return opened

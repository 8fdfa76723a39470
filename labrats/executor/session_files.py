"""Hand over the files of an agent's session to the engine, for a later attempt in another pod."""

import asyncio
import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from labrats.executor.context import RunContext
from labrats.files.safe_paths import open_inside, write_inside
from labrats.model.errors import GiveUp
from labrats.model.job import AgentSession
from labrats.model.provider_spec import provider_spec
from labrats.model.record import encode

CONTENT_BYTES: Final = 16 * 1024 * 1024
"""Limit on the files of a session. All of them are searched for secrets, at some 6 MiB a second."""

_DECODER: Final = msgspec.json.Decoder(dict[str, bytes])


async def report_session_files(context: RunContext) -> None:
    """Store the files of the session in which the agent has worked, redacted. Log why a session is not stored."""
    if (session := context.events.session) is None or not context.task.on_cluster:
        return
    files: dict[str, bytes] = {}
    size = 0
    for path in _files_of(context.home, session):
        name = str(path.relative_to(context.home))
        with suppress(GiveUp), open_inside(context.home, name) as file:
            content = file.read(CONTENT_BYTES + 1)
            if (size := size + len(content)) > CONTENT_BYTES:
                context.events.log(f"[the session is not stored: it has more than {CONTENT_BYTES // 2**20} MiB]")
                return
            files[name] = context.events.redact_bytes(content)
        await asyncio.sleep(0)  # so that the time limit can take effect
    if files:
        context.events.session_files(gzip.compress(encode(files), compresslevel=6))


def restore_session_files(context: RunContext, session: AgentSession, stored: Path) -> bool:
    """Write the stored files of a session into the home. Return whether there are any."""
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(stored.read_bytes(), 2 * CONTENT_BYTES)
        files = _DECODER.decode(unpacked)
        if not all(name.startswith(f"{provider_spec(session.provider).session_folder}/") for name in files):
            return False
        context.create_folders()
        for name, content in files.items():
            write_inside(context.home, name, content)
    except (OSError, zlib.error, msgspec.DecodeError, UnicodeDecodeError, GiveUp):
        return False
    return bool(files)


def _files_of(home: Path, session: AgentSession) -> Iterator[Path]:
    """Yield the paths of the session's files, which have its id in their names or in that of a folder."""
    for folder, _, names in os.walk(home / str(provider_spec(session.provider).session_folder)):
        for name in names:
            if session.id in name or session.id in Path(folder).parts:
                yield Path(folder, name)

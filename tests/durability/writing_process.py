"""A process that writes to the store at argv[1] until it is killed, and reports acknowledged writes on stdout."""

import asyncio
import os
import sys
from pathlib import Path

from labrats.backends.embedded.store import EmbeddedStore
from tests.durability.ledger import Ledger, write_until_failure


class ReportingLedger(Ledger):
    """Prints `ask NAME STATE` before a write and `acknowledge NAME VERSION` after it, unbuffered."""

    def ask(self, name: str, state: int | None) -> None:
        report("ask", name, state)
        super().ask(name, state)

    def acknowledge(self, name: str, version: str | None = None) -> None:
        report("acknowledge", name, version)
        super().acknowledge(name, version)


def report(*words: object) -> None:
    os.write(1, (" ".join("-" if word is None else str(word) for word in words) + "\n").encode())


async def main(path: Path, seed: int) -> None:
    async with EmbeddedStore.open(path) as store:
        await write_until_failure(store, ReportingLedger(), seed)


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

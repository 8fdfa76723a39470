"""Recognizes a reboot of the machine, and a database that was restored without the files of its attempts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from labrats.files.durability import replace_file
from labrats.processes import boot_id

BOOT_FILE: Final = "boot"
"""File in the folder of all attempts: the database whose attempts these are, and the boot in which it last started."""


def interrupted_before(attempts: Path, database: str) -> datetime | None:
    """Return the time before which attempts were interrupted: now, after a reboot or with another database; else None.

    An attempt that was admitted before and has no claim may have run: the claim was not on stable storage yet, or was
    not restored. attempts: the folder of all attempts. database: the id of the database.
    """
    file, current = attempts / BOOT_FILE, f"{database} {boot_id()}\n".encode()
    attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.exists() and file.read_bytes() == current:
        return None
    replace_file(file, current)
    return datetime.now(UTC)

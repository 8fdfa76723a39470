"""The content of a backup."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackupSummary:
    """A backup. version: of Labrats that wrote it. files: number beside the database. size: in bytes."""

    version: str
    files: int
    size: int

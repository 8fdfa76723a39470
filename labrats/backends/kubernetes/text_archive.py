"""Texts of ended jobs, on the data volume instead of in etcd, which the prompts of a month could fill.

A ConfigMap of a job moves there an hour after the end of the job (text_archiver.py). The store reads it from there, and
moves it back when the job is retried.
"""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from labrats.model.core_resources import ConfigMap
from labrats.model.job import Job
from labrats.model.record import encode

_NAME: Final = re.compile(r"(?P<job>.+)-(?:prompt|conversation|event|[0-9a-f]{8}-texts)")
"""The names that the engine gives to the ConfigMaps of a job."""


class TextArchive:
    """The archived ConfigMaps, in a folder for each job. folder: on the data volume; it may not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> ConfigMap | None:
        """Return the archived ConfigMap, if there is one."""
        path = self._path(name)
        with suppress(FileNotFoundError):
            return msgspec.json.decode(path.read_bytes(), type=ConfigMap) if path else None
        return None

    def write(self, config_map: ConfigMap) -> bool:
        """Store a ConfigMap durably. Return False if its name is not one of the engine's. Raises OSError."""
        if (path := self._path(config_map.name)) is None:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(encode(config_map))
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        return True

    def jobs(self) -> list[str]:
        """Return the ids of the jobs with archived texts."""
        with suppress(FileNotFoundError):
            return sorted(os.listdir(self._folder))
        return []

    def remove(self, job_id: str) -> None:
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def _path(self, name: str) -> Path | None:
        found = _NAME.fullmatch(name)
        return self._folder / found["job"] / f"{name}.json" if found else None


def text_names(job: Job) -> list[str]:
    """Return the names of the ConfigMaps with the texts of a job."""
    spec = job.spec
    references = (job.prompt_ref, job.instructions_ref, spec.conversation_ref, spec.event_ref)
    return sorted({reference.name for reference in references if reference})

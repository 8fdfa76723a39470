"""Where the files of an attempt lie."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.model.protocol import PATCH_FILE, RESULT_FILE
from labrats.processes import ProcessId

_ATTEMPT_NAME: Final = re.compile(r".+-[0-9]+")


@dataclass(frozen=True)
class AttemptFolder:
    """The folder of one attempt: inputs, output, and who runs it. The agent's workspace lies elsewhere."""

    path: Path
    workspace: Path

    @property
    def output(self) -> Path:
        return self.path / "output.jsonl"

    @property
    def result(self) -> Path:
        return self.path / RESULT_FILE

    @property
    def patch(self) -> Path:
        return self.path / PATCH_FILE

    def write_inputs(self, inputs: Mapping[str, bytes]) -> None:
        """Write the files that the executor reads, by their names in the folder."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(name.startswith("secrets/") for name in inputs):
            (self.path / "secrets").mkdir(mode=0o700, exist_ok=True)
        for name, data in inputs.items():
            self._write_input(name, data)

    def _write_input(self, name: str, data: bytes) -> None:
        """Whole or not at all: an executor may be reading the folder."""
        target = self.path / name
        descriptor = os.open(f"{target}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.rename(f"{target}.new", target)

    def executor(self) -> "ProcessId | Tombstone | None":
        """Who has claimed the attempt; None while nobody has."""
        try:
            text = (self.path / "claim").read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return ProcessId.parse(text) or Tombstone()

    def bury(self) -> None:
        """Claim the attempt for nobody, so that no executor starts any more. Harmless when it is claimed."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        grave = self.path / "claim.tombstone"
        grave.write_text("never started\n")
        try:
            os.link(grave, self.path / "claim")
        except FileExistsError:
            pass
        finally:
            grave.unlink(missing_ok=True)

    def exit_words(self) -> tuple[str, int] | None:
        """How the executor ended, `("exit", 3)` or `("signal", 9)`, where the launcher lived to see it."""
        try:
            word, number = (self.path / "exit").read_text().split()
            return word, int(number)
        except (OSError, ValueError):
            return None

    def remove(self, *, keep_output: bool) -> None:
        """Delete the workspace and the agent's home, and all the rest unless `keep_output`."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        for scratch in ("home", "tmp", "secrets", "baseline.git"):
            shutil.rmtree(self.path / scratch, ignore_errors=True)
        if not keep_output:
            shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class Tombstone:
    """The attempt was claimed so that nobody can start it."""


@dataclass(frozen=True)
class Folders:
    """Where attempts are kept. Spread over 256 folders by the end of the job's name, so that none grows huge."""

    attempts: Path
    workspaces: Path

    def of(self, name: str) -> AttemptFolder:
        job_id = name.rpartition("-")[0]
        return AttemptFolder(self.attempts / job_id[-2:] / name, self.workspaces / name)

    def workspace_names(self) -> list[str]:
        """The attempts that have a workspace."""
        try:
            folders = [entry.name for entry in os.scandir(self.workspaces) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [name for name in folders if _ATTEMPT_NAME.fullmatch(name)]  # other things are kept there too

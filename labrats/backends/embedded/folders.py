"""The folders of attempts on this machine."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from labrats.files.attempt_inputs import SECRETS_FOLDER
from labrats.files.attempt_output import attempt_names
from labrats.files.block_groups import spread_subfolders
from labrats.files.durability import replace_file
from labrats.files.safe_paths import NotRegularFile, read_regular_file, write_new
from labrats.files.trees import remove_path, remove_tree, sizes_on_disk
from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import (
    BASELINE_FILE,
    CHANGES_FILE,
    CHANGES_WANTED_FILE,
    CLAIM_FILE,
    CREDENTIALS_FOLDER,
    EXIT_FILE,
    OUTPUT_FILE,
    LogEvent,
)
from labrats.model.record import encode
from labrats.processes import ProcessId, executor_process_name, process_name

_SCRATCH: Final = ("home", "tmp", "baseline.git", "staging.git", "running.git", CREDENTIALS_FOLDER)
"""Folders beside the output that are deleted with the workspace."""

NOT_IN_BACKUPS: Final = frozenset({*_SCRATCH, SECRETS_FOLDER})
"""Folders of an attempt that a backup leaves out."""

_ORIGIN_FILE: Final = "origin"

_LINE_BYTES: Final = 256
"""Maximum size of a claim, of an exit status, and of an origin."""


@dataclass(frozen=True)
class AttemptFolder:
    """The folder of one attempt, with its inputs, its output and its claim. The agent's workspace is a folder apart."""

    path: Path
    workspace: Path

    @property
    def output(self) -> Path:
        return self.path / OUTPUT_FILE

    @property
    def is_resumable(self) -> bool:
        """True while a later attempt can use the workspace and the home."""
        return (self.path / BASELINE_FILE).is_file() and self.workspace.is_dir()

    def has_changes_younger_than(self, seconds: float) -> bool:
        """Return whether the executor has reported the changes so far in the last seconds."""
        try:
            return time.time() - (self.path / CHANGES_FILE).lstat().st_mtime < seconds
        except FileNotFoundError:
            return False

    def ask_for_changes(self) -> None:
        """Ask the executor for the changes so far."""
        write_new(self.path / CHANGES_WANTED_FILE, b"")

    @property
    def is_asked_for_changes(self) -> bool:
        """True until the executor has reported the changes so far, or has failed to."""
        return (self.path / CHANGES_WANTED_FILE).exists()

    def forbid_resume(self) -> None:
        """Prevent later attempts from using the workspace and the home."""
        remove_path(self.path / BASELINE_FILE)  # an agent may have put a folder there

    def write_inputs(self, inputs: Mapping[str, bytes]) -> None:
        """Write the executor's inputs. inputs: content by relative path."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(name.startswith(f"{SECRETS_FOLDER}/") for name in inputs):
            (self.path / SECRETS_FOLDER).mkdir(mode=0o700, exist_ok=True)
        for name, data in inputs.items():
            self._write_input(name, data)

    def _write_input(self, name: str, data: bytes) -> None:
        """Write one input atomically, since an executor may be reading the folder."""
        target = self.path / name
        unfinished = Path(f"{target}.new")
        write_new(unfinished, data)
        unfinished.replace(target)

    def executor(self) -> "ProcessId | Placeholder | None":
        """Return the process that claimed the attempt; None while there is no claim."""
        try:
            text = read_regular_file(self.path / CLAIM_FILE, _LINE_BYTES)
        except NotRegularFile:
            return Placeholder()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return ProcessId.parse(text.decode("utf-8", "replace")) or Placeholder()

    def is_run_by(self, claimant: ProcessId) -> bool:
        """Return whether `claimant` is alive and an executor of this attempt.

        The claim is no proof: an agent could write the pid of another process into it, to have that process killed.
        An executor's process name is the mark of its folder.
        """
        return claimant.is_alive and (
            process_name(claimant.pid) == executor_process_name(self.path) or self._is_stdout_of(claimant)
        )

    def _is_stdout_of(self, claimant: ProcessId) -> bool:
        """Return whether the standard output of `claimant` is the attempt's output.

        This recognizes executors of 0.1, which have no mark. Those of later versions can be inspected by root only.
        """
        try:
            stdout = os.readlink(f"/proc/{claimant.pid}/fd/1")
        except OSError:
            return False
        return stdout.removesuffix(" (deleted)") == str(self.path.resolve() / OUTPUT_FILE)

    def write_note(self, text: str) -> None:
        """Write a line for people as the only one of the output. No executor may be able to start."""
        note = LogEvent(seq=1, at=datetime.now(UTC), text=f"[{text}]", origin="engine")
        self.output.write_bytes(encode(note) + b"\n")

    def prevent_start(self) -> None:
        """Write a placeholder claim, so that no executor can start. Does nothing if the attempt is claimed already."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        placeholder = self.path / f"{CLAIM_FILE}.tombstone"
        write_new(placeholder, b"never started\n")
        try:
            os.link(placeholder, self.path / CLAIM_FILE)
        except FileExistsError:
            pass
        finally:
            placeholder.unlink(missing_ok=True)

    def exit_status(self) -> tuple[str, int] | None:
        """Return how the executor ended, `("exit", 3)` or `("signal", 9)`; None if the launcher did not record it."""
        try:
            word, number = read_regular_file(self.path / EXIT_FILE, _LINE_BYTES).decode().split()
            return word, int(number)
        except (OSError, ValueError):
            return None

    @property
    def has_secrets(self) -> bool:
        """True while there may be secrets that a killed executor left.

        An empty folder stays until the attempt is removed: to delete a folder may wait for the disk, and most executors
        leave nothing in it.
        """
        return any(_has_entries(self.path / folder) for folder in (SECRETS_FOLDER, CREDENTIALS_FOLDER))

    def remove_secrets(self) -> None:
        """Delete secrets, and what an agent has put beside them, which may be much."""
        for folder in (SECRETS_FOLDER, CREDENTIALS_FOLDER):
            remove_tree(self.path / folder)

    def workspace_bytes(self) -> int:
        """Return the bytes of what `remove` deletes while it keeps the output."""
        return sum(sizes_on_disk([self.workspace, *(self.path / name for name in _SCRATCH)]))

    def remove(self, *, keep_output: bool) -> None:
        """Delete the workspace and the agent's home; without `keep_output`, delete the whole folder."""
        self.forbid_resume()
        remove_tree(self.workspace)
        self.remove_secrets()
        for scratch in _SCRATCH:
            remove_tree(self.path / scratch)
        if not keep_output:
            remove_tree(self.path)


def _has_entries(folder: Path) -> bool:
    """Return whether there may be anything in `folder`."""
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except FileNotFoundError:
        return False
    except OSError:  # not a folder, or one that this user may not read
        return True


@dataclass(frozen=True)
class Placeholder:
    """A claim without a process, which keeps the attempt from ever starting."""


@dataclass(frozen=True)
class Folders:
    """The folders of all attempts, spread over subfolders by the last two characters of the job's id."""

    attempts: Path
    workspaces: Path

    def prepare(self) -> None:
        """Create the folders, and spread their subfolders over the disk."""
        for folder in (self.attempts, self.workspaces):
            spread_subfolders(folder)

    def origin(self) -> str | None:
        """Return the database and the boot with which an engine last used these folders; None if there was none."""
        try:
            return read_regular_file(self.attempts / _ORIGIN_FILE, _LINE_BYTES).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return None

    def note_origin(self, origin: str) -> None:
        """Record the database and the boot, on stable storage. Raises OSError."""
        self.attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.attempts / _ORIGIN_FILE, f"{origin}\n".encode())

    def of(self, name: AttemptName) -> AttemptFolder:
        return AttemptFolder(self.attempts / name.job_id[-2:] / str(name), self.workspaces / str(name))

    def attempt_names(self) -> Iterator[AttemptName]:
        """Yield the attempts that have a folder or a workspace."""
        yield from attempt_names(self.attempts)
        yield from (name for name in self.workspace_names() if not self.of(name).path.exists())

    def workspace_names(self) -> list[AttemptName]:
        """Return the attempts that have a workspace."""
        try:
            folders = [entry.name for entry in os.scandir(self.workspaces) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [name for folder in folders if (name := AttemptName.parse(folder))]  # PDF uploads are there, too

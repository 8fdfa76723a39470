"""Where the files of an attempt lie."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.files.attempt_inputs import SECRETS_FOLDER
from labrats.files.attempt_output import attempt_names
from labrats.files.plain_files import NotPlain, read_plain
from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import (
    BASELINE_FILE,
    CLAIM_FILE,
    CREDENTIALS_FOLDER,
    EXIT_FILE,
    OUTPUT_FILE,
    PATCH_FILE,
    RESULT_FILE,
)
from labrats.processes import ProcessId, folder_mark, name_of

_WORDS_BYTES: Final = 256
"""The longest claim, and the longest word on an exit."""


@dataclass(frozen=True)
class AttemptFolder:
    """The folder of one attempt: inputs, output, and who runs it. The agent's workspace lies elsewhere."""

    path: Path
    workspace: Path

    @property
    def output(self) -> Path:
        return self.path / OUTPUT_FILE

    @property
    def result(self) -> Path:
        return self.path / RESULT_FILE

    @property
    def patch(self) -> Path:
        return self.path / PATCH_FILE

    @property
    def is_kept(self) -> bool:
        """Whether another attempt can go on in its workspace and home."""
        return (self.path / BASELINE_FILE).is_file() and self.workspace.is_dir()

    def give_up(self) -> None:
        """From now on no other attempt can go on in its workspace and home."""
        (self.path / BASELINE_FILE).unlink(missing_ok=True)

    def write_inputs(self, inputs: Mapping[str, bytes]) -> None:
        """Write the files that the executor reads, by their names in the folder."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(name.startswith(f"{SECRETS_FOLDER}/") for name in inputs):
            (self.path / SECRETS_FOLDER).mkdir(mode=0o700, exist_ok=True)
        for name, data in inputs.items():
            self._write_input(name, data)

    def _write_input(self, name: str, data: bytes) -> None:
        """Whole or not at all: an executor may be reading the folder."""
        target = self.path / name
        unfinished = Path(f"{target}.new")
        _write_anew(unfinished, data)
        unfinished.replace(target)

    def executor(self) -> "ProcessId | Placeholder | None":
        """Who has claimed the attempt; None while nobody has."""
        try:
            text = read_plain(self.path / CLAIM_FILE, _WORDS_BYTES)
        except NotPlain:
            return Placeholder()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return ProcessId.parse(text.decode("utf-8", "replace")) or Placeholder()

    def is_run_by(self, claimant: ProcessId) -> bool:
        """Return whether `claimant` lives, and is an executor of this attempt: that is, it bears the folder's mark.

        Not by the claim alone: an agent might have written it, in the name of a process that it wants ended.
        """
        return claimant.is_alive and (name_of(claimant.pid) == folder_mark(self.path) or self._is_printed_to(claimant))

    def _is_printed_to(self, claimant: ProcessId) -> bool:
        """Return whether `claimant` prints to the attempt's output, as did the executors of 0.1, which bear no mark.

        Nobody but root may ask that of later ones.
        """
        try:
            prints_to = os.readlink(f"/proc/{claimant.pid}/fd/1")
        except OSError:
            return False
        return prints_to.removesuffix(" (deleted)") == str(self.path.resolve() / OUTPUT_FILE)

    def bury(self) -> None:
        """Claim the attempt for nobody, so that no executor starts any more. Harmless when it is claimed."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        grave = self.path / f"{CLAIM_FILE}.tombstone"
        _write_anew(grave, b"never started\n")
        try:
            os.link(grave, self.path / CLAIM_FILE)
        except FileExistsError:
            pass
        finally:
            grave.unlink(missing_ok=True)

    def exit_words(self) -> tuple[str, int] | None:
        """How the executor ended, `("exit", 3)` or `("signal", 9)`, where the launcher lived to see it."""
        try:
            word, number = read_plain(self.path / EXIT_FILE, _WORDS_BYTES).decode().split()
            return word, int(number)
        except (OSError, ValueError):
            return None

    def remove_secrets(self) -> None:
        """Delete what an executor that was killed may have left of its secrets."""
        for folder in (SECRETS_FOLDER, CREDENTIALS_FOLDER):
            if (self.path / folder).exists():
                _remove_tree(self.path / folder)

    def remove(self, *, keep_output: bool) -> None:
        """Delete the workspace and the agent's home, and all the rest unless `keep_output`."""
        self.give_up()
        _remove_tree(self.workspace)
        self.remove_secrets()
        for scratch in ("home", "tmp", "baseline.git"):
            _remove_tree(self.path / scratch)
        if not keep_output:
            _remove_tree(self.path)


def _write_anew(path: Path, data: bytes) -> None:
    """Write a file of our own, whatever lay there: a pipe would keep its writer waiting, a link lead elsewhere."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _remove_tree(tree: Path) -> None:
    """Delete `tree`, as far as that is possible."""
    with suppress(RecursionError):  # an agent can dig deeper than it follows
        shutil.rmtree(tree, ignore_errors=True)
    if tree.is_dir() and not tree.is_symlink():
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)


@dataclass(frozen=True)
class Placeholder:
    """The attempt was claimed so that nobody can start it."""


@dataclass(frozen=True)
class Folders:
    """Where attempts are kept. Spread over 256 folders by the end of the job's name, so that none grows huge."""

    attempts: Path
    workspaces: Path

    def of(self, name: AttemptName) -> AttemptFolder:
        return AttemptFolder(self.attempts / name.job_id[-2:] / str(name), self.workspaces / str(name))

    def attempt_names(self) -> list[AttemptName]:
        """The attempts that have a folder or a workspace."""
        return sorted({*attempt_names(self.attempts), *self.workspace_names()})

    def workspace_names(self) -> list[AttemptName]:
        """The attempts that have a workspace."""
        try:
            folders = [entry.name for entry in os.scandir(self.workspaces) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return [name for folder in folders if (name := AttemptName.parse(folder))]  # other things are kept there too

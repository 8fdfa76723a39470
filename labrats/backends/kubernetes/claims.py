"""The claims of attempts on the shared volume.

The cluster may start two pods of one attempt. Both mount the attempt's folder, and only the pod that creates the claim
file in it runs the attempt. The engine creates the folder and reads the file; it never writes a claim itself.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import CLAIM_FILE

CLAIMS_FOLDER: Final = "claims"
"""Folder of the claims on the volume, beside that of the outputs."""


@dataclass(frozen=True)
class Claims:
    """The claims in the folder `root`."""

    root: Path

    def prepare(self, name: AttemptName) -> None:
        """Create the folder in which a pod claims the attempt, if it does not exist."""
        self._folder(name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def holder(self, name: AttemptName) -> str | None:
        """Return the name of the pod that claimed the attempt; None while there is no claim, or for an empty one."""
        try:
            return next(iter((self._folder(name) / CLAIM_FILE).read_text(errors="replace").split()), None)
        except FileNotFoundError:
            return None

    def remove(self, name: AttemptName) -> None:
        """Delete the folder of the claim. No pod can claim the attempt afterwards."""
        shutil.rmtree(self._folder(name), ignore_errors=True)

    def _folder(self, name: AttemptName) -> Path:
        return self.root.joinpath(*claim_path(name).relative_to(CLAIMS_FOLDER).parts)


def claim_path(name: AttemptName) -> PurePath:
    """Return the attempt's folder, relative to the root of the volume."""
    return PurePath(CLAIMS_FOLDER, name.job_id[-2:], str(name))

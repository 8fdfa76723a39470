"""The claims of attempts on the shared volume.

The cluster may start two pods of one attempt. Each pod has the attempt's folder here, and the first to create a file in
it is the one that acts. The claim is the pods' own: the engine only makes the folder, and looks.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from labrats.files.attempt_output import attempt_names
from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import CLAIM_FILE

CLAIMS_FOLDER: Final = "claims"
"""Its name on the volume, beside the folder of the attempts' outputs."""


@dataclass(frozen=True)
class Claims:
    """The claims below a folder of the shared volume."""

    root: Path

    def prepare(self, name: AttemptName) -> None:
        """Make the folder in which the attempt's pods claim it. Harmless when repeated."""
        self._folder(name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def holder(self, name: AttemptName) -> str | None:
        """The pod that has claimed the attempt; None while none has."""
        try:
            return (self._folder(name) / CLAIM_FILE).read_text().split()[0]
        except FileNotFoundError:
            return None

    def names(self) -> list[AttemptName]:
        """The attempts that have a folder for their claim."""
        return attempt_names(self.root)

    def remove(self, name: AttemptName) -> None:
        """Forget the claim, and with it the attempt: none of its pods can claim it any more."""
        shutil.rmtree(self._folder(name), ignore_errors=True)

    def _folder(self, name: AttemptName) -> Path:
        return self.root.joinpath(*claim_path(name).relative_to(CLAIMS_FOLDER).parts)


def claim_path(name: AttemptName) -> PurePath:
    """The attempt's folder on the volume. Spread over 256 folders by the end of the job's name."""
    return PurePath(CLAIMS_FOLDER, name.job_id[-2:], str(name))

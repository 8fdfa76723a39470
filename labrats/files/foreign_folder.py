"""A data folder of another user of the machine, which an engine and its commands cannot use."""

import os
from pathlib import Path

from labrats.processes import user_name


def problem_of_foreign_folder(folder: Path) -> str | None:
    """Return why this user cannot use or create `folder`, which another user owns; None if that is not the reason."""
    for existing in (folder, *folder.parents):
        try:
            owner = existing.stat().st_uid
        except OSError:  # it does not exist, or its parent cannot be read
            continue
        if owner == os.geteuid() or os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            return None
        place = f"the data folder {folder}" if existing == folder else f"{existing}, where the data folder would be,"
        return (
            f"{place} belongs to {user_name(owner)}, and this command runs as {user_name(os.geteuid())}: run it as"
            " that user, or name another folder with --data-dir or LABRATS_DATA_DIR"
        )
    return None

"""The version that `labrats --version` prints, with the commit that it was built from."""

import subprocess
from pathlib import Path
from typing import Final

from labrats import __version__

_PACKAGE: Final = Path(__file__).parents[1]


def version_text() -> str:
    """Return the version and, if it is known, the commit."""
    commit = _commit()
    return f"{__version__} (commit {commit})" if commit else __version__


def _commit() -> str | None:
    """Return the short name of the commit: that which the build has recorded, or that of a clone."""
    try:
        return (_PACKAGE / "commit.txt").read_text().strip()
    except FileNotFoundError:
        pass
    if not (_PACKAGE.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(_PACKAGE.parent), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a clone of another user
        return None

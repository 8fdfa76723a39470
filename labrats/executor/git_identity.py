"""The author of commits for which nobody has set another one: an agent's own, and those that the engine adds.

The address cannot exist, so no account of a git server is shown as the author.
"""

from pathlib import Path
from typing import Final

_NAME: Final = "Labrats"
_EMAIL: Final = "agent@labrats.invalid"

IDENTITY: Final = {
    f"GIT_{role}_{field}": value
    for role in ("AUTHOR", "COMMITTER")
    for field, value in (("NAME", _NAME), ("EMAIL", _EMAIL))
}
"""Variables for commits of the engine."""


def write_identity(home: Path) -> None:
    """Let git commit in a new home, where it would refuse to without an author. A repository may name another one."""
    (home / ".gitconfig").write_text(f"[user]\n\tname = {_NAME}\n\temail = {_EMAIL}\n")

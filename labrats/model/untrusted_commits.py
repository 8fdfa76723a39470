"""Marks on GitHub of the commits of untrusted jobs.

They are on branches and in pull requests of their own, which events name. So every process that receives an event, also
one without an index of jobs, knows them, and so does one that receives it after the jobs were deleted.
"""

import re
from typing import Final

BRANCH_PREFIX: Final = "labrats-external/"
"""The beginning of the names of these branches. No other commits of the engine get there."""

MARK: Final = "<!-- labrats:external -->"
"""The hidden mark in the texts of their pull requests, for events that do not name the branch, such as a comment."""


_PREFIXES: Final = re.compile("^(refs/(heads|tags)/)+")
"""Prefixes of full names, of which a caller's own executor may report several."""


def is_for_untrusted_commits(ref: str) -> bool:
    """Return whether a branch, or a ref that names one, has commits of untrusted jobs."""
    return _PREFIXES.sub("", ref).startswith(BRANCH_PREFIX)

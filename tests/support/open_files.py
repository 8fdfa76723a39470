"""The open files of this process."""

import os
from contextlib import suppress
from pathlib import Path


def deleted_open_files() -> set[str]:
    """Return the files that this process has open and that have no name any more, such as SQLite's temporary ones."""
    links = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            links.add(os.readlink(descriptor))
    return {link for link in links if link.endswith(" (deleted)")}

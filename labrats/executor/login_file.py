"""The file of a login, whose program renews the tokens in it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from labrats.files.safe_paths import read_regular_file
from labrats.model.login_tokens import tokens_in

_FILE_BYTES: Final = 256 * 1024


class LoginFile:
    """The file of a login that an agent's program, or another program of the user, may renew at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens = set[str]()

    def new_tokens(self) -> list[str]:
        """Return the tokens that the file has and never had before. Reads it only if it has changed."""
        with suppress(OSError):
            status = os.stat(self._path, follow_symlinks=False)
            seen = status.st_ino, status.st_mtime_ns, status.st_size
            if seen != self._seen:
                tokens = tokens_in(read_regular_file(self._path, _FILE_BYTES))
                new = [token for token in tokens if token not in self._tokens]
                self._seen = seen
                self._tokens.update(new)
                return new
        return []

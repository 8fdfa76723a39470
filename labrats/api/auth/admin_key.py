"""The admin key of an engine that is all there is: in a file, which only its owner can read."""

import os
from pathlib import Path

from labrats.api.auth.keys import ADMIN, SUBMIT, key_secret, new_key
from labrats.model.errors import Conflict
from labrats.ports import Store


async def ensure_admin_key(store: Store, path: Path) -> None:
    """See to it that the file at `path`, which only its owner can read, holds a valid admin key.

    The file is written first: a crash in between leaves a key that is not valid yet, and is made so at the next start.
    """
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{new_key()}\n")
    except FileExistsError:
        pass
    secret = key_secret(ADMIN, path.read_text().strip(), (SUBMIT, ADMIN))
    try:
        await store.create(secret)
    except Conflict:
        known = await store.get(type(secret), secret.name)
        if known.data["hash"] != secret.data["hash"]:  # the file was replaced, or lost and made anew
            await store.delete(type(secret), secret.name)
            await store.create(secret)

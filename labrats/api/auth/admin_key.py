"""The admin key of a stand-alone engine, in a file that only its owner can read."""

import os
from pathlib import Path

from labrats.api.auth.keys import key_secret, new_key
from labrats.model.caller import ADMIN, SUBMIT
from labrats.model.errors import Conflict
from labrats.ports import Store


async def ensure_admin_key(store: Store, path: Path) -> None:
    """Ensure that the file at `path` holds a valid admin key. A new file is readable by its owner only.

    The file is written first: after a crash in between, the next start stores the key of the file.
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
        stored = await store.get(type(secret), secret.name)
        if stored.data["hash"] != secret.data["hash"]:  # the file was replaced, or lost and created again
            await store.delete(type(secret), secret.name)
            await store.create(secret)

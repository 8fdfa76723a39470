"""The admin key of a stand-alone engine, in a file that only its owner can read."""

from pathlib import Path

from labrats.api.auth.keys import key_secret, new_key
from labrats.files.durability import replace_file
from labrats.model.api_key import hash_key
from labrats.model.caller import ADMIN, SUBMIT
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict
from labrats.ports import Store


async def ensure_admin_key(store: Store, path: Path) -> None:
    """Ensure that the file at `path` holds a valid admin key. A new file is readable by its owner only.

    The file is written first: after a crash in between, the next start stores the key of the file. An empty file, such
    as a full disk may leave, gets a new key.
    """
    if not _key_in(path):
        replace_file(path, f"{new_key()}\n".encode(), mode=0o600)
    secret = key_secret(ADMIN, _key_in(path), (SUBMIT, ADMIN))
    try:
        await store.create(secret)
    except Conflict:
        stored = await store.get(type(secret), secret.name)
        if stored.data["hash"] != secret.data["hash"]:  # the file was replaced, or lost and created again
            await store.delete(type(secret), secret.name)
            await store.create(secret)


def delete_revoked(path: Path, revoked: Secret) -> None:
    """Delete the file at `path` if it holds the key that `revoked` represents, or the next start would store it again.

    The next start then writes a new key.
    """
    if (key := _key_in(path)) and hash_key(key) == revoked.data.get("hash"):
        path.unlink(missing_ok=True)


def _key_in(path: Path) -> str:
    """Return the key in the file; empty without one."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""

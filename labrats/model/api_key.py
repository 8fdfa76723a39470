"""API keys: the hash that is stored, and the shortest key that may be applied."""

import hashlib
from typing import Final

SHORTEST_KEY: Final = 32
"""Characters of a key that is applied with kubectl. A shorter one could be guessed."""


def hash_key(key: str) -> str:
    """Return the hash that is stored for a key. A fast hash is enough, since keys are random and cannot be guessed."""
    return hashlib.sha256(key.encode()).hexdigest()

"""API keys: what they look like, how they are kept (hashed), and who a request comes from."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from labrats.model.parts import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret
from labrats.model.record import Metadata
from labrats.ports import Changed, Deleted, Store

SUBMIT: Final = "submit"
ADMIN: Final = "admin"
SCOPES: Final = (SUBMIT, ADMIN)
PREFIX_LENGTH: Final = 8


@dataclass(frozen=True)
class Caller:
    """Who a request comes from. id: the owner of the jobs it submits."""

    id: str
    scopes: frozenset[str]
    expires_at: datetime | None = None

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.scopes

    def may_see(self, owner: str) -> bool:
        return self.is_admin or owner == self.id


def new_key() -> str:
    """A fresh API key: `lr_` and 43 url-safe characters, 256 random bits."""
    return f"lr_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    """What is kept of a key. A fast hash is enough: keys are random, so there is nothing to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_id(name: str) -> str:
    """The resource's name for a key called `name`: the same name is taken twice, whatever characters it has."""
    return f"key-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def key_secret(name: str, key: str, scopes: Sequence[str], expires_at: datetime | None = None) -> Secret:
    """The Secret that keeps `key`: its hash and the prefix people know it by."""
    data = {"name": name, "hash": hash_key(key), "prefix": key[:PREFIX_LENGTH], "scopes": ",".join(scopes)}
    if expires_at:
        data["expiresAt"] = expires_at.isoformat()
    return Secret(metadata=Metadata(name=key_id(name), labels={API_KEY_LABEL: API_KEY_LABEL_VALUE}), data=data)


@dataclass(frozen=True)
class _Known:
    digest: str
    caller: Caller


class KeyRing:
    """The API keys that are valid now: those of SUBMIT_API_KEYS, and the stored ones, kept up to date by a watch."""

    def __init__(self, submit_api_keys: Sequence[str]) -> None:
        self._fixed: dict[str, _Known] = {}
        self._stored: dict[str, _Known] = {}
        self._by_secret: dict[str, str] = {}
        self.synced = asyncio.Event()
        for key in submit_api_keys:
            digest = hash_key(key)
            self._fixed[_index(digest)] = _Known(digest, Caller(f"env-{digest[:10]}", frozenset({SUBMIT})))

    async def follow(self, store: Store) -> None:
        """Take in every change of the stored keys, until cancelled."""
        async for change in store.watch(Secret):
            match change:
                case Changed(secret) if secret.metadata.labels.get(API_KEY_LABEL) == API_KEY_LABEL_VALUE:
                    self._add(secret)
                case Changed(secret) | Deleted(secret):
                    self._remove(secret.name)
                case _:
                    self.synced.set()

    def caller(self, key: str, now: datetime) -> Caller | None:
        """Who `key` belongs to; None when it is unknown, revoked or expired."""
        digest = hash_key(key)
        known = self._fixed.get(_index(digest)) or self._stored.get(_index(digest))
        if known is None or not hmac.compare_digest(known.digest, digest):
            return None
        return None if known.caller.expires_at and now >= known.caller.expires_at else known.caller

    def _add(self, secret: Secret) -> None:
        self._remove(secret.name)
        digest = secret.data.get("hash", "")
        expires_at = secret.data.get("expiresAt")
        scopes = frozenset(secret.data.get("scopes", SUBMIT).split(","))
        caller = Caller(secret.name, scopes, datetime.fromisoformat(expires_at) if expires_at else None)
        self._by_secret[secret.name] = _index(digest)
        self._stored[_index(digest)] = _Known(digest, caller)

    def _remove(self, name: str) -> None:
        if (index := self._by_secret.pop(name, None)) is not None:
            self._stored.pop(index, None)


def _index(digest: str) -> str:
    """Keys are found by the first half of their hash, and compared, in constant time, by all of it."""
    return digest[:32]

"""API keys: what they look like, how they are kept (hashed), and who a request comes from."""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.api.auth.notifier import Notifier
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret
from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater
from labrats.model.record import Metadata
from labrats.ports import Changed, Deleted, Store

log = structlog.get_logger()

SUBMIT: Final = "submit"
ADMIN: Final = "admin"
SCOPES: Final = (SUBMIT, ADMIN)
PREFIX_LENGTH: Final = 8

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which `kubectl apply` keeps all that it was given, a key in the clear included."""

LONGEST_SILENCE_SECONDS: Final = 150.0
"""For how long stored keys are believed without a word from the storage. A watch that is well is heard once a minute;
one that has died without a word is opened anew after little more, and heard within another minute.
"""

LONGEST_WAIT_SECONDS: Final = 5.0
"""For how long an answer waits for what the storage tells of the key that it is about."""


@dataclass(frozen=True)
class Caller:
    """Who a request comes from. id: the owner of the jobs it submits. secret: the Secret of its key, if it has one."""

    id: str
    scopes: frozenset[str]
    expires_at: datetime | None = None
    secret: str | None = None

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.scopes

    def may_see(self, owner: str) -> bool:
        return self.is_admin or owner == self.id


def new_key() -> str:
    """A fresh API key: `lr_` and 43 url-safe characters, 256 random bits."""
    return f"lr_{secrets.token_urlsafe(32)}"


def derived_key(maker_key: str, nonce: str, salt: str) -> str:
    """A key that looks like a fresh one, yet is found again by whoever has all three.

    Of these only the salt is kept, so that the key is not to be found from what is kept.
    """
    digest = hmac.digest(maker_key.encode(), f"{salt}\0{nonce}".encode(), "sha256")
    return f"lr_{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def hash_key(key: str) -> str:
    """What is kept of a key. A fast hash is enough: keys are random, so there is nothing to guess."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_id(name: str) -> str:
    """The resource's name for a key called `name`: the same name is taken twice, whatever characters it has."""
    return f"key-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def key_secret(name: str, key: str, scopes: Sequence[str], expires_at: datetime | None = None) -> Secret:
    """The Secret that keeps `key`: its hash and the prefix people know it by."""
    data = {"name": name, **_kept_of(key), "scopes": ",".join(scopes)}
    if expires_at:
        data["expiresAt"] = expires_at.isoformat()
    return Secret(metadata=Metadata(name=key_id(name), labels={API_KEY_LABEL: API_KEY_LABEL_VALUE}), data=data)


def _kept_of(key: str) -> dict[str, str]:
    shown = min(PREFIX_LENGTH, len(key) // 2)  # a person may have made a short one
    return {"hash": hash_key(key), "prefix": key[:shown]}


def hashed_at_rest(secret: Secret) -> Secret:
    """`secret` with its hash in the place of the key itself, which a hand-made one may hold."""
    if not (key := secret.data.get("key")):
        return secret
    others = {name: value for name, value in secret.data.items() if name != "key"}
    annotations = {name: value for name, value in secret.metadata.annotations.items() if name != LAST_APPLIED}
    metadata = replace(secret.metadata, annotations=annotations)
    return replace(secret, metadata=metadata, data=others | _kept_of(key.strip()))


@dataclass(frozen=True)
class _Known:
    digest: str
    caller: Caller


class ApiKeyIndex:
    """The API keys that are valid now: those of SUBMIT_API_KEYS, and the stored ones, kept up to date by a watch."""

    def __init__(self, submit_api_keys: Sequence[str]) -> None:
        self._fixed: dict[str, _Known] = {}
        self._stored: dict[str, _Known] = {}
        self._by_secret: dict[str, str] = {}
        self._silent_seconds: Callable[[], float] = lambda: 0.0
        self.synced = asyncio.Event()
        self.changes = Notifier()
        for key in submit_api_keys:
            digest = hash_key(key)
            self._fixed[_index(digest)] = _Known(digest, Caller(f"env-{digest[:10]}", frozenset({SUBMIT})))

    async def follow(self, store: Store) -> None:
        """Take in every change of the stored keys, until cancelled."""
        self._silent_seconds = partial(store.silent_seconds, Secret)
        async for change in store.watch(Secret):
            match change:
                case Changed(secret) if secret.metadata.labels.get(API_KEY_LABEL) == API_KEY_LABEL_VALUE:
                    await self._take_in(secret, store)
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

    def refuse_unless_sure(self, caller: Caller) -> None:
        """Raises RetryLater where the caller's key may have been revoked, and nobody could tell."""
        if caller.secret and self._silent_seconds() > LONGEST_SILENCE_SECONDS:
            raise RetryLater("the engine cannot tell at present which API keys were revoked", delay_seconds=5)

    async def heard_of(self, secret_name: str, *, known: bool) -> None:
        """Wait until the storage has told that a key is there, or is gone: what is answered then holds from now on, at
        other replicas too, give or take a moment. Not for ever: a storage that is slow to tell has it all the same.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                while (secret_name in self._by_secret) is not known:
                    await self.changes.next.wait()

    async def _take_in(self, secret: Secret, store: Store) -> None:
        """Know the key from now on. One that was made by hand and makes no sense is no key, and harms no other."""
        self._remove(secret.name)
        hashed = hashed_at_rest(secret)
        try:
            self._add(hashed)
        except ValueError as error:
            log.warning("an API key's Secret makes no sense", secret=secret.name, reason=str(error))
        if hashed is not secret:
            await _keep(hashed, store)

    def _add(self, secret: Secret) -> None:
        """Raises ValueError when it makes no sense."""
        digest = secret.data.get("hash", "")
        if len(digest) != hashlib.sha256().digest_size * 2:
            raise ValueError("it has neither a `key` nor the SHA-256 of one as `hash`")
        caller = Caller(secret.name, _scopes_of(secret), expiry_of(secret), secret.name)
        self._by_secret[secret.name] = _index(digest)
        self._stored[_index(digest)] = _Known(digest, caller)
        self.changes.notify()

    def _remove(self, name: str) -> None:
        if (index := self._by_secret.pop(name, None)) is not None:
            self._stored.pop(index, None)
            self.changes.notify()


async def _keep(hashed: Secret, store: Store) -> None:
    """Store it in the place of one with the key itself, where that can be done: a person may have made it immutable."""
    try:
        await store.update(hashed)
    except (Conflict, NotFound):
        pass  # somebody wrote it meanwhile: the watch tells
    except (Invalid, RetryLater) as error:
        log.warning("an API key is still kept in the clear", secret=hashed.name, reason=str(error))


def _scopes_of(secret: Secret) -> frozenset[str]:
    """Raises ValueError for a scope that there is not."""
    scopes = frozenset(scope.strip() for scope in secret.data.get("scopes", SUBMIT).split(","))
    if unknown := scopes - set(SCOPES):
        raise ValueError(f"there is no scope {min(unknown)!r}")
    return scopes


def expiry_of(secret: Secret) -> datetime | None:
    """When the key ends to be valid. Raises ValueError when that is no time, or in no time zone."""
    if (text := secret.data.get("expiresAt")) is None:
        return None
    expires_at = datetime.fromisoformat(text)
    if expires_at.tzinfo is None:
        raise ValueError("`expiresAt` says nothing of the time zone")
    return expires_at


def _index(digest: str) -> str:
    """Keys are found by the first half of their hash, and compared, in constant time, by all of it."""
    return digest[:32]

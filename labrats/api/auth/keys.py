"""API keys: their format, their hashes in the store, and the index that resolves a key to its caller."""

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from labrats.api.auth.notifier import Notifier
from labrats.model.api_key import SHORTEST_KEY, hash_key
from labrats.model.caller import SCOPES, SUBMIT, Caller
from labrats.model.core_resources import API_KEY_LABEL, API_KEY_LABEL_VALUE, Secret
from labrats.model.errors import Conflict, Invalid, NotFound, RetryLater
from labrats.model.record import Metadata
from labrats.ports import Changed, Deleted, Store

log = structlog.get_logger()

PREFIX_LENGTH: Final = 8

PROBLEM_ANNOTATION: Final = "labrats.work/api-key-problem"
"""The annotation that says why a Secret is no API key, or a weak one."""

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which `kubectl apply` stores the whole manifest, including a key in plain text."""

MAX_SILENCE_SECONDS: Final = 30.0
"""Time without news from the store after which stored keys are no longer accepted.

A healthy watch of Secrets reports every ten seconds. A dead one is reopened soon after that, and reports within another
ten.
"""

MAX_WAIT_SECONDS: Final = 5.0
"""Time that a response waits until the watch has reported the key that it is about."""


_SHA_256: Final = re.compile("[0-9a-f]{64}")


def new_key() -> str:
    """Return a random API key: `lr_` and 43 url-safe characters, 256 random bits."""
    return f"lr_{secrets.token_urlsafe(32)}"


def derived_key(creator_key: str, nonce: str, salt: str) -> str:
    """Return a key in the format of `new_key` that can be derived again from all three parts.

    Only the salt is stored, so the store alone does not reveal the key.
    """
    digest = hmac.digest(creator_key.encode(), f"{salt}\0{nonce}".encode(), "sha256")
    return f"lr_{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def key_id(name: str) -> str:
    """Return the resource name for a key called `name`, which may have any characters."""
    return f"key-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def key_secret(name: str, key: str, scopes: Sequence[str], expires_at: datetime | None = None) -> Secret:
    """Return the Secret that represents `key`: the hash, and the prefix that people see."""
    data = {"name": name, **_hash_and_prefix(key), "scopes": ",".join(scopes)}
    if expires_at:
        data["expiresAt"] = expires_at.isoformat()
    return Secret(metadata=Metadata(name=key_id(name), labels={API_KEY_LABEL: API_KEY_LABEL_VALUE}), data=data)


def _hash_and_prefix(key: str) -> dict[str, str]:
    shown = min(PREFIX_LENGTH, len(key) // 2)  # a key applied with kubectl may be short
    return {"hash": hash_key(key), "prefix": key[:shown]}


def hashed_at_rest(secret: Secret) -> Secret:
    """Replace the plain key in `secret`, if any, by its hash. A Secret applied with kubectl may hold a plain key."""
    if not (key := secret.data.get("key", "").strip()):
        return secret
    others = {name: value for name, value in secret.data.items() if name != "key"}
    annotations = {name: value for name, value in secret.metadata.annotations.items() if name != LAST_APPLIED}
    metadata = replace(secret.metadata, annotations=annotations)
    return replace(secret, metadata=metadata, data=others | _hash_and_prefix(key))


@dataclass(frozen=True)
class _IndexedKey:
    digest: str
    caller: Caller


class ApiKeyIndex:
    """Index from API keys to callers: the keys of SUBMIT_API_KEYS and, kept in sync by a watch, the stored keys."""

    def __init__(self, submit_api_keys: Sequence[str]) -> None:
        self._fixed: dict[str, _IndexedKey] = {}
        self._stored: dict[str, dict[str, _IndexedKey]] = {}
        """By half of the hash and name of the Secret: several Secrets may have one key while it moves between them."""
        self._half_hash_by_secret: dict[str, str] = {}
        self._silent_seconds: Callable[[], float] = lambda: 0.0
        self.synced = asyncio.Event()
        self.changes = Notifier()
        for key in submit_api_keys:
            digest = hash_key(key)
            self._fixed[_half(digest)] = _IndexedKey(digest, Caller(f"env-{digest[:10]}", frozenset({SUBMIT})))

    async def follow(self, store: Store) -> None:
        """Keep the index in sync with the store, until cancelled."""
        self._silent_seconds = partial(store.silent_seconds, Secret)
        async for change in store.watch(Secret):
            match change:
                case Changed(secret) if secret.metadata.labels.get(API_KEY_LABEL) == API_KEY_LABEL_VALUE:
                    await self._update(secret, store)
                case Changed(secret) | Deleted(secret):
                    self._remove(secret.name)
                case _:
                    self.synced.set()

    def caller(self, key: str, now: datetime) -> Caller | None:
        """Return the caller that `key` belongs to; None if the key is empty, unknown, revoked or expired."""
        if not key:  # a request without one must not match a Secret with the hash of an empty text
            return None
        digest = hash_key(key)
        if (fixed := self._fixed.get(_half(digest))) and hmac.compare_digest(fixed.digest, digest):
            return fixed.caller
        for _, stored in sorted(self._stored.get(_half(digest), {}).items()):
            is_expired = stored.caller.expires_at is not None and now >= stored.caller.expires_at
            if hmac.compare_digest(stored.digest, digest) and not is_expired:
                return stored.caller
        return None

    def check_not_stale(self, caller: Caller) -> None:
        """Raise RetryLater if the caller's stored key may have been revoked without the watch reporting it."""
        if caller.secret and self._silent_seconds() > MAX_SILENCE_SECONDS:
            raise RetryLater("the engine cannot tell at present which API keys were revoked", delay_seconds=5)

    async def wait_until(self, secret_name: str, *, indexed: bool) -> None:
        """Wait until the watch has reported that a key was created, or deleted, but at most MAX_WAIT_SECONDS.

        The next request to this replica then sees the change, and requests to others soon after.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while (secret_name in self._half_hash_by_secret) is not indexed:
                    await self.changes.next.wait()

    async def _update(self, secret: Secret, store: Store) -> None:
        """Index the key of `secret`. An invalid Secret is logged and skipped."""
        self._remove(secret.name)
        problem = problem_of_plain_key(secret)
        checked = secret if problem else hashed_at_rest(secret)  # a stored hash does not tell that the key is short
        try:
            if problem is None:
                self._add(checked)
        except ValueError as error:
            problem = str(error)
        if problem:
            log.warning("invalid API key Secret ignored", secret=secret.name, reason=problem)
        checked = _with_problem(checked, problem or _weakness_of(checked))
        if checked is not secret:
            await _store_checked(checked, store)

    def _add(self, secret: Secret) -> None:
        """Index the key of `secret`. Raises ValueError if the Secret is invalid."""
        digest = secret.data.get("hash", "")
        if not _SHA_256.fullmatch(digest):
            raise ValueError("it must have a `key`, or as `hash` what `labrats api-key hash` prints")
        caller = Caller(secret.name, _scopes_of(secret), expiry_of(secret), secret.name)
        self._half_hash_by_secret[secret.name] = _half(digest)
        self._stored.setdefault(_half(digest), {})[secret.name] = _IndexedKey(digest, caller)
        self.changes.notify()

    def _remove(self, name: str) -> None:
        if (half_hash := self._half_hash_by_secret.pop(name, None)) is not None:
            del self._stored[half_hash][name]
            if not self._stored[half_hash]:
                del self._stored[half_hash]
            self.changes.notify()


def problem_of_plain_key(secret: Secret) -> str | None:
    """Return why the plain key in the Secret is refused; None if it may be used, or there is none."""
    key = secret.data.get("key", "").strip()
    if not key or len(key) >= SHORTEST_KEY:
        return None
    return f"`key` must have at least {SHORTEST_KEY} characters, as `labrats api-key create` makes it"


def _weakness_of(secret: Secret) -> str:
    """Return the problem of a key that an earlier version accepted although it is short; empty if there is none."""
    prefix = secret.data.get("prefix")
    if prefix is None or len(prefix) == PREFIX_LENGTH:
        return ""
    return "the key is so short that it could be guessed: replace it by one of `labrats api-key create`"


def _with_problem(secret: Secret, problem: str) -> Secret:
    """Return the Secret with the annotation about its problem, or without it; the same object if nothing changes."""
    if secret.metadata.annotations.get(PROBLEM_ANNOTATION, "") == problem:
        return secret
    annotations = {name: value for name, value in secret.metadata.annotations.items() if name != PROBLEM_ANNOTATION}
    if problem:
        annotations[PROBLEM_ANNOTATION] = problem
    return replace(secret, metadata=replace(secret.metadata, annotations=annotations))


async def _store_checked(checked: Secret, store: Store) -> None:
    """Store the Secret with its key hashed or its problem noted. A refusal is logged, e.g. of an immutable one."""
    try:
        await store.update(checked)
    except (Conflict, NotFound):
        pass  # changed in the meantime: the watch reports the change
    except (Invalid, RetryLater) as error:
        log.warning("API key Secret not updated", secret=checked.name, reason=str(error))


def _scopes_of(secret: Secret) -> frozenset[str]:
    """Return the scopes of a key. Raises ValueError for an unknown scope."""
    scopes = frozenset(scope.strip() for scope in secret.data.get("scopes", SUBMIT).split(","))
    if unknown := scopes - set(SCOPES):
        raise ValueError(f"unknown scope {min(unknown)!r}; it must be one of {', '.join(SCOPES)}")
    return scopes


def expiry_of(secret: Secret) -> datetime | None:
    """Return the time in UTC at which the key expires, if any. Raises ValueError unless it has a time zone."""
    if (text := secret.data.get("expiresAt")) is None:
        return None
    expires_at = datetime.fromisoformat(text)
    if expires_at.tzinfo is None:
        raise ValueError("`expiresAt` must have a time zone")
    return in_utc(expires_at)


def in_utc(time: datetime) -> datetime:
    """Return the time in UTC. Raises ValueError if its year does not have four digits there."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("must have a year of four digits in UTC, such as 2030-01-31T12:00:00Z") from None


def _half(digest: str) -> str:
    """Return the first half of a hash, by which keys are looked up. The whole hash is compared in constant time."""
    return digest[:32]

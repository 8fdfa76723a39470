"""Sessions of the dashboard's users: a signed token in a cookie. The store holds which of them were bound or ended."""

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from labrats.api.auth.notifier import Notifier
from labrats.model.caller import ADMIN, SUBMIT, VIEWER, Caller
from labrats.model.core_resources import TYPE_LABEL, Secret
from labrats.model.errors import Conflict, LabratsError, NotFound
from labrats.model.record import Metadata
from labrats.ports import Changed, Deleted, Store

if TYPE_CHECKING:
    from joserfc.jwk import OctKey

ALGORITHM: Final = "HS256"
SIGNING_SECRET: Final = "labrats-session-secret"  # noqa: S105, a resource's name
_SIGNING_LABELS: Final = {TYPE_LABEL: "session-secret"}
_ENDED_LABELS: Final = {TYPE_LABEL: "ended-session"}
_ENDED_PREFIX: Final = "ended-session-"
_BOUND_LABELS: Final = {TYPE_LABEL: "bound-session"}
_BOUND_PREFIX: Final = "bound-session-"
_PURPOSE: Final = "session"


@dataclass(frozen=True)
class User:
    """A person who signed in. id: the same at each sign-in; the owner of the jobs that the user submits.

    is_viewer: the user only reads.
    """

    id: str
    name: str
    email: str | None = None
    is_viewer: bool = False


@dataclass(frozen=True)
class Session:
    """One sign-in of a user."""

    id: str
    user: User
    expires_at: datetime

    @property
    def caller(self) -> Caller:
        scopes = {VIEWER} if self.user.is_viewer else {SUBMIT, ADMIN}
        return Caller(self.user.id, frozenset(scopes), self.expires_at)


def new_secret() -> str:
    """Return a random secret of 256 bits for signing."""
    return secrets.token_urlsafe(32)


async def signing_secret(store: Store, configured: SecretStr | None) -> str:
    """Return the secret that signs tokens: the configured one, or a stored one that all replicas share.

    The first replica creates the stored secret.
    """
    if configured:
        return configured.get_secret_value()
    metadata = Metadata(name=SIGNING_SECRET, labels=_SIGNING_LABELS)
    try:
        stored = await store.create(Secret(metadata=metadata, data={"secret": new_secret()}))
    except Conflict:
        stored = await store.get(Secret, SIGNING_SECRET)
    if "secret" not in stored.data:
        raise LabratsError(
            f"the Secret {SIGNING_SECRET!r} is not the engine's: delete it, and the engine creates its own"
        )
    return stored.data["secret"]


class Signer:
    """Signer and reader of the engine's own tokens. A token is valid for one purpose only.

    The library is loaded on first use: it takes 10 MiB, and an engine that only programs call needs none.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def sign(self, purpose: str, claims: dict[str, Any], expires_at: datetime) -> str:
        from joserfc import jwt

        payload = claims | {"aud": purpose, "exp": int(expires_at.timestamp())}
        return jwt.encode({"alg": ALGORITHM}, payload, self._key, algorithms=[ALGORITHM])

    def read(self, purpose: str, token: str, now: datetime) -> dict[str, Any] | None:
        """Return the claims of a token; None if it is invalid, expired or for another purpose."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
        except (JoseError, ValueError, RecursionError):
            return None
        expires = claims.get("exp")
        is_valid = claims.get("aud") == purpose and isinstance(expires, int) and now.timestamp() < expires
        return claims if is_valid else None

    @cached_property
    def _key(self) -> "OctKey":
        from joserfc.jwk import OctKey

        return OctKey.import_key(self._secret)


class _Claims(BaseModel):
    """The claims in a session's token."""

    model_config = ConfigDict(strict=True)

    jti: str
    sub: str
    name: str
    email: str | None
    viewer: bool = False
    exp: int = Field(lt=2**40)


_CLAIMS: Final = TypeAdapter(_Claims)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


class Sessions:
    """The sessions of signed-in users. A watch on the store reports the sessions that any replica bound or ended.

    A session starts unbound. Once it is bound to a secret, a request without this secret has no session.
    """

    def __init__(self, signer: Signer, lifetime: timedelta) -> None:
        self._signer, self.lifetime = signer, lifetime
        self._ended: set[str] = set()
        self._bound: dict[str, str] = {}
        """The hash of the secret of each bound session, by the session's id."""
        self.synced = asyncio.Event()
        self.changes = Notifier()

    def begin(self, user: User, now: datetime) -> str:
        """Return the token of a new session."""
        named = {"sub": user.id, "name": user.name, "email": user.email, "viewer": user.is_viewer}
        claims = {"jti": secrets.token_hex(16)} | named
        return self._signer.sign(_PURPOSE, claims, now + self.lifetime)

    def find(self, token: str, secret: str, now: datetime) -> Session | None:
        """Return the session of a request with this token and secret.

        None if the token is invalid, the session has expired or was ended, or it is bound to another secret.
        """
        claims = self._signer.read(_PURPOSE, token, now)
        try:
            session = _CLAIMS.validate_python(claims)
        except ValidationError:  # no claims, or a token that another program signed with the same secret
            return None
        if session.jti in self._ended or not self._accepts(session.jti, secret):
            return None
        user = User(session.sub, session.name, session.email, session.viewer)
        return Session(session.jti, user, datetime.fromtimestamp(session.exp, UTC))

    def caller(self, token: str, secret: str, now: datetime) -> Caller | None:
        session = self.find(token, secret, now)
        return session.caller if session else None

    def is_bound(self, session: Session) -> bool:
        return session.id in self._bound

    async def bind(self, session: Session, secret: str, store: Store, now: datetime) -> bool:
        """Bind the session to `secret` at all replicas. Return False if it is bound to another one.

        Its open streams that were requested without the secret end.
        """
        metadata = Metadata(name=f"{_BOUND_PREFIX}{session.id}", labels=_BOUND_LABELS)
        data = {"expiresAt": session.expires_at.isoformat(), "secretHash": _hash(secret)}
        try:
            record = await store.create(Secret(metadata=metadata, data=data))
        except Conflict:
            record = await store.get(Secret, metadata.name)
        else:
            await _delete_expired(store, _BOUND_LABELS, now)
        self._add_bound(record)
        return self._accepts(session.id, secret)

    async def end(self, session: Session, store: Store, now: datetime) -> None:
        """End the session at all replicas. Delete the records of ended sessions that have expired since."""
        metadata = Metadata(name=f"{_ENDED_PREFIX}{session.id}", labels=_ENDED_LABELS)
        self._add(session.id)
        try:
            await store.create(Secret(metadata=metadata, data={"expiresAt": session.expires_at.isoformat()}))
        except Conflict:
            return  # already ended
        await _delete_expired(store, _ENDED_LABELS, now)

    async def follow(self, store: Store) -> None:
        """Keep the bound and the ended sessions in sync with the store, until cancelled."""
        async for change in store.watch(Secret):
            match change:
                case Changed(secret) if secret.name.startswith(_BOUND_PREFIX):
                    self._add_bound(secret)
                case Deleted(secret) if secret.name.startswith(_BOUND_PREFIX):
                    self._bound.pop(secret.name.removeprefix(_BOUND_PREFIX), None)
                case Changed(secret) if secret.name.startswith(_ENDED_PREFIX):
                    self._add(secret.name.removeprefix(_ENDED_PREFIX))
                case Deleted(secret) if secret.name.startswith(_ENDED_PREFIX):
                    self._ended.discard(secret.name.removeprefix(_ENDED_PREFIX))
                case Changed() | Deleted():
                    pass
                case _:
                    self.synced.set()

    def _accepts(self, session_id: str, secret: str) -> bool:
        """Return whether the session is not bound, or is bound to `secret`."""
        bound_to = self._bound.get(session_id)
        return bound_to is None or secrets.compare_digest(bound_to.encode(), _hash(secret).encode())

    def _add(self, session_id: str) -> None:
        self._ended.add(session_id)
        self.changes.notify()

    def _add_bound(self, record: Secret) -> None:
        self._bound[record.name.removeprefix(_BOUND_PREFIX)] = record.data.get("secretHash", "")
        self.changes.notify()


async def _delete_expired(store: Store, labels: Mapping[str, str], now: datetime) -> None:
    """Delete the records with these labels whose sessions have expired."""
    for record in await store.list(Secret, labels):
        if datetime.fromisoformat(record.data["expiresAt"]) <= now:
            with suppress(NotFound):  # another replica has deleted it
                await store.delete(Secret, record.name)

"""Sessions of the dashboard's users: a signed token in a cookie. The store holds which of them were ended."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from labrats.api.auth.notifier import Notifier
from labrats.model.api_key import hash_key
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
    secret_hash: str | None = None
    exp: int = Field(lt=2**40)


_CLAIMS: Final = TypeAdapter(_Claims)


class Sessions:
    """The sessions of signed-in users. A watch on the store reports the sessions that any replica ended."""

    def __init__(self, signer: Signer, lifetime: timedelta) -> None:
        self._signer, self.lifetime = signer, lifetime
        self._ended: set[str] = set()
        self.synced = asyncio.Event()
        self.changes = Notifier()

    def begin(self, user: User, now: datetime, secret: str | None = None) -> str:
        """Return the token of a new session. With a secret, only requests that have it are accepted."""
        named = {"sub": user.id, "name": user.name, "email": user.email, "viewer": user.is_viewer}
        claims = {"jti": secrets.token_hex(16), "secret_hash": secret and hash_key(secret)} | named
        return self._signer.sign(_PURPOSE, claims, now + self.lifetime)

    def find(self, token: str, secret: str, now: datetime) -> Session | None:
        """Return the session of a request with this token and secret.

        None if the token is invalid or needs another secret, or if the session has expired or was ended.
        """
        claims = self._signer.read(_PURPOSE, token, now)
        try:
            session = _CLAIMS.validate_python(claims)
        except ValidationError:  # no claims, or a token that another program signed with the same secret
            return None
        if session.jti in self._ended:
            return None
        if session.secret_hash is not None and not secrets.compare_digest(session.secret_hash, hash_key(secret)):
            return None
        user = User(session.sub, session.name, session.email, session.viewer)
        return Session(session.jti, user, datetime.fromtimestamp(session.exp, UTC))

    def caller(self, token: str, secret: str, now: datetime) -> Caller | None:
        session = self.find(token, secret, now)
        return session.caller if session else None

    async def end(self, session: Session, store: Store, now: datetime) -> None:
        """End the session at all replicas. Delete the records of ended sessions that have expired since."""
        metadata = Metadata(name=f"{_ENDED_PREFIX}{session.id}", labels=_ENDED_LABELS)
        self._add(session.id)
        try:
            await store.create(Secret(metadata=metadata, data={"expiresAt": session.expires_at.isoformat()}))
        except Conflict:
            return  # already ended
        await _delete_expired(store, now)

    async def follow(self, store: Store) -> None:
        """Keep the ended sessions in sync with the store, until cancelled."""
        async for change in store.watch(Secret):
            match change:
                case Changed(secret) if secret.name.startswith(_ENDED_PREFIX):
                    self._add(secret.name.removeprefix(_ENDED_PREFIX))
                case Deleted(secret) if secret.name.startswith(_ENDED_PREFIX):
                    self._ended.discard(secret.name.removeprefix(_ENDED_PREFIX))
                case Changed() | Deleted():
                    pass
                case _:
                    self.synced.set()

    def _add(self, session_id: str) -> None:
        self._ended.add(session_id)
        self.changes.notify()


async def _delete_expired(store: Store, now: datetime) -> None:
    """Delete the records of ended sessions that have expired since."""
    for record in await store.list(Secret, _ENDED_LABELS):
        if datetime.fromisoformat(record.data["expiresAt"]) <= now:
            with suppress(NotFound):  # another replica has deleted it
                await store.delete(Secret, record.name)

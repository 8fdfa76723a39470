"""One-time login links: whoever can write to the engine's store may sign in to its dashboard."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from labrats.api.auth.keys import hash_key
from labrats.model.core_resources import TYPE_LABEL, Secret
from labrats.model.errors import Conflict, NotFound
from labrats.model.record import Metadata
from labrats.ports import Store

LIFETIME: Final = timedelta(minutes=15)
PATH: Final = "/api/auth/link"

_LABELS: Final = {TYPE_LABEL: "login-link"}


async def create_login_link(store: Store, engine_url: str, now: datetime) -> str:
    """An address that signs in whoever opens it first. Only a hash of its token is kept; expired ones are forgotten."""
    for link in await store.list(Secret, _LABELS):
        if _expiry(link) <= now:
            await _take(store, link)
    token = secrets.token_urlsafe(32)
    data = {"hash": hash_key(token), "expiresAt": (now + LIFETIME).isoformat()}
    await store.create(Secret(metadata=Metadata(name=_name(token), labels=_LABELS), data=data))
    return f"{engine_url.rstrip('/')}{PATH}?token={token}"


async def redeem(store: Store, token: str, now: datetime) -> bool:
    """Whether `token` is that of a link, which nobody can use from then on."""
    try:
        link = await store.get(Secret, _name(token))
    except NotFound:
        return False
    valid = secrets.compare_digest(link.data["hash"], hash_key(token)) and now < _expiry(link)
    return await _take(store, link) and valid


async def _take(store: Store, link: Secret) -> bool:
    """Delete it. Whether it was we who did: of several at once, one."""
    try:
        await store.delete(Secret, link.name, link.metadata.resource_version)
    except (NotFound, Conflict):
        return False
    return True


def _expiry(link: Secret) -> datetime:
    return datetime.fromisoformat(link.data["expiresAt"])


def _name(token: str) -> str:
    """Links are found by a part of their token's hash, and compared by all of it."""
    return f"login-link-{hash_key(token)[:16]}"

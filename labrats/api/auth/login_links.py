"""One-time login links. Only processes with access to the engine's store can create them."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from labrats.model.api_key import hash_key
from labrats.model.core_resources import TYPE_LABEL, Secret
from labrats.model.errors import Conflict, NotFound
from labrats.model.record import Metadata
from labrats.ports import Store

LIFETIME: Final = timedelta(minutes=15)
PATH: Final = "/api/auth/link"

_LABELS: Final = {TYPE_LABEL: "login-link"}


async def create_login_link(store: Store, engine_url: str, now: datetime) -> str:
    """Return a URL that signs in the first browser that opens it. Delete expired links.

    The store gets only a hash of the token.
    """
    for link in await store.list(Secret, _LABELS):
        if _expiry(link) <= now:
            await _delete(store, link)
    token = secrets.token_urlsafe(32)
    data = {"hash": hash_key(token), "expiresAt": (now + LIFETIME).isoformat()}
    await store.create(Secret(metadata=Metadata(name=_name(token), labels=_LABELS), data=data))
    return f"{engine_url.rstrip('/')}{PATH}?token={token}"


async def redeem(store: Store, token: str, now: datetime) -> bool:
    """Use up the link of `token`. Return whether the link was valid and this call was the first to use it."""
    try:
        link = await store.get(Secret, _name(token))
    except NotFound:
        return False
    valid = secrets.compare_digest(link.data["hash"], hash_key(token)) and now < _expiry(link)
    return await _delete(store, link) and valid


async def _delete(store: Store, link: Secret) -> bool:
    """Delete the link. Return whether this call did: of several concurrent calls, one does."""
    try:
        await store.delete(Secret, link.name, link.metadata.resource_version)
    except (NotFound, Conflict):
        return False
    return True


def _expiry(link: Secret) -> datetime:
    return datetime.fromisoformat(link.data["expiresAt"])


def _name(token: str) -> str:
    """Return the name of a link's Secret: a part of the token's hash. `redeem` compares the whole hash."""
    return f"login-link-{hash_key(token)[:16]}"

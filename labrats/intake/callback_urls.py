"""The addresses of callbacks. They are checked at admission, and again at each callback."""

from typing import Final

from labrats.model.errors import Invalid, Problem
from labrats.net.address_policy import Forbidden, Unresolvable, is_address, is_named, resolve_allowed, share_of
from labrats.net.client import InvalidUrl, parse_url
from labrats.settings import EngineSettings

FIELD: Final = "callbackUrl"


async def check_callback_url(url: str, owner: str | None, settings: EngineSettings) -> None:
    """Raise Invalid unless callbacks to `url` are allowed. owner: who has its name looked up; None to look up none."""
    try:
        address = parse_url(url)
    except InvalidUrl as error:
        raise Invalid(Problem(FIELD, str(error))) from error
    if is_named(address.host, address.port, settings.callback_allowed_hosts):
        return
    try:
        if owner is not None:
            await resolve_allowed(address.host, address.port, settings.outbound_allowed_cidrs, share=share_of(owner))
        elif await is_address(address.host):
            await resolve_allowed(address.host, address.port, settings.outbound_allowed_cidrs)
    except (Forbidden, Unresolvable) as error:
        # One message for both errors, or it would reveal which names exist in the engine's network.
        message = "its host has no address, or one that is not allowed; CALLBACK_ALLOWED_HOSTS lists exceptions"
        raise Invalid(Problem(FIELD, message)) from error

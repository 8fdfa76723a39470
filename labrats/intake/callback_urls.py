"""Addresses at which callers want to be told of their jobs: judged before a job is made, and again when one is told."""

from typing import Final

from labrats.model.errors import Invalid, Problem
from labrats.net.address_policy import Forbidden, Unresolvable, is_named, resolve_allowed
from labrats.net.client import InvalidUrl, parse_url
from labrats.settings import EngineSettings

FIELD: Final = "callbackUrl"


async def check_callback_url(url: str, settings: EngineSettings) -> None:
    """Raises Invalid unless callbacks may go to `url`."""
    try:
        address = parse_url(url)
    except InvalidUrl as error:
        raise Invalid(Problem(FIELD, str(error))) from error
    if is_named(address.host, address.port, settings.callback_allowed_hosts):
        return
    try:
        await resolve_allowed(address.host, address.port, settings.outbound_allowed_cidrs)
    except (Forbidden, Unresolvable) as error:
        # One sentence for both, or it would tell which names there are in the network of the engine.
        message = "its host has no address, or one that is not allowed; CALLBACK_ALLOWED_HOSTS names exceptions"
        raise Invalid(Problem(FIELD, message)) from error

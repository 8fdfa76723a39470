"""Those who guess API keys: after many wrong ones, an address has to wait."""

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final

MANY: Final = 100
WINDOW: Final = timedelta(minutes=5)
MAX_ADDRESSES: Final = 10_000

_RANDOM_KEY: Final = re.compile(r"lr_[A-Za-z0-9_-]{43}")


@dataclass
class _Tries:
    since: datetime
    wrong: set[int] = field(default_factory=set)


class Guesses:
    """How many different wrong keys each address has tried lately. The same one again, as a program that was left
    with a revoked key sends it, is no guess. Kept in memory, and bounded there: the longest silent is forgotten first.
    """

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, _Tries] = OrderedDict()

    def seconds_to_wait(self, address: str, now: datetime) -> int:
        """How long no further key of this address is tried; 0 when it may go on."""
        tries = self._by_address.get(_network(address))
        if tries is None or len(tries.wrong) < MANY or now - tries.since >= WINDOW:
            return 0
        return max(1, round((tries.since + WINDOW - now).total_seconds()))

    def note(self, address: str, key: str, now: datetime) -> None:
        """`key` was wrong."""
        network = _network(address)
        tries = self._by_address.pop(network, None)
        if tries is None or now - tries.since >= WINDOW:
            tries = _Tries(now)
        if len(tries.wrong) < MANY:
            tries.wrong.add(hash(key))
        self._by_address[network] = tries
        if len(self._by_address) > MAX_ADDRESSES:
            self._by_address.popitem(last=False)


def is_beyond_guessing(key: str) -> bool:
    """Whether it looks like a key that the engine made, of which none is ever guessed.

    Such a key is tried whatever else comes from its address, so that a guesser shuts out nobody who shares it.
    """
    return _RANDOM_KEY.fullmatch(key) is not None


def _network(address: str) -> str:
    """Who stands behind an address: whoever has one of IPv6 has all of its /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return parsed.exploded[:19] if isinstance(parsed, IPv6Address) else address

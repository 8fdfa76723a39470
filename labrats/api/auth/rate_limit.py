"""Those who guess API keys: after many wrong ones, an address is told to wait. A right key is never refused."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final

MANY: Final = 100
WINDOW: Final = timedelta(minutes=5)
MAX_ADDRESSES: Final = 10_000


@dataclass
class _Tries:
    since: datetime
    wrong: set[int] = field(default_factory=set)


class AuthRateLimit:
    """How many different wrong keys each address has tried lately. The same one again, as a program that was left
    with a revoked key sends it, is no guess. Kept in memory, and bounded there: the longest silent is forgotten first.
    """

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, _Tries] = OrderedDict()

    def seconds_to_wait(self, address: str, now: datetime) -> int:
        """Return for how long this address must wait after another wrong key; 0 when it need not wait."""
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


def _network(address: str) -> str:
    """Who stands behind an address: whoever has one of IPv6 has all of its /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return parsed.exploded[:19] if isinstance(parsed, IPv6Address) else address

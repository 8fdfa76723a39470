"""Rate limit for wrong API keys, per address. A valid key is never refused."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final

MAX_WRONG_KEYS: Final = 100
WINDOW: Final = timedelta(minutes=5)
MAX_ADDRESSES: Final = 10_000


@dataclass
class _Failures:
    since: datetime
    key_hashes: set[int] = field(default_factory=set)

    def count_at(self, now: datetime) -> bool:
        """Return whether the failures count at `now`. It is before them if the clock was set back."""
        return timedelta() <= now - self.since < WINDOW


class AuthRateLimit:
    """Counts of the different wrong keys that each address sent within a window.

    A repeated wrong key counts once, so that a program with a revoked key is not blocked. The counts are in memory;
    beyond MAX_ADDRESSES the address that failed least recently is dropped.
    """

    def __init__(self) -> None:
        self._by_network: OrderedDict[str, _Failures] = OrderedDict()

    def seconds_to_wait(self, address: str, now: datetime) -> int:
        """Return how long this address must wait after another wrong key; 0 while it is below the limit."""
        failures = self._by_network.get(_network(address))
        if failures is None or len(failures.key_hashes) < MAX_WRONG_KEYS or not failures.count_at(now):
            return 0
        return max(1, round((failures.since + WINDOW - now).total_seconds()))

    def record_failure(self, address: str, key: str, now: datetime) -> None:
        """Count the wrong `key` from this address."""
        network = _network(address)
        failures = self._by_network.pop(network, None)
        if failures is None or not failures.count_at(now):
            failures = _Failures(now)
        if len(failures.key_hashes) < MAX_WRONG_KEYS:
            failures.key_hashes.add(hash(key))
        self._by_network[network] = failures
        if len(self._by_network) > MAX_ADDRESSES:
            self._by_network.popitem(last=False)


def _network(address: str) -> str:
    """Return the address, or the /64 network of an IPv6 address: one client usually has all of it.

    A server on `::` sees IPv4 addresses as IPv6 addresses of one network.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or parsed.exploded[:19])
    return address

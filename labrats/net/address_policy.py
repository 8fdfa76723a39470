"""A policy for the addresses that the engine reaches for users: callbacks, git, model files.

A host name is resolved once and every address of it is checked. The caller connects to one of these addresses instead
of the name (pinning), so that a second look-up cannot lead elsewhere.
"""

import asyncio
import socket
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from weakref import WeakValueDictionary

from labrats.model.errors import LabratsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

RESOLVE_SECONDS: Final = 5.0

LOOKUPS_AT_ONCE: Final = 256
"""Concurrent lookups. One that no name server answers takes longer than RESOLVE_SECONDS to end."""

LOOKUPS_OF_OWNER: Final = 16
"""Concurrent lookups of names that one owner of jobs has chosen."""

_free_lookups: Final = threading.BoundedSemaphore(LOOKUPS_AT_ONCE)
_shares: Final = WeakValueDictionary[str, threading.Semaphore]()
_SHARE_PAUSE_SECONDS: Final = 0.05

# From IANA's special registries. `ipaddress.is_global` is not enough: it calls NAT64, 6to4 and multicast global. The
# chart's policy for jobs excludes the same networks.
FORBIDDEN_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
        "192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 "
        "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32"  # the last one is a cloud's metadata service
    ).split()
)
_GLOBAL_UNICAST_V6: Final = IPv6Network("2000::/3")
FORBIDDEN_V6: Final = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)


class Forbidden(LabratsError):
    """The engine does not reach this address for users. The message does not reveal what is there."""


class Unresolvable(LabratsError):
    """The host name has no address at the moment."""


def is_public(address: Address) -> bool:
    """Return whether `address` is an ordinary host on the internet."""
    address = _unmapped(address)
    if isinstance(address, IPv6Address):
        return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in FORBIDDEN_V6)
    return not any(address in network for network in FORBIDDEN_V4)


def is_allowed(address: Address, allowed: Sequence[Network], forbidden: Sequence[Network] = ()) -> bool:
    """Return whether `address` is in one of the `allowed` networks, or public and in none of the `forbidden` ones."""
    address = _unmapped(address)

    def is_in(networks: Sequence[Network]) -> bool:
        return any(address.version == network.version and address in network for network in networks)

    return is_in(allowed) or (is_public(address) and not is_in(forbidden))


def is_named(host: str, port: int, allowed_hosts: Collection[str]) -> bool:
    """Return whether `allowed_hosts` has the host, with or without this port: `hooks.internal`, `[::1]:8080`."""
    with_port = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return host in allowed_hosts or with_port in allowed_hosts


async def is_address(host: str) -> bool:
    """Return whether a host is an IP address in any notation, or a name for loopback. Asks no name server."""
    if host == "localhost" or host.endswith(".localhost") or ":" in host:
        return True
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def _unmapped(address: Address) -> Address:
    """Return the IPv4 address in an address such as `::ffff:10.0.0.1`; any other address unchanged."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def parse_networks(cidrs: Sequence[str]) -> list[Network]:
    """Parse networks in CIDR notation. Raises ValueError for the first invalid one."""
    return [ip_network(cidr, strict=False) for cidr in cidrs]


async def resolve_allowed(
    host: str,
    port: int,
    allowed_cidrs: Sequence[str] = (),
    forbidden_cidrs: Sequence[str] = (),
    share: threading.Semaphore | None = None,
) -> list[str]:
    """Return the addresses of `host`, all of them allowed. Connect to one of these, not to the name.

    allowed_cidrs, forbidden_cidrs: see `is_allowed`.
    share: of LOOKUPS_AT_ONCE, for a caller who may choose names that no server answers. Further lookups wait.
    Raises Forbidden if any address is not allowed, and Unresolvable.
    """
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await _look_up(host, port, share)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise Unresolvable(f"the host name {host!r} could not be resolved") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed, forbidden = parse_networks(allowed_cidrs), parse_networks(forbidden_cidrs)
    if not addresses or not all(is_allowed(ip_address(address), allowed, forbidden) for address in addresses):
        raise Forbidden(f"the address of {host!r} is not allowed; OUTBOUND_ALLOWED_CIDRS can allow more networks")
    return addresses


def share_of(owner: str) -> threading.Semaphore:
    """Return the share of an owner of jobs, for `resolve_allowed`."""
    return _shares.setdefault(owner, threading.Semaphore(LOOKUPS_OF_OWNER))


async def _look_up(host: str, port: int, share: threading.Semaphore | None) -> list[Any]:
    """Return what `socket.getaddrinfo` returns for a host. Raises OSError, UnicodeError.

    Each lookup has a thread of its own. The event loop would use a few threads for all lookups of the process: names
    that no name server answers would occupy them for minutes, since a lookup continues when its caller has given up,
    and would keep the process from ending.
    """
    with suppress(ValueError):
        ip_address(host)  # then there is nothing to look up, and a busy machine cannot delay it
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    while share and not share.acquire(blocking=False):
        await asyncio.sleep(_SHARE_PAUSE_SECONDS)
    if not _free_lookups.acquire(blocking=False):
        if share:
            share.release()
        raise OSError("too many names are being looked up")
    found: Future[list[Any]] = Future()
    try:
        threading.Thread(target=_run_lookup, args=(found, host, port, share), name="lookup", daemon=True).start()
    except RuntimeError as error:  # this user has too many threads
        _release(share)
        raise OSError(str(error)) from error
    return await asyncio.wrap_future(found)


def _run_lookup(found: "Future[list[Any]]", host: str, port: int, share: threading.Semaphore | None = None) -> None:
    try:
        if not found.set_running_or_notify_cancel():  # from now on, no caller can cancel it
            return
        answer = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001 - it is raised in the caller
        found.set_exception(error)
    else:
        found.set_result(answer)
    finally:
        _release(share)


def _release(share: threading.Semaphore | None) -> None:
    _free_lookups.release()
    if share:
        share.release()

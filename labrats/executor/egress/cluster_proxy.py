"""The egress proxy of a cluster, as a program. It serves the pods of all attempts with a network rule.

Each connection names its grant, which the engine has signed. The proxy has no access to the cluster's API.

A grant is bound to a pod before code of others can see it. The pod's first step, which runs the image of Labrats,
exchanges the grants for copies with the pod's address, as the proxy sees it, and passes on only these. So a stolen
grant is of no use in another pod. All of it is in the signed grant: every replica decides alike, also after a restart.
An address may later be that of another pod, so the engine reports every few seconds which attempts have not ended.
"""

import asyncio
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from msgspec.structs import replace

from labrats.executor.egress.connections import Connections
from labrats.executor.egress.gateway import BINDING, canary_port
from labrats.executor.egress.proxy import (
    CONNECTIONS,
    HEAD_BYTES,
    HEAD_SECONDS,
    EgressProxy,
    Headers,
    HostRule,
    RequestRefused,
    read_head,
    refusals_answered,
)
from labrats.executor.stop_signals import stop_event
from labrats.model.egress_grant import (
    LIVING_REQUEST,
    EgressGrant,
    InvalidGrant,
    LivingAttempts,
    LivingAttemptsHead,
    read_grant,
    read_living,
    sign_grant,
)
from labrats.model.network import allows, is_restricted, limits_hosts, names
from labrats.net.address_policy import parse_networks
from labrats.processes import become_unreadable, raise_descriptor_limit

PORT: Final = 3128
_BACKLOG: Final = 512
_OPEN_PORTS: Final = (22, 80, 443)
"""The ports that a part of a pod without a rule may reach, as the chart's NetworkPolicy lets open pods do."""

UNAUTHENTICATED: Final = 1024
UNAUTHENTICATED_OF_PEER: Final = CONNECTIONS
"""Connections that have not named a grant yet: in all, and from one address. Beyond that the oldest ones end.

Any pod with a network rule may connect. Without a limit, one could use up the memory of the proxy of all.
"""

LOOKUPS: Final = 16
"""Lookups of names for one attempt at the same time: a small part of those for all. Further ones wait."""

TUNNELS: Final = 1024
"""Tunnels of all attempts at the same time. Beyond that, the oldest one of the attempt with the most ends."""

STALE_SECONDS: Final = 60.0
"""Time without a new list of living attempts after which any list is accepted.

The lists of a leader are numbered by its epoch, and epochs start over if someone deletes the leader's Lease.
"""

_RECEIVE_BYTES: Final = 32 * 1024
_SEND_BYTES: Final = 64 * 1024
"""Sizes of the kernel's buffers for a client. They may be small, as clients are in the same cluster."""

_SERVER_BYTES: Final = 256 * 1024
"""Size of the kernel's buffer for what a server sends. The kernel would let it grow to 6 MiB for each tunnel, and an
agent that does not read fills all of them.
"""

_HEALTH: Final = ("GET", "/health")
_TOKEN: Final = re.compile(rb"Bearer ([A-Za-z0-9._-]{1,15000})")


def run_cluster_proxy(
    key_file: Path, port: int = PORT, drain_seconds: float = 0.0, forbidden: Sequence[str] = ()
) -> int:
    """Serve until SIGTERM, and then the open connections for at most `drain_seconds`. Return the exit status.

    forbidden: see HostRule.
    """
    become_unreadable()
    raise_descriptor_limit()
    key = key_file.read_text().strip()
    if not key:
        sys.stderr.write(f"{key_file} is empty: it must contain the key of the engine's grants\n")
        return 1
    try:
        parse_networks(forbidden)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    asyncio.run(_run(ClusterProxy(key, forbidden), port, drain_seconds))
    return 0


async def _run(proxy: "ClusterProxy", port: int, drain_seconds: float) -> None:
    stopped = stop_event()
    canary = await asyncio.start_server(lambda _, writer: writer.close(), sock=listener_on(canary_port(port)))
    server = await asyncio.start_server(proxy.serve, sock=listener_on(port), limit=HEAD_BYTES)
    await stopped.wait()
    canary.close()
    server.close()
    await proxy.drain(drain_seconds)


def listener_on(port: int, host: str = "") -> socket.socket:
    """Return a socket that listens on all addresses, of both families where the pod has them, or on the one of `host`.

    The connections that it accepts have small buffers in the kernel.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    except (OSError, ValueError):  # there is no IPv6
        listener = socket.create_server((host, port), backlog=_BACKLOG)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
    return listener


class ClusterProxy:
    """Serves connections by the grants that they name. forbidden: see HostRule."""

    def __init__(self, key: str, forbidden: Sequence[str] = ()) -> None:
        self._key, self._forbidden = key, tuple(forbidden)
        self._tunnels: Connections[EgressGrant] = Connections(TUNNELS)  # by attempt
        self._unauthenticated: Connections[None] = Connections(UNAUTHENTICATED)  # by address
        # A lookup continues after its connection has ended, and keeps the attempt's share until then.
        self._lookups: WeakValueDictionary[str, threading.Semaphore] = WeakValueDictionary()
        self._living: LivingAttempts | None = None
        self._learned_at = 0.0
        self._serving: set[asyncio.Task[None]] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end, in a task."""
        task = asyncio.create_task(self._serve(reader, writer), name="connection")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: writer.close())  # also if it was cancelled before it began

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        with closing(writer), suppress(OSError, TimeoutError, EOFError):
            async with refusals_answered(writer):
                self._admit(peer := _peer_of(writer), task)
                try:
                    method, target, headers = await read_head(reader)
                    if (method, target) == _HEALTH:
                        await _answer(writer)
                        return
                    if (method, target) == LIVING_REQUEST:
                        await self._learn(headers, reader)
                        await _answer(writer)
                        return
                    grant = self._grant_in(headers, peer)
                finally:
                    self._unauthenticated.remove(peer, task)
                if (method, target) == BINDING:
                    await _answer(writer, sign_grant(replace(grant, address=peer), self._key))
                    return
                if method != "CONNECT":
                    raise RequestRefused("405 Method Not Allowed", "this proxy takes CONNECT only")
                if self._tunnels.count(grant.attempt) >= CONNECTIONS:
                    raise RequestRefused("429 Too Many Requests", "the attempt has too many connections")
                self._tunnels.add(grant.attempt, task, grant)
                try:
                    lookups = self._lookups.setdefault(grant.attempt, threading.Semaphore(LOOKUPS))
                    rule = rule_of_grant(grant, self._forbidden, lookups)
                    await EgressProxy(rule).tunnel(target, reader, writer)
                finally:
                    self._tunnels.remove(grant.attempt, task)

    def _admit(self, peer: str, task: asyncio.Task[None]) -> None:
        """Add a connection without a grant. Of too many from one address, end the oldest one."""
        if self._unauthenticated.count(peer) >= UNAUTHENTICATED_OF_PEER:
            self._unauthenticated.end_oldest(peer)
        self._unauthenticated.add(peer, task, None)

    async def _learn(self, headers: Headers, reader: asyncio.StreamReader) -> None:
        """Read the list of the attempts that have not ended, and cut the connections of all others.

        An engine that is down, or is just starting, reports nothing: then nothing changes.
        """
        try:
            head = read_living(_token_in(headers), self._key)
        except InvalidGrant as error:
            raise RequestRefused("407 Proxy Authentication Required", str(error)) from None
        async with asyncio.timeout(HEAD_SECONDS):
            names = await reader.readexactly(head.size)
        if LivingAttemptsHead.of(names, head.number) != head:
            raise RequestRefused("400 Bad Request", "the engine has not signed this list")
        is_stale = time.monotonic() - self._learned_at > STALE_SECONDS
        if self._living and head.number <= self._living.number and not is_stale:
            raise RequestRefused("409 Conflict", "another engine leads by now: it has sent a later list")
        self._living = LivingAttempts(head.number, frozenset(names.decode().split()))
        self._learned_at = time.monotonic()
        for task, grant in self._tunnels:
            if not self._living.includes(grant):
                task.cancel()

    def _grant_in(self, headers: Headers, peer: str) -> EgressGrant:
        """Return the grant that a request names. Raises RequestRefused unless it is valid for this peer."""
        try:
            grant = read_grant(_token_in(headers), self._key, time.time())
        except InvalidGrant as error:
            raise RequestRefused("407 Proxy Authentication Required", str(error)) from None
        if grant.address not in (None, peer):
            raise RequestRefused("407 Proxy Authentication Required", "the grant belongs to another pod")
        if self._living and not self._living.includes(grant):
            raise RequestRefused("407 Proxy Authentication Required", "the attempt has ended")
        return grant

    async def drain(self, seconds: float) -> None:
        """Wait until all connections have ended, for at most this time. Then cut them."""
        if self._serving and seconds:
            await asyncio.wait(self._serving, timeout=seconds)
        for task in self._serving:
            task.cancel()


def _token_in(headers: Headers) -> str:
    value = next((value for name, value in headers if name == "proxy-authorization"), b"")
    if (token := _TOKEN.fullmatch(value)) is None:
        raise RequestRefused("407 Proxy Authentication Required", "a request needs the token of an attempt")
    return token[1].decode()


async def _answer(writer: asyncio.StreamWriter, text: str = "") -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    writer.write(f"{head}{text}".encode())
    await writer.drain()


def _peer_of(writer: asyncio.StreamWriter) -> str:
    """Return the address of the other end; empty if the connection has ended already."""
    name = writer.get_extra_info("peername")
    if not name:
        return ""
    address = ip_address(name[0].partition("%")[0])
    return str((address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address)


def rule_of_grant(
    grant: EgressGrant, forbidden: tuple[str, ...] = (), lookups: threading.Semaphore | None = None
) -> HostRule:
    """Return the rule by which the proxy serves a grant. The pod itself reports what is refused."""

    def is_allowed(host: str, port: int) -> bool:
        is_usual = is_restricted(grant.network) or port in _OPEN_PORTS
        return (host, port) in grant.hosts or (is_usual and allows(grant.network, host, port))

    def is_named(host: str, port: int) -> bool:
        return (host, port) in grant.hosts or names(grant.network, host, port)

    return HostRule(
        is_allowed,
        grant.private_networks,
        lambda *_: None,
        grant.model_server,
        names=is_named,
        forbidden=forbidden,
        lookups=lookups,
        receive_bytes=_SERVER_BYTES,
        inspects=limits_hosts(grant.network),
    )

"""The egress proxy of a cluster, as a program. It serves the pods of all attempts with a network rule.

Each connection names its grant, which the engine has signed. The proxy has no access to the cluster's API.
"""

import asyncio
import re
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from labrats.executor.egress.gateway import canary_port
from labrats.executor.egress.proxy import (
    CONNECTIONS,
    HEAD_BYTES,
    EgressProxy,
    Headers,
    HostRule,
    RequestRefused,
    read_head,
    refusals_answered,
)
from labrats.model.egress_grant import EgressGrant, InvalidGrant, read_grant
from labrats.model.network import allows, is_restricted
from labrats.processes import become_unreadable, raise_descriptor_limit

PORT: Final = 3128
_BACKLOG: Final = 512
_OPEN_PORTS: Final = (22, 80, 443)
"""The ports that a part of a pod without a rule may reach, as the chart's NetworkPolicy lets open pods do."""

_TOKEN: Final = re.compile(rb"Bearer ([A-Za-z0-9._-]{1,15000})")


def run_cluster_proxy(key_file: Path, port: int = PORT, drain_seconds: float = 0.0) -> int:
    """Serve until SIGTERM, and then the open connections for at most `drain_seconds`. Return the exit status."""
    become_unreadable()
    raise_descriptor_limit()
    key = key_file.read_text().strip()
    if not key:
        sys.stderr.write(f"{key_file} is empty: it must contain the key of the engine's grants\n")
        return 1
    asyncio.run(_run(ClusterProxy(key), port, drain_seconds))
    return 0


async def _run(proxy: "ClusterProxy", port: int, drain_seconds: float) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    canary = await asyncio.start_server(lambda _, writer: writer.close(), sock=_listener(canary_port(port)))
    server = await asyncio.start_server(proxy.serve, sock=_listener(port), limit=HEAD_BYTES)
    await ended.wait()
    canary.close()
    server.close()
    await proxy.drain(drain_seconds)


def _listener(port: int) -> socket.socket:
    """Return a socket that listens on all addresses, of both families where the pod has them."""
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    except (OSError, ValueError):  # there is no IPv6
        return socket.create_server(("", port), backlog=_BACKLOG)


class ClusterProxy:
    """Serves connections by the grants that they name."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._connections: Counter[str] = Counter()
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        with closing(writer), suppress(OSError, TimeoutError):
            async with refusals_answered(writer):
                method, target, headers = await read_head(reader)
                grant = self._grant_in(headers)
                if method != "CONNECT":
                    raise RequestRefused("405 Method Not Allowed", "this proxy takes CONNECT only")
                if self._connections[grant.attempt] >= CONNECTIONS:
                    raise RequestRefused("429 Too Many Requests", "the attempt has too many connections")
                self._connections[grant.attempt] += 1
                try:
                    await EgressProxy(rule_of_grant(grant)).tunnel(target, reader, writer)
                finally:
                    self._connections[grant.attempt] -= 1
                    self._connections += Counter()  # forgets attempts without connections

    def _grant_in(self, headers: Headers) -> EgressGrant:
        value = next((value for name, value in headers if name == "proxy-authorization"), b"")
        if (token := _TOKEN.fullmatch(value)) is None:
            raise RequestRefused("407 Proxy Authentication Required", "a request needs the token of an attempt")
        try:
            return read_grant(token[1].decode(), self._key, time.time())
        except InvalidGrant as error:
            raise RequestRefused("407 Proxy Authentication Required", str(error)) from None

    async def drain(self, seconds: float) -> None:
        """Wait until all connections have ended, for at most this time. Then cut them."""
        if self._serving and seconds:
            await asyncio.wait(self._serving, timeout=seconds)
        for task in self._serving:
            task.cancel()


def rule_of_grant(grant: EgressGrant) -> HostRule:
    """Return the rule by which the proxy serves a grant. The pod itself reports what is refused."""

    def is_allowed(host: str, port: int) -> bool:
        is_usual = is_restricted(grant.network) or port in _OPEN_PORTS
        return (host, port) in grant.hosts or (is_usual and allows(grant.network, host, port))

    return HostRule(
        is_allowed,
        grant.private_networks,
        lambda _: None,
        grant.model_server,
    )

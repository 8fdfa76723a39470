"""Connections from an attempt's pod to other hosts, through the egress proxy of the cluster.

A NetworkPolicy lets the pod reach nothing else. The proxy listens at a second port, which the policy does not allow, so
that a pod can test whether the policy is enforced.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from labrats.model.errors import GiveUp, LabratsError
from labrats.model.job import FailedCode

CONNECT_SECONDS: Final = 15.0
POLICY_SECONDS: Final = 60.0
"""Time in which the cluster's network must apply its policies to a new pod."""

CANARY_SECONDS: Final = 1.5
"""Time without an answer after which a port counts as closed. The proxy is in the same cluster."""

BINDING: Final = ("POST", "/grant")
"""Request that exchanges a grant for one that only the asking pod can use."""

_PAUSE_SECONDS: Final = 0.25
_MESSAGE_BYTES: Final = 1000
_STATUS: Final = re.compile(rb"HTTP/1\.1 (?P<status>[0-9]{3} [ -~]{0,60})\r\n")

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Address = tuple[str, int]


class ConnectionRefused(LabratsError):
    """The egress proxy has made no connection. status: of its answer."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Gateway:
    """The egress proxy, and the token of the grant by which it decides."""

    address: tuple[str, int]
    token: str = field(repr=False)

    async def connect(self, host: str, port: int) -> Ends:
        """Connect to a host. Raises ConnectionRefused."""
        return await self._request("CONNECT", authority(host, port))

    async def bound(self) -> "Gateway":
        """Return this gateway with a token that only this pod can use. Raises ConnectionRefused."""
        reader, writer = await self._request(*BINDING)
        with closing(writer), _failures_as_refusals():
            async with asyncio.timeout(CONNECT_SECONDS):
                return replace(self, token=(await reader.read()).decode())

    async def _request(self, method: str, target: str) -> Ends:
        """Send a request, and return the connection after the head of the answer. Raises ConnectionRefused."""
        with _failures_as_refusals():
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(*self.address)
                try:
                    await self._exchange_heads(method, target, reader, writer)
                except BaseException:
                    writer.close()
                    raise
                return reader, writer

    async def _exchange_heads(
        self, method: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = f"{method} {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {self.token}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        found = _STATUS.match(answer)
        status = found["status"].decode() if found else "502 Bad Gateway"
        if not status.startswith("200"):
            message = (await reader.read(_MESSAGE_BYTES)).decode("utf-8", "replace").strip()
            raise ConnectionRefused(status, message or "the cluster's egress proxy has refused the connection")


@contextmanager
def _failures_as_refusals() -> Iterator[None]:
    try:
        yield
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
        raise ConnectionRefused("502 Bad Gateway", "the cluster's egress proxy cannot be reached") from error


async def bind_token(address: tuple[str, int], token: str) -> str:
    """Exchange the token of a grant for one that only this pod can use. Raises GiveUp if no proxy does so in time.

    A replica may be of an earlier version, or end just now, so that a refusal is not final.
    """
    reason = ""
    with suppress(TimeoutError):
        async with asyncio.timeout(POLICY_SECONDS):
            while True:
                try:
                    return (await Gateway(address, token).bound()).token
                except ConnectionRefused as refusal:
                    reason = str(refusal)
                await asyncio.sleep(_PAUSE_SECONDS)
    raise GiveUp(FailedCode.INTERNAL, f"config.network cannot be enforced: {reason}. The agent was not started")


async def require_policy(proxy: Address | None, others: Sequence[Address]) -> None:
    """Wait until the cluster's policies are in force in this pod. Raises GiveUp if they are not in time.

    No pod of a job reaches the second port of the egress proxy then.

    proxy:  its address, which a pod with a network rule must reach; None for another pod.
    others: further addresses of it: a cluster may enforce policies for one family of addresses only.
    """
    canaries = [(host, canary_port(port)) for host, port in {*others, *([proxy] if proxy else ())}]
    reaches_proxy = reaches_canary = False
    with suppress(TimeoutError):
        async with asyncio.timeout(POLICY_SECONDS):
            while True:
                reaches_canary = any(await asyncio.gather(*(_is_open(*canary) for canary in canaries)))
                reaches_proxy = proxy is None or await _is_open(*proxy)
                if reaches_proxy and not reaches_canary:
                    return
                await asyncio.sleep(_PAUSE_SECONDS)
    problem = (
        "the cluster's network does not enforce NetworkPolicies in this pod"
        if reaches_canary
        else "the cluster's egress proxy cannot be reached"
    )
    setting = "config.network" if proxy else "the network policy of jobs"
    raise GiveUp(FailedCode.INTERNAL, f"{setting} cannot be enforced: {problem}. The agent was not started")


def authority(host: str, port: int) -> str:
    """Return a host and its port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def canary_port(port: int) -> int:
    """Return the port of the egress proxy that no pod of an attempt may reach."""
    return port + 1


async def _is_open(host: str, port: int) -> bool:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CANARY_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
            with closing(writer):
                return True
    return False

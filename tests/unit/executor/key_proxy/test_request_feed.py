"""Tests of the connection by which a key proxy in another container reports requests."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from labrats.executor import token_server
from labrats.executor.key_proxy.request_feed import RequestFeed, follow_requests
from labrats.model.errors import GiveUp
from labrats.model.protocol import ModelRequest
from tests.unit.executor.key_proxy.proxies import TOKEN, until


def a_report(number: int) -> ModelRequest:
    return ModelRequest(method="POST", path="/v1/messages", status=200, milliseconds=number)


@dataclass
class FakeProxy:
    """Records when it was opened and closed, and calls `on_close` then."""

    calls: list[str] = field(default_factory=list)
    on_close: Callable[[], None] = lambda: None

    def open(self) -> None:
        self.calls.append("open")

    async def close(self) -> None:
        self.calls.append("close")
        self.on_close()


@asynccontextmanager
async def a_feed(proxy: FakeProxy | None = None) -> AsyncIterator[tuple[RequestFeed, tuple[str, int]]]:
    feed, listener = RequestFeed(TOKEN), socket.create_server(("127.0.0.1", 0))
    server = await feed.serve(listener, proxy or FakeProxy())
    yield feed, listener.getsockname()
    server.close()
    await asyncio.sleep(0)


def _ignore() -> None:
    pass


async def test_activity_is_passed_on_at_most_once_a_second() -> None:
    arrivals, seen = list[float](), list[ModelRequest]()
    async with (
        a_feed() as (feed, address),
        follow_requests(address, TOKEN, seen.append, lambda _: None, lambda: arrivals.append(0.0)),
    ):
        for _ in range(10):
            feed.report_activity()
        feed.report(a_report(1))
    assert (len(arrivals), len(seen)) == (1, 1)


async def test_each_request_is_passed_on_in_order() -> None:
    seen, lost = list[ModelRequest](), list[GiveUp]()
    async with a_feed() as (feed, address):
        async with follow_requests(address, TOKEN, seen.append, lost.append, _ignore):
            for number in range(100):
                feed.report(a_report(number))
        feed.report(a_report(100))  # nobody reads it

    assert [request.milliseconds for request in seen] == list(range(100)), "also those that were still on the way"
    assert lost == []


async def test_proxy_is_open_while_the_executor_follows_and_reports_what_it_ends() -> None:
    proxy, seen = FakeProxy(), list[ModelRequest]()
    async with a_feed(proxy) as (feed, address):
        proxy.on_close = lambda: feed.report(a_report(1))
        for _ in range(2):  # an agent that starts over
            async with follow_requests(address, TOKEN, seen.append, lambda _: None, _ignore):
                assert proxy.calls[-1] == "open"

    assert proxy.calls == ["open", "close"] * 2
    assert seen == [a_report(1)] * 2


async def test_connections_without_the_token_are_few_and_say_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent could fill the memory of the proxy with them. The kernel would end it with all that it has measured."""
    monkeypatch.setattr(token_server, "TOKEN_SECONDS", 60.0)
    seen, lost = list[ModelRequest](), list[GiveUp]()
    async with a_feed() as (feed, address), follow_requests(address, TOKEN, seen.append, lost.append, _ignore):
        others = [await asyncio.open_connection(*address) for _ in range(20)]
        ends = [asyncio.create_task(reader.read(1)) for reader, _ in others]
        await until(lambda: sum(end.done() for end in ends) >= 13)
        assert sum(end.done() for end in ends) == 13  # beside that of the executor, there are seven
        for _, writer in others:
            writer.write(b"a" * 65_400)
        await asyncio.wait(ends)
        feed.report(a_report(1))
        await until(lambda: bool(seen))
        await asyncio.gather(*ends, return_exceptions=True)
        for _, writer in others:
            writer.close()
    assert lost == []


async def test_a_report_that_cannot_be_read_ends_the_attempt() -> None:
    """Its further requests would go unseen."""
    lost = list[GiveUp]()
    async with (
        a_feed() as (feed, address),
        follow_requests(address, TOKEN, lambda _: None, lost.append, _ignore),
    ):
        feed.report(replace(a_report(1), refusal="x" * 2**20))
        await until(lambda: bool(lost))


async def test_wrong_token_gets_nothing() -> None:
    async with a_feed() as (_, address):
        with pytest.raises(GiveUp, match="the key proxy of this attempt's pod did not start"):
            async with follow_requests(address, "wrong", lambda _: None, lambda _: None, _ignore, 0.2):
                pass


async def test_end_of_the_proxy_is_noticed() -> None:
    lost = list[GiveUp]()
    async with a_feed() as (feed, address), follow_requests(address, TOKEN, lambda _: None, lost.append, _ignore):
        for writer in feed._readers:
            writer.transport.abort()
        await until(lambda: bool(lost))

    assert str(lost[0]).startswith("the key proxy of this attempt's pod has ended")

"""Tests of the connection by which a key proxy in another container reports requests."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from labrats.executor.model_proxy.request_feed import RequestFeed, follow_requests
from labrats.model.errors import GiveUp
from labrats.model.protocol import ModelRequest
from tests.unit.executor.model_proxy.proxies import TOKEN, until


def a_report(number: int) -> ModelRequest:
    return ModelRequest(method="POST", path="/v1/messages", status=200, milliseconds=number)


@asynccontextmanager
async def a_feed() -> AsyncIterator[tuple[RequestFeed, tuple[str, int]]]:
    feed, listener = RequestFeed(TOKEN), socket.create_server(("127.0.0.1", 0))
    server = await feed.serve(listener)
    yield feed, listener.getsockname()
    server.close()
    await asyncio.sleep(0)


async def test_each_request_is_passed_on_in_order() -> None:
    seen, lost = list[ModelRequest](), list[GiveUp]()
    async with a_feed() as (feed, address):
        async with follow_requests(address, TOKEN, seen.append, lost.append):
            for number in range(100):
                feed.report(a_report(number))
        feed.report(a_report(100))  # nobody reads it

    assert [request.milliseconds for request in seen] == list(range(100)), "also those that were still on the way"
    assert lost == []


async def test_wrong_token_gets_nothing() -> None:
    async with a_feed() as (_, address):
        with pytest.raises(GiveUp, match="the key proxy of this attempt's pod did not start"):
            async with follow_requests(address, "wrong", lambda _: None, lambda _: None, 0.2):
                pass


async def test_end_of_the_proxy_is_noticed() -> None:
    lost = list[GiveUp]()
    async with a_feed() as (feed, address), follow_requests(address, TOKEN, lambda _: None, lost.append):
        for writer in feed._readers:
            writer.transport.abort()
        await until(lambda: bool(lost))

    assert str(lost[0]) == "the key proxy of this attempt's pod has ended"

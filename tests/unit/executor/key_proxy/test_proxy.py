"""Tests of the key proxy on real sockets: forwarding, refusals, and hostile or broken peers on either side."""

import asyncio
import contextlib
import gzip
import json
import re
import resource
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.key_proxy.budget import most_input_tokens
from labrats.executor.key_proxy.model_server import RunningRequest
from labrats.executor.key_proxy.proxy import MOST_CONNECTIONS, MOST_UNAUTHENTICATED_REPORTED
from labrats.executor.key_proxy.usage_reader import MOST_BYTES
from labrats.model.ai_model import Prices
from labrats.model.job import Usage
from tests.unit.executor.key_proxy.proxies import (
    KEY,
    MODEL,
    TOKEN,
    a_proxy,
    a_request,
    a_response,
    an_approved_request,
    answers,
    body_of,
    status_of,
    until,
)

OK = a_response(b"{}")


async def test_key_replaces_the_token(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        response = await proxy.send(a_request(headers="Anthropic-Version: 2023-06-01\r\nAccept-Encoding: gzip\r\n"))

    assert (status_of(response), body_of(response)) == (200, b"{}")
    head = proxy.heads[0]
    assert f"x-api-key: {KEY}".encode() in head.lower()
    assert b"anthropic-version: 2023-06-01" in head.lower()
    assert TOKEN.encode() not in head
    assert b"gzip" not in head, "compressed usage could not be read"


async def test_openai_key_is_a_bearer_token(tmp_path: Path) -> None:
    request = a_request(path="/responses", headers=f"Authorization: Bearer {TOKEN}\r\n")
    async with a_proxy(tmp_path, answers(OK), provider="codex") as proxy:
        await proxy.send(request)

    assert f"authorization: bearer {KEY}".encode() in proxy.heads[0].lower()


async def test_stream_is_forwarded_byte_for_byte_as_it_arrives(tmp_path: Path) -> None:
    """Each event is forwarded before the server sends the next one."""
    events = [
        b"event: ping\ndata: {}\n\n",
        b": comment\r\n\r\n",
        b"data: \xf0\x9f\x90\x80\xff\n\n",
        b"x" * 300_000 + b"\n",
    ]
    seen = asyncio.Queue[int]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await seen.get()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with a_proxy(tmp_path, answer) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request())
        received = b""
        async with asyncio.timeout(20):
            for event in events:
                while event not in body_of(received):
                    received += await reader.read(2**16)
                seen.put_nowait(1)
            received += await reader.read()
        writer.close()

    assert body_of(received) == b"".join(events)


@pytest.mark.parametrize(
    ("provider", "path", "kind", "body"),
    [
        (
            "claude",
            "/v1/messages",
            "text/event-stream",
            (
                b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":5,'
                b'"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":1}}}\n\n'
                b'data: {"type":"message_delta","usage":{"output_tokens":9}}\n\n'
            ),
        ),
        (
            "claude",
            "/v1/messages",
            "application/json",
            (
                b'{"content":[],"usage":{"input_tokens":5,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,'
                b'"output_tokens":9}}'
            ),
        ),
        (
            "codex",
            "/responses",
            "text/event-stream",
            (
                b'data: {"type":"response.completed","response":{"usage":{"input_tokens":10,"output_tokens":9,'
                b'"input_tokens_details":{"cached_tokens":3,"cache_write_tokens":2}}}}\r\n\r\n'
            ),
        ),
        (
            "codex",
            "/chat/completions",
            "text/event-stream; charset=utf-8",
            (
                b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":9,'
                b'"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":2}}}\n\ndata: [DONE]\n\n'
            ),
        ),
        (
            "codex",
            "/responses",
            "application/json",
            (
                b'{"usage":{"input_tokens":10,"output_tokens":9,"input_tokens_details":{"cached_tokens":3,'
                b'"cache_write_tokens":2}}}'
            ),
        ),
    ],
    ids=["messages-sse", "messages-json", "responses-sse", "chat-sse", "responses-json"],
)
@pytest.mark.parametrize("piece", [1, 7, 10**6])
async def test_usage_is_read_from_the_response(
    tmp_path: Path, provider: str, path: str, kind: str, body: bytes, piece: int
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), piece):
            writer.write(body[start : start + piece])
            await writer.drain()

    async with a_proxy(tmp_path, answer, provider=provider) as proxy:
        response = await proxy.send(a_request(path=path))

    assert body_of(response) == body
    expected = Usage(input_tokens=7, output_tokens=9, cache_read_tokens=3, cache_write_tokens=2)
    assert proxy.reported[0].usage == expected
    assert proxy.policy.budget.usage == expected


async def test_cost_of_a_cache_of_an_hour_counts(tmp_path: Path) -> None:
    usage = b'{"cache_creation_input_tokens":100000,"cache_creation":{"ephemeral_1h_input_tokens":100000}}'
    prices = Prices(input=4, cache_write=5)
    async with a_proxy(
        tmp_path, answers(a_response(b'{"usage":%s}' % usage)), prices=prices, max_cost_usd=0.7
    ) as proxy:
        statuses = [status_of(await proxy.send(a_request())) for _ in range(2)]

    assert statuses == [200, 403]
    assert proxy.reported[0].usage.cost_usd == pytest.approx(0.8)


SEARCH = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}}
OPENING = SEARCH | {"action": {"type": "open_page", "url": "https://example.com"}}
ANSWER_OF_RESPONSES: dict[str, Any] = {"output": [SEARCH, OPENING, SEARCH], "usage": {"input_tokens": 1_000_000}}


@pytest.mark.parametrize(
    ("provider", "path", "kind", "parts"),
    [
        pytest.param(
            "claude",
            "/v1/messages",
            "text/event-stream",
            [
                {"usage": {"input_tokens": 1_000_000, "server_tool_use": {"web_search_requests": count}}}
                for count in (1, 2)
            ],
            id="messages",
        ),
        pytest.param("codex", "/v1/responses", "application/json", [ANSWER_OF_RESPONSES], id="responses"),
        pytest.param(
            "codex",
            "/v1/responses",
            "text/event-stream",
            [
                *({"type": "response.output_item.added", "item": each} for each in (SEARCH, SEARCH)),
                *({"type": "response.output_item.done", "item": each} for each in (SEARCH, OPENING, SEARCH)),
                {"type": "response.completed", "response": ANSWER_OF_RESPONSES},
            ],
            id="responses as a stream",
        ),
    ],
)
async def test_searches_of_the_server_have_their_price_with_an_ai_models_own_prices(
    tmp_path: Path, provider: str, path: str, kind: str, parts: list[dict[str, Any]]
) -> None:
    encoded = [json.dumps(each).encode() for each in parts]
    body = b"".join(b"data: %s\n\n" % each for each in encoded) if kind != "application/json" else encoded[0]
    answer = answers(a_response(body, kind=kind))
    async with a_proxy(tmp_path, answer, provider=provider, prices=Prices(input=1, output=10)) as proxy:
        await proxy.send(a_request(path=path))

    assert proxy.reported[0].usage.cost_usd == pytest.approx(1 + 2 * 0.01)
    assert proxy.policy.budget.usage.cost_usd == pytest.approx(1 + 2 * 0.01)


async def test_summaries_and_advice_of_other_models_count_at_their_prices(tmp_path: Path) -> None:
    """The server reports them apart from the rest."""
    iterations = [
        {"type": "compaction", "input_tokens": 100_000, "output_tokens": 1000},
        {"type": "message", "input_tokens": 1000, "output_tokens": 100},
        {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 2000, "output_tokens": 500},
    ]
    usage = {"input_tokens": 1000, "output_tokens": 100, "iterations": iterations}
    parts: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 1000, "output_tokens": 1}}},
        {"type": "message_delta", "usage": usage | {"iterations": iterations[:2]}},
        {"type": "message_delta", "usage": usage},
    ]
    stream = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in parts)
    answer = answers(a_response(stream, kind="text/event-stream"))
    other_prices = {"opus": Prices(input=10, output=100)}
    async with a_proxy(tmp_path, answer, prices=Prices(input=1, output=10), other_prices=other_prices) as proxy:
        await proxy.send(a_request())

    used = proxy.reported[0].usage
    assert (used.input_tokens, used.output_tokens) == (103_000, 1600)
    assert used.cost_usd == pytest.approx((101_000 * 1 + 1100 * 10 + 2000 * 10 + 500 * 100) / 1_000_000)
    assert proxy.policy.budget.usage == used


@pytest.mark.parametrize(
    ("event", "is_overload"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, True),
        ({"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded"}}}, True),
        ({"error": {"code": 429, "message": "slow down"}}, True),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}, True),
        ({"error": "overloaded"}, True),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "429"}}, False),
        ({"type": "response.failed", "response": {"error": {"code": "invalid_prompt"}}}, False),
        ({"type": "error", "error": [429], "code": {"a": 429}}, False),
        ({"type": "content_block_delta", "delta": {"text": json.dumps({"type": "error", "error": "x"})}}, False),
        ({"type": "response.created", "response": {"error": None, "tools": [{"type": "error"}]}}, False),
        ({"type": "response.completed", "response": {"usage": {"input_tokens": 1}}, "error": None}, False),
    ],
)
async def test_overload_within_a_stream_is_reported(tmp_path: Path, event: dict[str, Any], is_overload: bool) -> None:
    stream = b"event: x\ndata: %s\n\n" % json.dumps(event).encode()
    async with a_proxy(tmp_path, answers(a_response(stream, kind="text/event-stream"))) as proxy:
        await proxy.send(a_request())

    assert proxy.reported[0].is_overload == is_overload


async def test_response_that_is_nested_too_deeply_is_forwarded_unread(tmp_path: Path) -> None:
    body = b'data: {"usage": {"more": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}\n\n"
    answer = a_response(body, kind="text/event-stream")
    async with a_proxy(tmp_path, answers(answer)) as proxy:
        response = await proxy.send(a_request())

    assert (status_of(response), body_of(response)) == (200, body)
    assert proxy.reported[0].usage == Usage()


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1], KEY])
async def test_wrong_token_is_refused(tmp_path: Path, token: str) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        response = await proxy.send(a_request(token=token))

    assert status_of(response) == 401
    assert json.loads(body_of(response))["error"]["type"] == "authentication_error"
    assert proxy.heads == []
    assert TOKEN.encode() not in response


async def test_second_credential_beside_the_token_is_refused(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(headers="Authorization: Bearer other\r\n"))) == 401


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"claude-opus-5-5"}',
        b'{"model":"%s","model":"claude-opus-5-5"}' % MODEL.encode(),
        b'{"model":"claude-opus-5-5","messages":[{"model":"%s"}]}' % MODEL.encode(),
        b'{"model":"%s\\u0000"}' % MODEL.encode(),
        b'{"model":"%s-opus"}' % MODEL.encode(),
    ],
    ids=["other", "twice", "nested", "nul", "longer"],
)
async def test_other_model_is_refused_and_named(tmp_path: Path, body: bytes) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        response = await proxy.send(a_request(body))

    assert status_of(response) == 404
    assert json.loads(body_of(response))["error"]["type"] == "not_found_error"
    refused = proxy.reported[0]
    assert refused.model is not None
    assert refused.refusal is not None
    assert MODEL in refused.refusal
    assert proxy.heads == []


async def test_repeated_field_reaches_the_server_once(tmp_path: Path) -> None:
    """Otherwise the server could use another of the two models than the proxy has checked."""
    body = b'{"model":"claude-opus-5-5", "stop_sequences": [1,  2], "model":"%s"}' % MODEL.encode()
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(body))) == 200

    assert proxy.bodies[0].count(b"model") == 1
    assert json.loads(proxy.bodies[0]) == {"model": MODEL, "stop_sequences": [1, 2]}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("fields", [{"speed": "fast"}, {"service_tier": "priority"}, {"service_tier": ["x"]}])
async def test_faster_answer_at_a_higher_price_needs_a_fast_job(
    tmp_path: Path, fields: dict[str, Any], fast: bool
) -> None:
    async with a_proxy(tmp_path, answers(OK), fast=fast) as proxy:
        response = await proxy.send(a_request(json.dumps({"model": MODEL} | fields).encode()))

    assert (status_of(response), len(proxy.bodies)) == ((200, 1) if fast else (400, 0))


async def test_answer_at_the_usual_price_needs_no_fast_job(tmp_path: Path) -> None:
    fields = {"model": MODEL, "speed": "standard", "service_tier": "standard_only"}
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(json.dumps(fields).encode()))) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model":7}',
        b'{"Model":"%s"}' % MODEL.encode(),
        b"\xff",
    ],
)
async def test_body_without_one_clear_model_is_refused(tmp_path: Path, body: bytes) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(body))) == 400
    assert proxy.heads == []


async def test_response_in_the_background_is_refused(tmp_path: Path) -> None:
    body = json.dumps({"model": MODEL, "background": True}).encode()
    async with a_proxy(tmp_path, answers(OK), provider="codex") as proxy:
        assert status_of(await proxy.send(a_request(body, path="/responses"))) == 400
    assert proxy.heads == []


@pytest.mark.parametrize(("name", "status"), [("", 200), ("/claude-9.1", 200), ("/..", 404), ("/.", 404)])
async def test_list_of_models_leads_to_no_other_path(tmp_path: Path, name: str, status: int) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        sent = a_request(b"", path=f"/v1/models{name}").replace(b"POST", b"GET", 1)
        assert status_of(await proxy.send(sent)) == status
    assert len(proxy.heads) == (status == 200)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files",
        "/v1/messages/batches",
        "/v1/completions",
        "/v1/messages/../files",
        "/v1//messages",
        "/v1/messages%2f..%2ffiles",
        "//v1/messages",
        "http://elsewhere.test/v1/messages",
        "/other/v1/messages",
        "*",
    ],
)
async def test_other_paths_are_refused(tmp_path: Path, path: str) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(path=path))) in (400, 404)
    assert proxy.heads == []


async def test_query_and_path_of_the_endpoint_are_forwarded(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        await proxy.send(a_request(path="/v1/messages?beta=true"))
    assert proxy.heads[0].startswith(b"POST /v1/messages?beta=true HTTP/1.1\r\n")
    assert proxy.reported[0].path == "/v1/messages", "a query could have contents"


@pytest.mark.parametrize(
    "request_head",
    [
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost : a\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n",
        "POST  /v1/messages HTTP/1.1\r\nHost: a\r\n",
        "POST /v1/messages HTTP/1.1\r\n",
        "POST /v1/messages\r\n",
        "GARBAGE\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nX: " + "a" * 70_000 + "\r\n",
    ],
    ids=lambda head: head[:12] + head[-30:].strip() if isinstance(head, str) else head,
)
async def test_malformed_and_ambiguous_heads_are_refused(tmp_path: Path, request_head: str) -> None:
    request = f"{request_head}X-Api-Key: {TOKEN}\r\n\r\n".encode() + b"0\r\n\r\nPOST /v1/messages HTTP/1.1\r\n\r\n"
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        response = await proxy.send(request)

    assert status_of(response) in (400, 501)
    assert response.count(b"HTTP/1.1 ") == 1, "nothing after it may be read as a request"
    assert proxy.heads == []


async def test_requests_share_connections_to_client_and_server(tmp_path: Path) -> None:
    requests = a_request(close=False) * 3 + a_request()  # pipelined
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        response = await proxy.send(requests)

    assert response.count(b"200") == 4
    assert (len(proxy.heads), proxy.connections) == (4, 1)


async def test_connection_that_the_server_closes_while_it_is_idle_costs_no_request(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)  # without announcing the close
        writer.close()

    async with a_proxy(tmp_path, answer) as proxy:
        statuses = [status_of(await proxy.send(a_request())) for _ in range(5)]

    assert statuses == [200] * 5


async def test_client_that_goes_away_ends_the_request_to_the_server(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()
        writer.close()

    async with a_proxy(tmp_path, answer) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request())
        await until(lambda: bool(proxy.heads))
        writer.close()
        async with asyncio.timeout(20):
            await closed.wait()
        await until(lambda: bool(proxy.reported))

    assert proxy.reported[0].status == 499


async def test_cut_response_is_cut_for_the_client_too(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    async with a_proxy(tmp_path, answer) as proxy:
        try:
            received = await proxy.send(a_request())
        except ConnectionResetError:
            received = b""

    assert not received.endswith(b"0\r\n\r\n"), "this would be a complete answer"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection without an answer"),
        (b"garbage\r\n\r\n", "answered with invalid HTTP: "),
        (b"HTTP/1.1 abc\r\n\r\n", "answered with invalid HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection without an answer"),
    ],
)
async def test_server_without_a_valid_response_is_reported(tmp_path: Path, answer: bytes, reason: str) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with a_proxy(tmp_path, send) as proxy:
        response = await proxy.send(a_request())

    assert status_of(response) == 502
    message = json.loads(body_of(response))["error"]["message"]
    assert re.match(r"the model's server at http://127\.0\.0\.1:\d+ " + reason, message)
    assert "ConnectionClosed" not in message


async def test_unreachable_server_is_reported(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, answers(OK), endpoint="http://127.0.0.1:1") as proxy:
        response = await proxy.send(a_request())

    assert status_of(response) == 502
    assert b"cannot be reached: Connection refused" in response


async def test_retry_after_is_reported_first_hand(tmp_path: Path) -> None:
    busy = a_response(b"{}", status="529 Overloaded", headers="Retry-After: 17\r\n")
    async with a_proxy(tmp_path, answers(busy)) as proxy:
        response = await proxy.send(a_request())

    assert b"retry-after: 17" in response.lower()
    assert (proxy.reported[0].status, proxy.reported[0].retry_after_seconds) == (529, 17)


async def test_response_with_an_impossible_date_is_forwarded(tmp_path: Path) -> None:
    retry_after = f"Mon, 01 Jan 2026 00:00:00 +{'9' * 20}"
    busy = a_response(b"{}", status="429 Too Many Requests", headers=f"Retry-After: {retry_after}\r\n")
    async with a_proxy(tmp_path, answers(busy)) as proxy:
        response = await proxy.send(a_request())

    assert (status_of(response), body_of(response)) == (429, b"{}")
    assert (proxy.reported[0].status, proxy.reported[0].retry_after_seconds) == (429, None)


async def test_client_that_does_not_read_stops_the_server_and_fills_no_memory(tmp_path: Path) -> None:
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        size = 512 * 2**20
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        while sent < size:
            writer.write(bytes(2**20))
            sent += 2**20
            await writer.drain()

    async with a_proxy(tmp_path, answer) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request())
        before = -1
        while before != sent or not sent:  # until it no longer grows
            before = sent
            await asyncio.sleep(0.2)
        writer.close()

    assert sent < 64 * 2**20


async def test_body_of_64_mib_is_refused_with_bounded_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        size = 64 * 2**20
        writer.write(
            f"POST /v1/messages HTTP/1.1\r\nHost: a\r\nX-Api-Key: {TOKEN}\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        for _ in range(64):
            writer.write(bytes(2**20))
            await writer.drain()
        async with asyncio.timeout(20):
            response = await reader.read()
        writer.close()

    assert status_of(response) == 413
    assert proxy.heads == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_large_body_is_forwarded(tmp_path: Path) -> None:
    body = json.dumps({"model": MODEL, "messages": "x" * 20 * 2**20}).encode()
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(body))) == 200
    assert json.loads(proxy.bodies[0]) == json.loads(body)


async def test_hundred_parallel_requests_are_served(tmp_path: Path) -> None:
    together = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(proxy.heads) == 100:
            together.set()
        await together.wait()
        writer.write(a_response(proxy.bodies[-1]))
        await writer.drain()

    async with a_proxy(tmp_path, answer) as proxy:
        responses = await asyncio.gather(*(proxy.send(a_request()) for _ in range(100)))

    assert [status_of(response) for response in responses] == [200] * 100
    assert len(proxy.reported) == 100


async def test_requests_over_a_limit_are_refused(tmp_path: Path) -> None:
    used = a_response(b'{"usage":{"input_tokens":50,"output_tokens":60}}')
    async with a_proxy(tmp_path, answers(used), max_tokens=100) as proxy:
        first = await proxy.send(a_request())
        second = await proxy.send(a_request())

    assert (status_of(first), status_of(second)) == (200, 403)
    assert b"maxTokens 100" in body_of(second)
    assert len(proxy.heads) == 1


async def test_connections_of_others_do_not_lock_the_agent_out(tmp_path: Path) -> None:
    """Agents with an open network share the machine's loopback."""
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        writers = [(await asyncio.open_connection("127.0.0.1", proxy.port))[1] for _ in range(MOST_CONNECTIONS)]
        for writer in writers[::2]:
            writer.write(b"POST /v1/messages HTTP/1.1\r\n")
        response = await proxy.send(a_request())
        for writer in writers:
            writer.close()

    assert status_of(response) == 200


async def test_requests_of_others_do_not_fill_the_log_of_the_job(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        for _ in range(MOST_UNAUTHENTICATED_REPORTED + 5):
            assert status_of(await proxy.send(a_request(token="wrong"))) == 401
        await proxy.send(a_request())

    assert [request.status for request in proxy.reported] == [401] * MOST_UNAUTHENTICATED_REPORTED + [200]


async def test_requests_at_once_do_not_exceed_a_limit_together(tmp_path: Path) -> None:
    """The usage of a request is known when it ends, so that all of these would pass at the usage of none."""
    used = a_response(b'{"usage":{"input_tokens":500,"output_tokens":600}}')

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until(lambda: len(proxy.heads) >= 2)  # they run at the same time all the same
        writer.write(used)
        await writer.drain()

    async with a_proxy(tmp_path, answer, max_tokens=1000) as proxy:
        responses = await asyncio.gather(*(proxy.send(a_request()) for _ in range(40)))

    assert len(proxy.heads) <= 4
    assert sorted({status_of(response) for response in responses}) == [200, 403]
    assert sum(request.usage.tokens for request in proxy.reported) <= 4400


async def test_expected_cost_is_that_of_input_that_is_cached_for_an_hour(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.write(a_response(b'{"usage":{"input_tokens":1,"output_tokens":1}}'))
        await writer.drain()

    body, most = json.dumps({"model": MODEL, "max_tokens": 1, "system": "a" * 20_000}).encode(), 2
    prices = Prices(input=1, cache_write=4)  # about $ 0.064 for each request
    async with a_proxy(tmp_path, answer, prices=prices, max_cost_usd=0.17) as proxy:
        sending = [asyncio.create_task(proxy.send(a_request(body))) for _ in range(10)]
        await until(lambda: len(proxy.heads) >= most)
        await asyncio.sleep(0.1)  # no further request follows
        assert len(proxy.heads) == most
        released.set()
        await asyncio.gather(*sending)


@pytest.mark.parametrize("limit", [{"max_tokens": 10_000}, {"max_cost_usd": 0.05}])
async def test_large_requests_at_once_wait_whatever_their_text_looks_like(
    tmp_path: Path, limit: dict[str, Any]
) -> None:
    """A text without spaces looks like an image, of which few tokens come."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(a_response(b'{"usage":{"input_tokens":60000,"output_tokens":10}}'))
        await writer.drain()

    body = json.dumps({"model": MODEL, "max_tokens": 16, "system": "a" * 1000 + " and words" * 20_000}).encode()
    async with a_proxy(tmp_path, answer, prices=Prices(input=1, output=1), **limit) as proxy:
        responses = await asyncio.gather(*(proxy.send(a_request(body)) for _ in range(20)))

    assert len(proxy.heads) == 1
    assert sorted(map(status_of, responses)) == [200] + [403] * 19


async def test_waiting_request_ends_with_its_client(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until(lambda: bool(proxy.reported))
        writer.write(a_response(b'{"usage":{"input_tokens":1,"output_tokens":1}}'))
        await writer.drain()

    body = json.dumps({"model": MODEL, "max_tokens": 10, "system": "word " * 100}).encode()
    async with a_proxy(tmp_path, answer, max_tokens=200) as proxy:
        first = asyncio.create_task(proxy.send(a_request(body)))
        await until(lambda: bool(proxy.heads))
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request(body))
        await writer.drain()
        writer.close()
        assert status_of(await first) == 200
        third = await proxy.send(a_request(body))

    assert status_of(third) == 200
    assert len(proxy.heads) == 2, "the request of the closed connection was not sent"


def a_stream(*events: bytes, kind: str = "text/event-stream") -> bytes:
    """Return the beginning of a response that ends when its connection is closed."""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + b"".join(events)


_START = (
    b'data: {"type":"message_start","message":{"usage":{"input_tokens":5,"cache_read_input_tokens":3,'
    b'"output_tokens":1}}}\n\n'
)
_DELTA = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"eight letters"}}\n\n'
_CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
_ITEM = b'data: {"type":"response.created","response":{"usage":null,"instructions":"' + b"delta " * 500 + b'"}}\n\n'
_PIECE = b'data: {"type":"response.output_text.delta","item_id":"m","delta":"word"}\n\n'


@pytest.mark.parametrize(
    ("provider", "path", "events", "usage"),
    [
        (
            "claude",
            "/v1/messages",
            [_START, *[_DELTA] * 50],
            Usage(input_tokens=5, output_tokens=100, cache_read_tokens=3),
        ),
        ("codex", "/responses", [_ITEM, *[_PIECE] * 50], Usage(input_tokens=2060, output_tokens=50)),
        (
            "codex",
            "/v1/chat/completions",
            [*[_CHUNK] * 50, b"data: [DONE]\n\n"],
            Usage(input_tokens=2060, output_tokens=50),
        ),
    ],
)
async def test_response_that_reports_no_usage_is_estimated(
    tmp_path: Path, provider: str, path: str, events: list[bytes], usage: Usage
) -> None:
    """A server reports usage at the end of a stream, if at all. An agent can cut the stream before."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(a_stream(*events))
        await writer.drain()
        writer.close()

    text = "word " * 800
    body = json.dumps({"model": MODEL, "stream": True, "messages": text, "input": text}).encode()
    async with a_proxy(tmp_path, answer, provider=provider, max_tokens=100_000) as proxy:
        await proxy.send(a_request(body, path=path))

    reported = proxy.reported[0]
    assert reported.usage.output_tokens <= 1, "the usage of the job is what servers report"
    found = proxy.policy.budget.usage
    assert (reported.usage + reported.estimated).output_tokens == found.output_tokens
    assert (found.output_tokens, found.cache_read_tokens) == (usage.output_tokens, usage.cache_read_tokens)
    assert abs(found.input_tokens - usage.input_tokens) <= 50


async def test_agent_that_cuts_a_stream_has_used_what_it_got(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(a_stream(_START, *[_DELTA] * 50))
        await writer.drain()
        await reader.read()

    async with a_proxy(tmp_path, answer, max_tokens=100) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request())
        received = b""
        while received.count(b"eight letters") < 50:
            received += await reader.read(2**16)
        writer.close()
        await until(lambda: bool(proxy.reported))
        second = await proxy.send(a_request())

    assert proxy.policy.budget.usage == Usage(input_tokens=5, output_tokens=100, cache_read_tokens=3)
    assert status_of(second) == 403


async def test_request_that_is_cut_before_its_answer_has_used_its_input(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    body = json.dumps({"model": MODEL, "system": "word " * 800, "max_tokens": 5, "stream": True}).encode()
    counted = []
    async with a_proxy(tmp_path, answer, max_tokens=100_000) as proxy:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(a_request(body, path=path))
            await until(lambda: len(proxy.bodies) > len(proxy.reported))
            writer.close()
            await until(lambda: len(proxy.bodies) == len(proxy.reported))
            counted.append(proxy.policy.budget.usage)

    assert counted[0].input_tokens == most_input_tokens(an_approved_request(proxy.bodies[0]))
    assert counted[1] == counted[0], "to count tokens costs none"


@pytest.mark.parametrize(("asked", "counted"), [(None, 300), (100, 100)])
async def test_answer_that_is_cut_may_have_had_as_many_tokens_as_a_model_writes_in_that_time(
    tmp_path: Path, asked: int | None, counted: int
) -> None:
    """A model does not send its reasoning, and reports it at the end only."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(a_stream(_PIECE))
        await writer.drain()
        await reader.read()

    body = json.dumps({"model": MODEL, "stream": True, "max_output_tokens": asked}).encode()
    async with a_proxy(tmp_path, answer, provider="codex", max_tokens=100_000) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request(body, path="/responses"))
        await reader.readuntil(b"word")
        await asyncio.sleep(1)
        writer.close()
        await until(lambda: bool(proxy.reported))

    assert counted <= proxy.policy.budget.usage.output_tokens <= max(asked or 0, 20 * counted)
    assert proxy.reported[0].usage == Usage(), "the usage of the job is what servers report"


@pytest.mark.parametrize("is_end_of_attempt", [False, True])
@pytest.mark.parametrize(("asked", "counted"), [(None, 131_072), (32_000, 32_000), (5e4, 50_000)])
async def test_answer_in_one_part_that_nobody_waits_for_is_written_to_its_end(
    tmp_path: Path, asked: float | None, counted: int, is_end_of_attempt: bool
) -> None:
    """The attempt may go on after a pause, with what is left of its limits."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    body = json.dumps({"model": MODEL, "max_tokens": asked}).encode().replace(b"50000.0", b"5e4")
    async with a_proxy(tmp_path, answer, max_tokens=100_000) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request(body))
        await until(lambda: bool(proxy.bodies))
        if is_end_of_attempt:
            await proxy.proxy.close()
        writer.close()
        await until(lambda: bool(proxy.reported))

    assert proxy.policy.budget.usage.output_tokens == counted
    assert proxy.reported[0].estimated.output_tokens == counted


async def test_answer_counts_although_its_client_closes_the_connection_at_its_last_byte(tmp_path: Path) -> None:
    """Then the proxy has not read the end of the response, which adds nothing."""
    used = b'{"usage":{"input_tokens":50,"output_tokens":60}}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%b\r\n" % (len(used), used))
        await writer.drain()
        await reader.read()

    async with a_proxy(tmp_path, answer) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request())
        await reader.readuntil(used)
        writer.close()
        await until(lambda: bool(proxy.reported))

    assert proxy.reported[0].usage == Usage(input_tokens=50, output_tokens=60)


@pytest.mark.parametrize(
    "end", [b"[" * 2000, b'"\\ud800"', b'"' + b"x" * MOST_BYTES + b'"'], ids=["deep", "half", "long"]
)
async def test_answer_whose_end_cannot_be_read_counts_like_one_that_was_cut(tmp_path: Path, end: bytes) -> None:
    """A server may repeat a part of the request in it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + _PIECE)
        await writer.drain()
        await asyncio.sleep(1)
        writer.write(b'data: {"response":{"usage":{"output_tokens":9000},"metadata":%b}}\n\n' % end)
        await writer.drain()
        writer.close()

    body = json.dumps({"model": MODEL, "stream": True}).encode()
    async with a_proxy(tmp_path, answer, provider="codex", max_tokens=100_000) as proxy:
        await proxy.send(a_request(body, path="/responses"))
        await until(lambda: bool(proxy.reported))

    assert 300 <= proxy.policy.budget.usage.output_tokens < 9000


async def test_response_that_the_server_cuts_has_used_what_arrived(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 10000\r\n\r\n"
        writer.write(head + _PIECE * 3)
        await writer.drain()
        await asyncio.sleep(0.5)
        writer.close()

    async with a_proxy(tmp_path, answer, provider="codex", max_tokens=100_000) as proxy:
        await proxy.send(a_request(path="/responses"))
        await until(lambda: bool(proxy.reported))

    assert proxy.policy.budget.usage.output_tokens == 3


@pytest.mark.parametrize("limit", [{}, {"max_tokens": 100_000}], ids=["without a limit", "with a limit"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
@pytest.mark.parametrize("given", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False, "a": 1}}])
async def test_stream_reports_its_usage(
    tmp_path: Path, limit: dict[str, Any], path: str, given: dict[str, Any]
) -> None:
    """Without it, the report of the agent's program would count, which an agent can forge."""
    async with a_proxy(tmp_path, answers(OK), provider="codex", **limit) as proxy:
        for stream in (True, False):
            body = json.dumps({"model": MODEL, "stream": stream} | given).encode()
            assert status_of(await proxy.send(a_request(body, path=path))) == 200

    streamed, other = map(json.loads, proxy.bodies)
    assert streamed["stream_options"] == (given.get("stream_options") or {}) | {"include_usage": True}
    assert other == {"model": MODEL, "stream": False} | given


@pytest.mark.parametrize(
    "query", ["model=expensive", "beta=true&model=x", "beta=true;model=x", "%6dodel=x", "api_base=http://x", "beta"]
)
async def test_query_that_a_gateway_could_obey_is_refused(tmp_path: Path, query: str) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(path=f"/v1/messages?{query}"))) == 400
    assert proxy.heads == []


async def test_body_is_json_for_every_server(tmp_path: Path) -> None:
    """A server could read a form that another model is named in."""
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        request = a_request(headers="Content-Type: application/x-www-form-urlencoded\r\n")
        assert status_of(await proxy.send(request)) == 200
    assert b"form" not in proxy.heads[0]
    assert proxy.heads[0].lower().count(b"content-type: application/json") == 1


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "302 Found"])
async def test_server_that_repeats_the_key_does_not_give_it_away(tmp_path: Path, status: str) -> None:
    """The key may arrive in pieces."""
    text = f"Bad headers: x-api-key={KEY}, x-api-key={KEY}".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _, rest = a_response(text, status=status, headers=f"X-Echo: {KEY}\r\n").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        for at in range(len(rest)):
            writer.write(rest[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)

    async with a_proxy(tmp_path, answer) as proxy:
        response = await proxy.send(a_request())

    hidden = b"*" * len(KEY)
    assert body_of(response) == text.replace(KEY.encode(), hidden)
    assert KEY.encode() not in response
    assert b"X-Echo: " + hidden in response or b"x-echo: " + hidden in response


async def test_server_that_repeats_the_key_elsewhere_does_not_give_it_away(tmp_path: Path) -> None:
    """In the phrase of the status, in the name of a header, and as escapes of JSON."""
    text = json.dumps({"error": f"bad key {KEY}"}).replace("-", "\\u002d").encode()
    response = a_response(text, status=f"400 Bad {KEY}", headers=f"{KEY}: no\r\n")
    async with a_proxy(tmp_path, answers(response)) as proxy:
        found = await proxy.send(a_request())
    assert KEY.encode() not in found
    assert KEY not in json.loads(body_of(found))["error"]
    assert found.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("status", [400, 429, 500, 529])
async def test_compressed_error_is_replaced(tmp_path: Path, status: int) -> None:
    """No request asks for one, and the key could be in it."""
    text = gzip.compress(f"bad key {KEY}".encode())
    response = a_response(text, status=f"{status} Bad", headers="Content-Encoding: gzip\r\n")
    async with a_proxy(tmp_path, answers(response)) as proxy:
        found = await proxy.send(a_request())
    assert status_of(found) == status
    assert b"an error that cannot be read" in body_of(found)


async def test_long_name_of_a_model_is_reported_in_short(tmp_path: Path) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(json.dumps({"model": "x" * 200_000}).encode()))) == 404
    assert proxy.reported[0].model == "x" * 200


@pytest.mark.parametrize("name", ["X_Forwarded_Host", "x_api_key", "X-Forwarded_Host"])
async def test_header_with_an_underscore_is_read_like_one_with_a_hyphen(tmp_path: Path, name: str) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        await proxy.send(a_request(headers=f"{name}: elsewhere.test\r\n"))
    assert b"elsewhere.test" not in proxy.heads[0]


async def test_headers_that_choose_who_pays_are_not_forwarded(tmp_path: Path) -> None:
    headers = f"Authorization: Bearer {TOKEN}\r\nOpenAI-Organization: org-other\r\nOpenAI-Project: proj-other\r\n"
    async with a_proxy(tmp_path, answers(OK), provider="codex") as proxy:
        await proxy.send(a_request(path="/responses", headers=headers))

    assert b"other" not in proxy.heads[0]


@pytest.mark.parametrize(
    "header",
    [
        *("X-Forwarded-Host", "X-Original-URL", "X-HTTP-Method-Override", "X-Forwarded-Prefix", "Cookie", "Via"),
        *("x-goog-api-key", "apikey", "api-key", "X-Serving-Authorization", "x-goog-user-project", "X-Amz-Target"),
        *("x-target-url", "x-target-host", "x-base-url", "X-New-Gateway-Route", "HTTP-Referer", "X-Title"),
        *("x-litellm-api-key", "x-litellm-tags", "x-litellm-model", "x-litellm-customer-id"),
        *("x-portkey-custom-host", "x-portkey-config", "x-portkey-provider", "x-portkey-virtual-key"),
        *("Helicone-Target-Url", "Helicone-Auth", "Helicone-Fallbacks", "Helicone-OpenAI-Api-Base"),
        *("cf-aig-authorization", "cf-aig-custom-cost", "cf-aig-metadata", "cf-aig-byok-alias"),
        *("x-ai-eg-model", "x-kong-llm-model", "x-vercel-ai-gateway", "x-provider", "x-model"),
    ],
)
async def test_headers_that_choose_another_server_or_path_are_not_forwarded(tmp_path: Path, header: str) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        await proxy.send(a_request(headers=f"{header}: other\r\nX-Stainless-Lang: js\r\n"))

    assert b"other" not in proxy.heads[0]
    assert b"x-stainless-lang: js" in proxy.heads[0].lower()


HEADERS_OF_PROGRAMS = {
    "Claude Code": "accept anthropic-beta anthropic-dangerous-direct-browser-access anthropic-version user-agent x-app "
    "x-claude-code-agent-id x-claude-code-session-id x-stainless-arch x-stainless-lang x-stainless-os "
    "x-stainless-package-version x-stainless-retry-count x-stainless-runtime x-stainless-runtime-version "
    "x-stainless-timeout",
    "Codex": "accept originator session-id thread-id user-agent x-client-request-id x-codex-beta-features "
    "x-codex-turn-metadata x-codex-window-id x-openai-internal-codex-responses-lite",
    "local provider": "accept user-agent",
}
"""The headers of the programs in tests/agents and tests/local, besides those that the proxy sets itself."""


@pytest.mark.parametrize("names", HEADERS_OF_PROGRAMS.values(), ids=HEADERS_OF_PROGRAMS.keys())
async def test_headers_of_the_agents_programs_are_forwarded(tmp_path: Path, names: str) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        await proxy.send(a_request(headers="".join(f"{name}: a-value\r\n" for name in names.split())))

    found = proxy.heads[0].lower().split(b"\r\n")
    assert [name for name in names.split() if f"{name}: a-value".encode() not in found] == []


async def test_closed_proxy_ends_and_refuses_requests_until_it_is_opened(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(proxy.heads) == 1:
            await reader.read()
        writer.write(OK)
        await writer.drain()

    async with a_proxy(tmp_path, answer) as proxy:
        running = asyncio.create_task(proxy.send(a_request()))
        await until(lambda: bool(proxy.heads))
        await proxy.proxy.close()
        assert await running == b""
        refused = await proxy.send(a_request())
        proxy.proxy.open()
        assert status_of(await proxy.send(a_request())) == 200

    assert (status_of(refused), b"run has ended" in refused, len(proxy.heads)) == (503, True, 2)
    assert [request.status for request in proxy.reported] == [499, 503, 200]


async def test_end_of_the_proxy_closes_all_connections(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with a_proxy(tmp_path, answer) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(a_request())
        await until(lambda: bool(proxy.heads))

    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    await until(lambda: len(asyncio.all_tasks()) <= 2)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = json.dumps({"model": MODEL, "max_tokens": 100_000, "stream": True}).encode()
OVERLOADED = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).encode()
ENDS = {
    "closed": b"",
    "gateway": a_response(b"timeout", status="504 Gateway Timeout", kind="text/plain"),
    "time limit": a_response(b"timeout", status="408 Request Timeout", kind="text/plain"),
    "cut": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"id":',
    "cut before a part": STREAM,
}
"""The ends of requests that take long, by a server or a gateway."""


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("seconds", "counted"), [(60.0, 18_000), (1000.0, 100_000), (0.0, 0)])
async def test_request_that_a_gateway_ends_after_long_has_used_as_much_as_a_model_writes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, seconds: float, counted: int
) -> None:
    """The model may still work on it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ENDS[end])
        await writer.drain()
        writer.close()

    monkeypatch.setattr(RunningRequest, "seconds", lambda _: seconds)
    async with a_proxy(tmp_path, answer, max_tokens=200_000) as proxy:
        await proxy.send(a_request(LONG))
        await until(lambda: bool(proxy.reported))

    assert counted <= proxy.policy.budget.usage.output_tokens <= counted + 10
    assert (proxy.policy.budget.usage.input_tokens > 0) == (counted > 0 or end.startswith("cut"))


async def test_requests_that_an_overloaded_server_refuses_late_have_used_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job waits for the pause of its model, and needs its budget afterwards."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(a_response(OVERLOADED, status=statuses[len(proxy.heads) - 1], headers="Retry-After: 20\r\n"))
        await writer.drain()

    monkeypatch.setattr(RunningRequest, "seconds", lambda _: 60.0)
    statuses = ["529 Overloaded", "503 Service Unavailable", "429 Too Many Requests"]
    async with a_proxy(tmp_path, answer, max_tokens=200_000) as proxy:
        found = [status_of(await proxy.send(a_request(LONG))) for _ in statuses]
        await until(lambda: len(proxy.reported) == len(statuses))

    assert (found, proxy.policy.budget.usage.tokens) == ([529, 503, 429], 0)


@pytest.mark.parametrize(("seconds", "sends"), [(0.0, 2), (60.0, 1)])
async def test_request_is_sent_again_only_if_its_connection_was_closed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, sends: int
) -> None:
    """A server that has worked on it for long may have written, and charged, a whole answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await writer.drain()
        if len(proxy.heads) == 1:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

    monkeypatch.setattr(RunningRequest, "seconds", lambda _: seconds)
    async with a_proxy(tmp_path, answer, max_tokens=200_000) as proxy:
        statuses = [status_of(await proxy.send(a_request(LONG))) for _ in range(2)]
        await until(lambda: len(proxy.reported) == 2)

    assert statuses == [200, 200 if sends == 2 else 502]
    assert len(proxy.heads) == sends
    assert (proxy.reported[1].estimated.output_tokens >= 18_000) == (sends == 1)

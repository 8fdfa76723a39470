"""Tests of the estimates of what a request may consume, whose bytes an agent chooses."""

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.key_proxy.budget import IMAGE_TOKENS, Budget, most_input_tokens, output_limit
from labrats.executor.key_proxy.model_server import RunningRequest
from labrats.model.config import JobConfig
from tests.unit.executor.attempts import a_task
from tests.unit.executor.key_proxy.proxies import an_approved_request

DATA = base64.b64encode(random.Random(1).randbytes(300_000)).decode()
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
INPUT_IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"}


def tokens_of(fields: dict[str, Any] | bytes) -> int:
    """Return the estimate for a request. fields: of its body, or its body."""
    return most_input_tokens(an_approved_request(fields if isinstance(fields, bytes) else json.dumps(fields).encode()))


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def test_text_counts_for_more_than_it_usually_has() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 1000  # ten tokens each
    assert 10_000 <= tokens_of(said({"type": "text", "text": text})) <= 25_000


@pytest.mark.parametrize("text", ["é" * 10_000, "0123456789" * 1000, "\u0001" * 10_000, "{}[]#$" * 2000])
def test_text_of_costly_characters_counts_a_token_for_each(text: str) -> None:
    assert tokens_of(said({"type": "text", "text": text})) >= len(text)


@pytest.mark.parametrize(
    "fields",
    [
        said(IMAGE),
        said({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}, IMAGE]}),
        said({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}),
        {"input": [{"role": "user", "content": [INPUT_IMAGE]}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [INPUT_IMAGE]}]},
    ],
    ids=["message", "result", "chat", "responses", "output"],
)
def test_image_counts_as_one(fields: dict[str, Any]) -> None:
    assert IMAGE_TOKENS <= tokens_of(fields) <= IMAGE_TOKENS + 300


@pytest.mark.parametrize(
    "fields",
    [
        said({"type": "text", "text": "a" * 1000 + DATA}),
        said({"type": "text", "text": DATA}),
        said({"type": "tool_use", "name": "f", "input": IMAGE}),
        said({"type": "tool_use", "name": "f", "input": [IMAGE]}),
        said({"type": "document", "source": {"type": "base64", "data": DATA}}),
        said({"type": "document", "source": {"type": "text", "data": DATA}}),
        said(IMAGE | {"text": DATA}),
        {"messages": [{"type": "image", "role": "user", "content": DATA}]},
        {"input": [{"type": "input_image", "role": "user", "content": DATA}]},
        {"system": [IMAGE]},
        {"tools": [IMAGE]},
        {"input": DATA},
        {"prompt": DATA},
        {"messages": DATA, "input": 1},
    ],
)
def test_part_that_is_no_image_counts_as_text(fields: dict[str, Any]) -> None:
    assert tokens_of(fields) > len(DATA) // 2


def test_image_with_two_texts_or_an_escaped_name_counts_as_text() -> None:
    parts = [
        b'{"type":"text","text":"%s","type":"image"}' % DATA.encode(),
        b'{"type":"text","te\\u0078t":"%s","type":"image"}' % DATA.encode(),
    ]
    for part in parts:
        assert tokens_of(b'{"messages":[{"content":[%s]}]}' % part) > len(DATA) // 2


@pytest.mark.parametrize(
    ("fields", "is_unseen"),
    [
        ({"previous_response_id": "resp_1", "input": "x"}, True),
        ({"conversation": {"id": "conv_1"}, "input": "x"}, True),
        ({"prompt": {"id": "pmpt_1"}, "input": "x"}, True),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, True),
        ({"input": [{"content": [{"type": "input_file", "file_id": "file_1"}]}]}, True),
        ({"messages": [{"content": [{"type": "document", "source": {"type": "url", "url": "https://a.b"}}]}]}, True),
        (said({"type": "document", "source": {"type": "base64", "data": "x" * 1000}}), True),
        (said({"type": "tool_result", "content": [{"type": "document", "data": "base64" + "x" * 1000}]}), True),
        (
            {
                "input": [
                    {"content": [{"type": "input_file", "file_data": f"data:application/pdf;base64,{'x' * 1000}"}]}
                ]
            },
            True,
        ),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, True),
        ({"context_management": [{"type": "compaction", "compact_threshold": 1000}]}, True),
        ({"compaction": {"type": "compact"}}, True),
        ({"previous_response_id": None, "prompt": "x", "input": "x"}, False),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}, False),
        (said({"type": "document", "source": {"type": "text", "data": "x" * 1000}}), False),
        (said({"type": "tool_use", "input": {"type": "file", "data": "base64" + "x" * 1000}}), False),
    ],
)
def test_input_that_is_not_in_the_request_may_fill_the_context(fields: dict[str, Any], is_unseen: bool) -> None:
    """The client may leave before the answer says how much it was."""
    assert (tokens_of(fields) >= 400_000) is is_unseen


def test_escaped_name_counts_as_what_it_may_hide() -> None:
    assert tokens_of(rb'{"input":[{"type":"x","f\u0069le_id":"x"}]}') >= 400_000
    assert tokens_of(rb'{"input":"\\u0069 in a program"}') < 100
    assert tokens_of(rb'{"input":"\\\u0069 in a program"}') >= 400_000
    assert tokens_of(rb'{"input":"caf\u00e9 \u001b[0m"}') < 100


def test_request_that_runs_alone_is_not_estimated(tmp_path: Path) -> None:
    """The estimate of a long conversation would delay each request by milliseconds."""
    budget = Budget(a_task(tmp_path, config=JobConfig(max_tokens=1000)))
    first, second = (RunningRequest(an_approved_request(b"{}".ljust(2000))) for _ in range(2))
    assert budget.has_room_for(first)
    budget.begin(first)
    assert first.expected is None
    assert not budget.has_room_for(second)
    assert first.expected is not None


def test_small_images_count_as_large_ones() -> None:
    """A picture of one colour takes few bytes and has any number of pixels."""
    small = IMAGE | {"source": {"type": "base64", "media_type": "image/png", "data": "x" * 500}}
    assert tokens_of(said(*[small] * 100)) >= 100 * IMAGE_TOKENS


@pytest.mark.parametrize(
    ("path", "fields", "limit"),
    [
        ("/v1/messages", {}, None),
        ("/v1/messages", {"max_tokens": "many"}, None),
        ("/v1/messages", {"max_tokens": -1}, None),
        ("/v1/messages", {"max_tokens": 10}, 10),
        ("/responses", {"max_output_tokens": 30}, 30),
        ("/responses", {"max_tokens": 30}, None),
        ("/v1/chat/completions", {"max_completion_tokens": 10, "max_tokens": 20}, 20),
        ("/v1/chat/completions", {"max_output_tokens": 1}, None),
        ("/responses/compact", {"max_output_tokens": 1}, None),
    ],
)
def test_limit_of_an_answer_is_that_of_its_api(path: str, fields: dict[str, Any], limit: int | None) -> None:
    """Servers ignore the fields of other APIs, so that a limit in one of them limits nothing."""
    assert output_limit(an_approved_request(json.dumps(fields).encode(), path)) == limit

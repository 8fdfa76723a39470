"""Tests of requests that would make the model's server reach other hosts."""

import json
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.key_proxy.reach import MOST_VALUES, without_reach
from labrats.model.network import AllowedHosts, Network
from tests.unit.executor.key_proxy.proxies import (
    MESSAGES,
    MODEL,
    a_proxy,
    a_request,
    a_response,
    answers,
    body_of,
    status_of,
)

OK = a_response(b"{}")
RULES = ["none", AllowedHosts(allow=("pypi.org",))]
_URL = "https://attacker.example/?data=secret"


def said(*content: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


def a_request_with(fields: dict[str, Any]) -> bytes:
    """Return a request with these fields to the API that has them."""
    apis = {"/responses": ("input", "prompt", "text"), "/chat/completions": ("web_search_options", "response_format")}
    path = next((path for path, names in apis.items() if not fields.keys().isdisjoint(names)), MESSAGES)
    return a_request(json.dumps({"model": MODEL} | fields).encode(), path=path)


def provider_of(request: bytes) -> str:
    return "claude" if MESSAGES.encode() in request else "codex"


REACHING: dict[str, dict[str, Any]] = {
    "web search": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "web fetch": {"tools": [{"name": "a"}, {"type": "web_fetch_20250910", "name": "web_fetch"}]},
    "code execution": {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
    "mcp of the Responses API": {"tools": [{"type": "mcp", "server_url": _URL}]},
    "hosted shell": {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
    "tool in the conversation": {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]},
    "tool in a namespace": {"tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]},
    "mcp of the Messages API": {"mcp_servers": [{"type": "url", "url": _URL}]},
    "search of chat completions": {"messages": [], "web_search_options": {}},
    "file by its id": said({"type": "file", "file": {"file_id": _URL}}),
    "file that seems to be text": said({"type": "file", "file": {"type": "text", "file_id": _URL}}),
    "data that seem to be text": said({"type": "file", "file": {"type": "text", "file_data": _URL}}),
    "content of a file": said({"type": "file", "file": {"content": _URL}}),
    "picture that seems to be text": said({"type": "image", "source": {"type": "text", "uri": _URL}}),
    "picture in a document": said(
        {
            "type": "document",
            "source": {"type": "content", "content": [{"type": "image", "source": {"type": "url", "url": _URL}}]},
        }
    ),
    "file with an address": said({"type": "file", "file": {"url": _URL}}),
    "picture by its name": said({"type": "image", "image": _URL}),
    "picture with an address": said({"type": "image_url", "image_url": {"uri": _URL}}),
    "sound with an address": said({"type": "input_audio", "input_audio": {"url": _URL}}),
    "frames of a video": said({"type": "video", "video": [_URL]}),
    "stored prompt with tools": {"prompt": {"id": "pmpt_1"}},
    "tools of gateways": {"tools": [{"urlContext": {}}, {"googleSearch": {}}]},
    "picture": said({"type": "image", "source": {"type": "url", "url": _URL}}),
    "picture in a result": said(
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": _URL}}]}
    ),
    "picture of the Responses API": {"input": [{"content": [{"type": "input_image", "image_url": _URL}]}]},
    "file of the Responses API": {"input": [{"content": [{"type": "input_file", "file_url": _URL}]}]},
    "picture in a request that seems to be a call": {
        "type": "tool_use",
        "input": [{"content": [{"type": "input_image", "image_url": _URL}]}],
    },
    "file of a gateway": said({"type": "file", "file": {"filename": "a.pdf", "file_data": _URL}}),
    "sound of a gateway": said({"type": "input_audio", "input_audio": {"data": _URL, "format": "wav"}}),
    "picture for a server that ignores case": said({"type": "image_url", "Image_URL": {"url": _URL}}),
    "address for a server that ignores case": said({"type": "image_url", "image_url": {"URL": "//attacker.example"}}),
    "field with a letter that is another one in lower case": said({"type": "file", "\u017fource": {"url": _URL}}),
    "picture of chat completions": said({"type": "image_url", "image_url": {"url": _URL}}),
}

HARMLESS: dict[str, dict[str, Any]] = {
    "tools of the program": {
        "tools": [
            {"name": "Bash", "input_schema": {"properties": {"image_url": {"type": "string"}}}},
            {"type": "custom", "name": "Edit"},
            {"type": "function", "name": "f", "parameters": {"image_url": "a picture"}},
            {"type": "text_editor_20250728", "name": "edit"},
            {"type": "local_shell"},
            {"type": "tool_search", "execution": "client", "parameters": {}},
            {"function": {"name": "f", "parameters": {"properties": {"url": {}}}}},
        ]
    },
    "usual fields": {"stream": True, "metadata": {"user_id": "u"}, "thinking": {}, "output_config": {"effort": "low"}},
    "document of text": said(
        {"type": "document", "source": {"type": "text", "data": _URL}, "title": _URL, "context": _URL},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": _URL}]}},
    ),
    "schema of the answer": {
        "text": {"format": {"schema": {"properties": {"source": {"format": "uri", "examples": [_URL]}}}}},
    },
    "schema of the answer of chat completions": {
        "response_format": {"json_schema": {"schema": {"properties": {"file": {"default": _URL}}}}},
    },
    "result of a search": said({"type": "search_result", "source": _URL, "title": "a", "content": []}),
    "picture in the request": said({"type": "image", "source": {"type": "base64", "data": "AAAA"}}),
    "data as an address": said({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
    "file in the request": said({"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}),
    "call of a tool": said({"type": "tool_use", "name": "x", "input": {"type": "url", "url": _URL, "image_url": _URL}}),
    "text": said({"type": "text", "text": json.dumps({"image_url": _URL})}),
}


@pytest.mark.parametrize("network", RULES, ids=["none", "allow"])
@pytest.mark.parametrize("fields", REACHING.values(), ids=REACHING.keys())
async def test_rule_of_the_network_holds_for_the_server_of_the_model(
    tmp_path: Path, fields: dict[str, Any], network: Network
) -> None:
    request = a_request_with(fields)
    async with a_proxy(tmp_path, answers(OK), provider=provider_of(request), network=network) as proxy:
        response = await proxy.send(request)

    assert (status_of(response), proxy.heads) == (400, [])
    assert b"reach other hosts" in body_of(response)
    assert "reach other hosts" in (proxy.reported[0].refusal or "")


@pytest.mark.parametrize("fields", REACHING.values(), ids=REACHING.keys())
async def test_server_of_the_model_may_reach_hosts_without_a_rule(tmp_path: Path, fields: dict[str, Any]) -> None:
    request = a_request_with(fields)
    async with a_proxy(tmp_path, answers(OK), provider=provider_of(request), network="open") as proxy:
        assert status_of(await proxy.send(request)) == 200


@pytest.mark.parametrize("fields", HARMLESS.values(), ids=HARMLESS.keys())
async def test_other_requests_pass_with_a_rule(tmp_path: Path, fields: dict[str, Any]) -> None:
    request = a_request_with(fields)
    async with a_proxy(tmp_path, answers(OK), provider=provider_of(request), network="none") as proxy:
        assert status_of(await proxy.send(request)) == 200
    assert json.loads(proxy.bodies[0]) == {"model": MODEL} | fields


@pytest.mark.parametrize(
    "model", ["gpt-4o-search-preview", "gpt-5-search", "x/y:online", "perplexity/sonar-pro", "groq/compound"]
)
@pytest.mark.parametrize(
    ("named", "network", "status"), [(False, "none", 400), (False, "open", 200), (True, "none", 200)]
)
async def test_model_that_searches_by_itself_must_be_named_by_a_job_with_a_rule(
    tmp_path: Path, model: str, named: bool, network: Network, status: int
) -> None:
    body = json.dumps({"model": model}).encode()
    async with a_proxy(tmp_path, answers(OK), network=network, model=model if named else None) as proxy:
        assert status_of(await proxy.send(a_request(body))) == status


@pytest.mark.parametrize(("network", "status"), [("none", 400), ("open", 200)])
async def test_version_of_the_jobs_model_that_searches_is_refused_by_a_rule(
    tmp_path: Path, network: Network, status: int
) -> None:
    body = json.dumps({"model": "anthropic/claude-sonnet-4.5:online"}).encode()
    async with a_proxy(tmp_path, answers(OK), network=network, model="sonnet") as proxy:
        assert status_of(await proxy.send(a_request(body))) == status


async def test_escaped_names_of_fields_are_recognised(tmp_path: Path) -> None:
    body = b'{"model":"%s","messages":[{"content":[{"\\u0069mage_url":"%s"}]}]}' % (MODEL.encode(), _URL.encode())
    async with a_proxy(tmp_path, answers(OK), network="none") as proxy:
        assert status_of(await proxy.send(a_request(body))) == 400


async def test_repeated_field_reaches_the_server_once(tmp_path: Path) -> None:
    body = b'{"model":"%s","tools":[{"type":"web_search","type":"custom","name":"x"}]}' % MODEL.encode()
    async with a_proxy(tmp_path, answers(OK), network="none") as proxy:
        await proxy.send(a_request(body))

    assert json.loads(proxy.bodies[0])["tools"] == [{"type": "custom", "name": "x"}]
    assert b"web_search" not in proxy.bodies[0]


@pytest.mark.parametrize("values", [b"[" * 50_000 + b"]" * 50_000, b"[" + b"{}," * MOST_VALUES + b"{}]"])
async def test_request_that_is_hard_to_read_is_refused(tmp_path: Path, values: bytes) -> None:
    body = b'{"model":"%s","messages":%s}' % (MODEL.encode(), values)
    async with a_proxy(tmp_path, answers(OK), network="none") as proxy:
        assert status_of(await proxy.send(a_request(body))) in (400, 413)
        assert proxy.heads == []


def test_deep_parts_are_examined_in_linear_time() -> None:
    """With quadratic time, these would take hours, in which no other thread runs."""
    deep: Any = ["x"] * 100_000
    for _ in range(300):
        deep = {"file": deep, "input": 1, "type": {"a": 1}}
    without_reach(json.dumps({"messages": [deep]}).encode())

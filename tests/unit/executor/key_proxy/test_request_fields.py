"""Tests of the fields of a request that reach the model's server, and of the models that they name."""

import json
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.key_proxy.request_fields import MOST_REMOVED
from labrats.model.network import Network
from tests.unit.executor.key_proxy.proxies import MESSAGES, MODEL, a_proxy, a_request, a_response, answers, status_of

OK = a_response(b"{}")

OF_PROGRAMS: dict[str, tuple[str, str, str]] = {
    "Claude Code": (
        "claude",
        MESSAGES,
        "context_management max_tokens messages metadata output_config speed stream system thinking tools",
    ),
    "Claude Code counts": ("claude", f"{MESSAGES}/count_tokens", "messages system thinking tool_choice tools"),
    "Codex": (
        "codex",
        "/v1/responses",
        (
            "client_metadata include input instructions parallel_tool_calls prompt_cache_key reasoning service_tier "
            "store stream text tool_choice tools"
        ),
    ),
    "Codex compacts": ("codex", "/responses/compact", "input instructions parallel_tool_calls reasoning text tools"),
    "local provider": (
        "codex",
        "/v1/chat/completions",
        (
            "frequency_penalty max_tokens messages min_p presence_penalty reasoning_effort repetition_penalty "
            "response_format seed stream stream_options temperature tool_choice tools top_k top_p"
        ),
    ),
}
"""The fields that the programs send in tests/agents and tests/local, or name in their code: provider, path, fields."""

TOOLS: dict[str, dict[str, Any]] = {
    "Claude Code": {"name": "Bash", "description": "d", "input_schema": {"type": "object"}, "defer_loading": True},
    "function": {"type": "function", "name": "f", "description": "d", "parameters": {"url": {}}, "strict": False},
    "custom": {"type": "custom", "name": "apply_patch", "description": "d", "format": {"type": "grammar"}},
    "namespace": {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "function", "name": "f"}]},
    "search": {"type": "tool_search", "description": "d", "execution": "client", "parameters": {}},
    "chat": {"type": "function", "function": {"name": "f", "parameters": {"properties": {"url": {}}}}},
    "of the server": {"type": "web_search", "external_web_access": False, "search_content_types": ["text"]},
}

FIELDS_OF_GATEWAYS = (
    *("models", "fallbacks", "context_window_fallbacks", "model_list", "api_base", "base_url", "api_key"),
    *("api_version", "deployment_id", "preset", "extra_body", "extra_headers", "user_config", "Litellm_Params"),
    *("router_settings", "provider", "providerOptions", "advisor", "plugins", "route", "enable_search"),
    *("search_parameters", "data_sources", "connectors", "bootstrap_host", "kv_transfer_params", "lora_path"),
    *("chat_template", "Model", "Stream", "Service_Tier", " n", "n", "best_of", "prompt", "container", "thread"),
    *("workspace_id", "x" * 100_000),
)


@pytest.mark.parametrize(("provider", "path", "names"), OF_PROGRAMS.values(), ids=OF_PROGRAMS.keys())
async def test_fields_of_the_programs_are_forwarded(tmp_path: Path, provider: str, path: str, names: str) -> None:
    fields: dict[str, Any] = {"model": MODEL, **dict.fromkeys(names.split())}
    async with a_proxy(tmp_path, answers(OK), provider=provider, network="none", max_tokens=10**6) as proxy:
        assert status_of(await proxy.send(a_request(json.dumps(fields).encode(), path=path))) == 200

    assert json.loads(proxy.bodies[0]).keys() == fields.keys()
    assert proxy.reported[0].removed_fields == ()


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
async def test_tools_of_the_programs_are_forwarded(tmp_path: Path, tool: dict[str, Any]) -> None:
    items = [{"type": "additional_tools", "role": "developer", "tools": [tool]}]
    body = json.dumps({"model": MODEL, "tools": [tool], "input": items}).encode()
    async with a_proxy(tmp_path, answers(OK), provider="codex") as proxy:
        assert status_of(await proxy.send(a_request(body, path="/responses"))) == 200

    assert json.loads(proxy.bodies[0]) == json.loads(body)


@pytest.mark.parametrize("name", FIELDS_OF_GATEWAYS, ids=lambda name: name[:30])
@pytest.mark.parametrize("network", ["open", "none"])
async def test_field_that_only_a_gateway_has_is_removed_and_reported(
    tmp_path: Path, name: str, network: Network
) -> None:
    body = json.dumps({"model": MODEL, "max_tokens": 5, name: [{"model": "another", "url": "x"}]}).encode()
    async with a_proxy(tmp_path, answers(OK), network=network, max_tokens=10**6) as proxy:
        assert status_of(await proxy.send(a_request(body))) == 200

    assert json.loads(proxy.bodies[0]) == {"model": MODEL, "max_tokens": 5}
    assert proxy.reported[0].removed_fields == (name[:100],)


@pytest.mark.parametrize("tools", ["tools", "t\\u006fols"])
@pytest.mark.parametrize(
    "field",
    ['"url_context":{}', '"googleSearch":{}', '"Type":"web_search"', '"model":"another"', '"server_url":"x"'],
)
async def test_field_of_a_tool_that_only_a_gateway_has_is_removed(tmp_path: Path, tools: str, field: str) -> None:
    """A namespace and an item of the conversation have tools, too."""
    given = f'{{"type":"function","name":"f",{field}}}'
    nested = f'[{given},{{"type":"namespace","name":"n","tools":[{given}]}}]'
    body = f'{{"model":"{MODEL}","tools":{nested},"input":[{{"type":"additional_tools","{tools}":{nested}}}]}}'
    async with a_proxy(tmp_path, answers(OK), provider="codex") as proxy:
        assert status_of(await proxy.send(a_request(body.encode(), path="/responses"))) == 200

    function = {"type": "function", "name": "f"}
    kept = [function, {"type": "namespace", "name": "n", "tools": [function]}]
    sent = json.loads(proxy.bodies[0])
    assert [sent["tools"], *(value for item in sent["input"] for value in item.values() if value != item["type"])] == [
        kept,
        kept,
    ]
    removed = json.loads(f"{{{field}}}")
    assert set(proxy.reported[0].removed_fields) == {f"tools.{name}" for name in removed}


async def test_few_removed_fields_of_a_request_are_reported(tmp_path: Path) -> None:
    body = json.dumps({"model": MODEL} | {f"x{number}": 1 for number in range(1000)}).encode()
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(body))) == 200

    assert json.loads(proxy.bodies[0]) == {"model": MODEL}
    assert len(proxy.reported[0].removed_fields) == MOST_REMOVED


@pytest.mark.parametrize("tools", [b"[7]", b'{"name":"f"}', b'[{"type":"\xff"}]', b'[{"type":"namespace","tools":7}]'])
async def test_tools_that_are_no_list_of_objects_are_refused(tmp_path: Path, tools: bytes) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        body = b'{"model":"%s","tools":%s}' % (MODEL.encode(), tools)
        assert status_of(await proxy.send(a_request(body))) == 400
    assert proxy.heads == []


async def test_tools_that_are_nested_deeply_are_refused(tmp_path: Path) -> None:
    tools = b'[{"type":"namespace","tools":' * 500 + b"[]" + b"}]" * 500
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(b'{"model":"%s","tools":%s}' % (MODEL.encode(), tools)))) == 400
    assert proxy.heads == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5"}]},
        {"tools": [{"type": "image_generation", "model": "another"}]},
        {"tools": [{"type": "openrouter:advisor", "parameters": {"model": "another"}}]},
        {"tools": [{"type": "openrouter:advisor", "parameters": {"Models": ["another"]}}]},
        {"compaction": {"model": "another"}},
        {"context_management": {"edits": [{"type": "compact", "models": ["another"]}]}},
        {"model": ""},
    ],
)
async def test_model_that_a_request_names_besides_must_be_that_of_the_job(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        response = await proxy.send(a_request(json.dumps({"model": MODEL} | fields).encode()))

    assert (status_of(response) in (400, 404), proxy.heads) == (True, [])


@pytest.mark.parametrize("name", [b"model", b"m\\u006fdel"])
async def test_model_in_a_part_of_a_tool_reaches_the_server_once(tmp_path: Path, name: bytes) -> None:
    models = b'"%s":"claude-opus-5","model":"%s"' % (name, MODEL.encode())
    body = b'{"model":"%s","tools":[{"type":"advisor","parameters":{%s}}]}' % (MODEL.encode(), models)
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(body))) == 200
    assert json.loads(proxy.bodies[0])["tools"] == [{"type": "advisor", "parameters": {"model": MODEL}}]
    assert b"claude-opus-5" not in proxy.bodies[0]


@pytest.mark.parametrize(
    ("value", "status"),
    [(b"[" * 50_000 + b"]" * 50_000, 400), (b'"%s"' % (b"x" * 2**20), 413), (b'"\xff"', 400)],
)
async def test_field_that_may_name_a_model_and_is_hard_to_read_is_refused(
    tmp_path: Path, value: bytes, status: int
) -> None:
    body = b'{"model":"%s","compaction":{"model":%s}}' % (MODEL.encode(), value)
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(body))) == status


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"name": "f", "input_schema": {"properties": {"model": {"type": "string"}}}}]},
        {"tools": [{"type": "function", "parameters": {"default": {"model": "any"}}}]},
        {"messages": [{"content": [{"type": "tool_use", "input": {"model": "any"}}]}], "metadata": {"model": "any"}},
        {"output_config": {"format": {"schema": {"default": {"model": "any"}}}}, "compaction": {"model": MODEL}},
    ],
)
async def test_schemas_and_calls_of_tools_may_speak_of_models(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(json.dumps({"model": MODEL} | fields).encode()))) == 200
    assert json.loads(proxy.bodies[0]) == {"model": MODEL} | fields


async def test_tool_may_use_the_model_of_the_job(tmp_path: Path) -> None:
    fields = {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": MODEL}]}
    async with a_proxy(tmp_path, answers(OK)) as proxy:
        assert status_of(await proxy.send(a_request(json.dumps({"model": MODEL} | fields).encode()))) == 200

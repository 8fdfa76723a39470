"""Results that must match a JSON Schema: the checked value in the job, the one repair, the failure, and the chain."""

import asyncio
from typing import Any

import pytest

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, Engine, User

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"risk": {"$ref": "#/$defs/risk"}, "note": {"type": "string"}},
    "required": ["risk"],
    "$defs": {"risk": {"type": "integer", "minimum": 0}},
}


async def test_job_has_the_checked_value_beside_its_result(user: User) -> None:
    answer = 'Done.\n\n```json\n{"risk": 2}\n```'

    job = await user.run({"result": answer}, resultSchema=SCHEMA)

    assert (job["status"], job["result"], job["resultData"]) == ("completed", answer, {"risk": 2})
    assert job["resultSchema"] == SCHEMA
    listed = (await user.get("/api/jobs")).json()["jobs"][0]
    assert not {"resultData", "resultSchema"} & listed.keys()


async def test_invalid_result_is_repaired_once(user: User) -> None:
    turn = {"usage": {"turns": 1, "inputTokens": 10}}
    steps = [turn, {"result": "It is fine."}, {"onRepair": [turn, {"result": '{"risk": 0}'}]}]

    job = await user.run(*steps, resultSchema=SCHEMA)

    assert (job["status"], job["result"], job["resultData"]) == ("completed", '{"risk": 0}', {"risk": 0})
    assert (job["usage"]["turns"], job["usage"]["inputTokens"]) == (2, 20)
    assert job["logs"][-1] == "[asking the agent to correct its result]"


async def test_result_that_stays_invalid_fails_the_job_without_another_attempt(user: User) -> None:
    job = await user.run({"result": '{"risk": -1}'}, resultSchema=SCHEMA, config={"maxAttempts": 3})

    assert (job["status"], job["failedCode"], job["attempts"]) == ("failed", "result_invalid", 1)
    assert job["failedReason"] == (
        "the result does not match the job's resultSchema: "
        "risk: the value is less than the minimum of 0 (#/$defs/risk/minimum)"
    )
    assert job["resultData"] is None


async def test_value_that_is_too_large_fails_the_job(user: User) -> None:
    job = await user.run({"result": {"risk": 1, "note": "x" * 33_000}}, resultSchema=SCHEMA)

    assert (job["status"], job["failedCode"]) == ("failed", "result_invalid")
    assert "bytes as JSON, and may have at most 32768" in job["failedReason"]


async def test_job_with_the_largest_schema_and_metadata_runs(user: User) -> None:
    schema = SCHEMA | {"description": "x" * (64 * 1024 - 500)}
    metadata = {"mock": {"steps": [{"result": {"risk": 1, "note": "x" * 32_000}}]}, "note": "x" * (30 * 1024)}

    job = await user.run(resultSchema=schema, metadata=metadata)

    assert (job["status"], job["failedReason"]) == ("completed", None)
    assert (job["resultData"]["risk"], job["resultSchema"]) == (1, schema)


async def test_secret_in_the_value_is_redacted(engine: Engine, admin: User) -> None:
    engine.set_secret("for-results", "TOKEN", "a-secret-of-results")
    env = {"TOKEN": {"secret": "for-results", "key": "TOKEN"}}

    job = await admin.run(
        {"result": {"risk": 1, "note": "it is a-secret-of-results"}}, resultSchema=SCHEMA, config={"env": env}
    )

    assert job["resultData"] == {"risk": 1, "note": "it is [redacted]"}


async def test_rerun_has_the_schema_of_the_first_job(user: User) -> None:
    first = await user.run({"result": {"risk": 1}}, resultSchema=SCHEMA)

    answer = await user.post(f"/api/jobs/{first['id']}/rerun", {})
    again = await user.wait(answer.json()["jobId"])

    assert (again["resultSchema"], again["resultData"]) == (SCHEMA, {"risk": 1})


async def test_chain_passes_the_checked_value_on(user: User, admin: User, name: str) -> None:
    text = "The risk is {{ parent.data.risk }}, not {{ parent.data.other }}."
    await admin.post("/api/instructions", {"name": name, "content": text})
    trigger: dict[str, Any] = {"source": name, "events": ["checked"]}
    first = {"name": f"{name}-checker", "defaultProvider": "mock", "resultSchema": SCHEMA}
    following = {"next": {"agentTriggerName": f"{name}-judge"}}
    await admin.post("/api/agents", first | {"eventTriggers": [trigger | following]})
    judge = {"name": f"{name}-judge", "defaultProvider": "mock", "instructions": [name]}
    created = await admin.post("/api/agents", judge)
    assert created.status_code == 201, created.text

    answer = await user.post("/api/events/ingest", {"source": name, "event": "checked", "payload": {}})
    parent = await user.wait(answer.json()["jobs"][0]["jobId"])
    assert (parent["resultSchema"], parent["resultData"]) == (SCHEMA, {"risk": 0})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (child_id := (await user.job(parent["id"]))["childJobId"]) is None:
            await asyncio.sleep(POLL_SECONDS)

    child = await user.wait(child_id)
    prompt = (await user.get(f"/api/jobs/{child_id}/prompt")).json()["prompt"]
    assert 'from="parent.data.risk">0</data-' in prompt
    assert "not (none)." in prompt
    assert (child["resultSchema"], child["resultData"]) == (None, None)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("[]", "must be an object"),
        ({"type": "strin"}, "type must be array, boolean"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "nothing is fetched"),
        ({"pattern": "(?=a)"}, "must be a regular expression without look-around"),
        ({"description": "x" * 70_000}, "must be at most 64 KiB"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
    ],
    ids=["text", "type", "remote", "look-around", "large", "draft 7"],
)
async def test_unusable_schema_is_refused_with_the_reason(user: User, schema: Any, words: str) -> None:
    answer = await user.post(
        "/api/jobs/submit", {"source": "manual", "type": "t", "prompt": "Check.", "resultSchema": schema}
    )

    assert answer.status_code == 422
    (problem,) = answer.json()["details"]
    assert problem["field"] == "resultSchema"
    assert words in problem["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"resultSchema":' + b"[" * 25_000_000, 413),
        (b'{"resultSchema":' + b"[" * 1_000_000, 400),
        (b'{"source":"a","type":"t","prompt":"p","resultSchema":' + b'{"not":' * 90 + b"{}" + b"}" * 91, 400),
    ],
    ids=["25 MB of brackets", "1 MB of brackets", "90 levels"],
)
async def test_deeply_nested_schema_is_refused(user: User, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}

    assert (await user.http.post("/api/jobs/submit", content=body, headers=headers)).status_code == status

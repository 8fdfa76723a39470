"""Executors in a caller's own image that report whatever an attacker likes: each job ends, and its slot is free."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from labrats.backends.kubernetes.client import ApiClient
from labrats.model.record import encode
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, User
from tests.kubernetes.conftest import EngineFactory

pytestmark = pytest.mark.kubernetes(node=True)

PROGRAM = '#!/bin/sh\nexec sh "$3/prompt"\n'
"""Runs the job's prompt in place of the executor, whose third argument is the folder of its inputs."""

HUGE = 10**400
"""An integer that no API server can read."""


@pytest.fixture
async def user(start_engine: EngineFactory, api_client: ApiClient, jobs_namespace: str) -> AsyncIterator[User]:
    """A user of an engine with one slot, in whose pods PROGRAM is the executor."""
    program = {"metadata": {"name": "program"}, "data": {"python": PROGRAM}}
    await api_client.request("POST", f"/api/v1/namespaces/{jobs_namespace}/configmaps", encode(program))
    extras = {
        "volumes": [{"name": "program", "configMap": {"name": "program", "defaultMode": 0o755}}],
        "volumeMounts": [{"name": "program", "mountPath": "/opt/labrats/bin/python", "subPath": "python"}],
    }
    engine = start_engine(LABRATS_EXECUTOR_EXTRAS=json.dumps(extras), DEFAULT_MODEL_SLOTS="1")
    async with engine.user() as user:
        yield user


def printing(**event: Any) -> str:
    """Return the program that prints an event."""
    line = json.dumps({"seq": 1, "at": "2030-01-01T12:00:00Z"} | event)
    return f"cat <<'END'\n{line}\nEND\n"


@pytest.mark.parametrize(
    ("event", "code", "words"),
    [
        ({"kind": "result", "result": HUGE}, "internal", "the outcome of the job cannot be stored"),
        ({"kind": "result", "result": "x", "data": {"n": HUGE}}, "internal", "the outcome of the job cannot be stored"),
        (
            {"kind": "error", "at": "2030-01-01T12:00:00", "code": "agent_error", "message": "a time without a zone"},
            "executor_died",
            "without an outcome",
        ),
    ],
    ids=["result", "data", "time"],
)
async def test_an_outcome_that_cannot_be_stored_fails_the_job(
    user: User, event: dict[str, Any], code: str, words: str
) -> None:
    detail = await user.run(prompt=printing(**event))

    assert (detail["status"], detail["failedCode"]) == ("failed", code)
    assert words in detail["failedReason"]
    assert (await user.run(prompt=printing(kind="result", result="done")))["returnvalue"] == "done"


async def test_a_rate_limit_that_an_image_of_the_caller_reports_pauses_no_other_job(
    user: User, executor_image: str
) -> None:
    event = {"kind": "error", "at": datetime.now(UTC).isoformat(), "code": "rate_limited", "message": "slow down"}
    limited = printing(**event, retryAfterSeconds=3600)
    config = {"executorImage": executor_image, "timeoutMs": 7_200_000}
    job_id = await user.submit(prompt=limited, config=config)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (await user.job(job_id))["notBefore"]:
            await asyncio.sleep(POLL_SECONDS)

    assert (await user.run(prompt=printing(kind="result", result="done")))["returnvalue"] == "done"
    assert (await user.job(job_id))["status"] == "waiting"


async def test_a_cancelled_executor_that_reports_an_odd_time_frees_its_slot(user: User) -> None:
    log = printing(kind="log", text="working", at="0001-01-01T00:00:00Z", origin="engine")
    job_id = await user.submit(prompt=f"{log}sleep 600\n")
    async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
        await anext(events)
    await user.cancel(job_id)

    assert (await user.wait(job_id))["status"] == "cancelled"
    assert (await user.run(prompt=printing(kind="result", result="done")))["returnvalue"] == "done"

"""The life of a job: submission, run, result, and the fields that show them."""

import asyncio
import re
from datetime import datetime

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, Engine, LocalEngine, User, a_submission

ITEM_FIELDS = {
    "id", "name", "source", "agentRole", "repo", "status", "attempts", "createdAt", "processedAt", "finishedAt",
    "failedReason", "chainId", "chainDepth", "parentJobId", "chainPath", "result", "title", "provider", "model",
    "priority", "failedCode", "usage", "owner", "childJobId", "cancelRequestedAt", "notBefore", "activity",
}  # fmt: skip
DETAIL_FIELDS = ITEM_FIELDS | {
    "phase", "accountName", "k8sJobName", "executorPodName", "returnvalue", "logs", "workspaceSetup", "promptRef",
    "config", "outputs", "metadata", "workspaceFiles", "deadlineAt", "configOrigins", "callback", "chainNext",
    "report", "published", "chainEnded", "session", "waiting", "rerunOf", "refusedHosts", "keyExposed", "isolation",
    "answeredBy", "cancelledBy",
    "concurrency", "supersededBy", "followUpOf", "resultSchema", "resultData", "retryRefused",
}  # fmt: skip


async def test_submitted_job_runs_and_shows_its_result_and_log(user: User) -> None:
    answer = await user.post("/api/jobs/submit", a_submission(source="github", type="implement-issue"))

    assert answer.status_code == 201
    job_id = answer.json()["jobId"]
    assert re.fullmatch(r"ir-[0-9a-f]{8}", job_id)
    assert answer.json() == {"jobId": job_id, "source": "github", "type": "implement-issue"}
    detail = await user.wait(job_id)
    assert detail["status"] == "completed"
    assert detail["result"] == detail["returnvalue"]
    assert "3 words" in detail["result"]  # the default script reports the length of the prompt
    assert len(detail["logs"]) == 3
    assert await user.log_lines(job_id) == detail["logs"]


async def test_job_detail_and_list_have_exactly_the_documented_fields(user: User) -> None:
    detail = await user.run()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (item := (await user.get("/api/jobs")).json()["jobs"][0])["finishedAt"] is None:
            await asyncio.sleep(POLL_SECONDS)  # another replica may answer, which does not know of the end yet

    assert set(item) == ITEM_FIELDS
    assert set(detail) == DETAIL_FIELDS
    assert item == {field: detail[field] for field in ITEM_FIELDS}


async def test_waiting_job_shows_null_for_unknown_values(user: User, admin: User, name: str, model: str) -> None:
    await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": model, "slots": 0})

    detail = await user.job(await user.submit(config={"model": model}))

    assert (detail["status"], detail["phase"], detail["attempts"]) == ("waiting", "Pending", 0)
    unknown = {
        "processedAt", "finishedAt", "failedReason", "failedCode", "result", "returnvalue", "accountName",
        "cancelRequestedAt", "deadlineAt", "notBefore", "workspaceSetup", "agentRole", "repo", "chainId", "chainDepth",
        "parentJobId", "chainPath", "k8sJobName", "executorPodName", "callback", "chainNext", "chainEnded",
        "childJobId", "session", "rerunOf", "activity", "report", "published", "concurrency", "supersededBy",
        "followUpOf", "resultSchema", "resultData", "retryRefused", "cancelledBy", "answeredBy",
    }  # fmt: skip
    assert {field for field, value in detail.items() if value is None} == unknown
    assert detail["logs"] == []
    assert detail["outputs"] == {
        "branch": None, "commit": None, "pullRequestUrl": None, "commits": [], "filesChanged": None,
        "bundleBytes": None,
    }  # fmt: skip


async def test_submission_may_set_every_field(engine: Engine, user: User, model: str) -> None:
    config = {
        "model": model, "effort": "high", "provider": "mock", "fast": True, "timeoutMs": 60_000, "maxTurns": 5,
        "executorImage": engine.executor_image, "reactEnabled": True, "maxCostUsd": 1.5, "maxTokens": 1000,
        "maxAttempts": 2, "fallbackModel": "mock-2", "sampling": {"temperature": 0.5, "seed": 7},
        "network": "open",
    }  # fmt: skip
    submission = {
        "source": "github-actions",
        "type": "document-extraction",
        "prompt": "Read the notes — naïvely 📄.",
        "priority": 1.5,
        "workspaceFiles": [{"name": "notes/a.txt", "data": "aGVsbG8K"}],
        "config": config,
        "metadata": {
            "repo": "octocat/hello-world", "nested": {"list": [1, 2.5, None, True, "ü"]},
            "mock": {"steps": [{"result": {"any": ["JSON", 1]}}]},
        },
    }  # fmt: skip

    answer = await user.post("/api/jobs/submit", submission)

    assert answer.status_code == 201, answer.text
    detail = await user.wait(answer.json()["jobId"])
    assert detail["status"] == "completed"
    assert detail["name"] == "document-extraction"
    assert detail["source"] == "github-actions"
    assert detail["priority"] == 1.5
    assert detail["repo"] == "octocat/hello-world"
    assert detail["metadata"] == submission["metadata"]
    assert detail["config"] == config
    assert detail["configOrigins"] == dict.fromkeys(config, "request")
    assert detail["workspaceFiles"] == [{"name": "notes/a.txt", "size": 6}]
    assert detail["result"] == {"any": ["JSON", 1]}
    assert detail["accountName"] == f"mock/{model}"


async def test_settings_that_a_submission_omits_are_resolved_with_their_origin(engine: Engine, user: User) -> None:
    detail = await user.run()

    assert detail["config"].pop("network", None) == ("public" if isinstance(engine, LocalEngine) else None)
    assert detail["config"] == {
        "provider": "mock", "model": "mock", "effort": "medium", "fast": False, "timeoutMs": 3_300_000,
        "maxTurns": 25, "maxAttempts": 1,
    }  # fmt: skip
    origins = detail["configOrigins"]
    assert origins.pop("provider") == "request"
    assert set(origins.values()) == {"built-in"}
    assert detail["priority"] == 2


async def test_times_are_utc_and_in_order(user: User) -> None:
    detail = await user.run({"sleepMs": 20})

    stamps = [detail[field] for field in ("createdAt", "processedAt", "finishedAt")]
    assert all(stamp.endswith("Z") for stamp in stamps)
    times = [datetime.fromisoformat(stamp) for stamp in stamps]
    assert times == sorted(times)
    assert (times[2] - times[1]).total_seconds() >= 0.02


async def test_usage_is_summed_and_shown_while_the_job_runs(user: User) -> None:
    step = {"usage": {"inputTokens": 10, "outputTokens": 5, "cacheReadTokens": 2, "costUsd": 0.25, "turns": 1}}
    job_id = await user.submit(step, step, {"log": "used"}, {"hang": True})

    async with user.log_stream(job_id) as events:
        assert (await anext(events)).data == {"log": "used"}

    total = {
        "inputTokens": 20, "outputTokens": 10, "cacheReadTokens": 4, "cacheWriteTokens": 0, "reasoningTokens": 0,
        "costUsd": 0.5, "costKind": "billed", "turns": 2,
    }  # fmt: skip
    running = await user.job(job_id)
    assert (running["status"], running["usage"], running["logs"]) == ("active", total | {"seconds": 0.0}, ["used"])
    await user.cancel(job_id)
    usage = (await user.wait(job_id))["usage"]
    assert usage == total | {"seconds": usage["seconds"]}
    assert usage["seconds"] > 0


async def test_large_result_is_complete_in_the_detail_and_null_in_the_list(user: User) -> None:
    large = ["ä" * 1000] * 20

    detail = await user.run({"result": large})

    assert detail["status"] == "completed"
    assert detail["returnvalue"] == large
    assert detail["result"] == large
    (item,) = (await user.get("/api/jobs")).json()["jobs"]
    assert item["result"] is None


async def test_failed_job_has_a_reason_and_a_code(user: User) -> None:
    detail = await user.run({"log": "so far"}, {"fail": "the tests do not pass"})

    assert (detail["status"], detail["phase"]) == ("failed", "Failed")
    assert detail["failedReason"] == "the tests do not pass"
    assert detail["failedCode"] == "agent_error"
    assert detail["logs"] == ["so far"]
    assert detail["result"] is None


async def test_executor_that_dies_without_an_outcome_fails_the_job_with_its_exit_status(user: User) -> None:
    exited, killed = await asyncio.gather(user.run({"exit": 3}), user.run({"signal": 9}))

    assert (exited["status"], exited["failedCode"]) == ("failed", "executor_died")
    assert "exited with code 3" in exited["failedReason"]
    assert (killed["status"], killed["failedCode"]) == ("failed", "executor_died")
    assert "signal 9" in killed["failedReason"]


async def test_job_over_its_limit_of_cost_or_tokens_fails(user: User) -> None:
    dear, long = await asyncio.gather(
        user.run({"usage": {"costUsd": 2.0}}, {"hang": True}, config={"maxCostUsd": 1}),
        user.run({"usage": {"inputTokens": 60, "outputTokens": 60}}, {"hang": True}, config={"maxTokens": 100}),
    )

    assert [(each["status"], each["failedCode"]) for each in (dear, long)] == [("failed", "budget")] * 2
    assert dear["usage"]["costUsd"] == 2.0


async def test_job_over_its_limit_of_turns_fails(user: User) -> None:
    long = await user.run({"usage": {"turns": 3}}, {"hang": True}, config={"maxTurns": 2})

    assert (long["status"], long["failedCode"]) == ("failed", "max_turns")
    assert "over maxTurns 2" in long["failedReason"]


async def test_detail_contains_the_last_100_log_lines_and_the_log_all(user: User) -> None:
    detail = await user.run({"log": "line {n}", "times": 250})

    assert detail["logs"] == [f"line {n}" for n in range(151, 251)]
    assert await user.log_lines(detail["id"]) == [f"line {n}" for n in range(1, 251)]


async def test_prompt_of_900_kib_is_accepted(user: User) -> None:
    prompt = "word " * (900 * 1024 // 5)

    assert (await user.run(prompt=prompt))["status"] == "completed"


async def test_removed_route_accounts_is_answered_with_404(user: User) -> None:
    assert (await user.get("/api/accounts")).status_code == 404


async def test_health_and_readiness_need_no_key(engine: Engine) -> None:
    async with engine.client() as anonymous:
        for path in ("/health", "/ready"):
            answer = await anonymous.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})

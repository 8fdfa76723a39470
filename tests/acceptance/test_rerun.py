"""Reruns: a new job with the texts, files and settings of an earlier one."""

import pytest

from tests.acceptance.engine import User

SCRIPT = [{"write": {"path": "out.txt", "text": "x"}}, {"result": "done"}]
A_FILE = [{"name": "notes/a.txt", "data": "aGVsbG8K"}]


async def rerun(user: User, job_id: str, changes: object) -> str:
    answer = await user.post(f"/api/jobs/{job_id}/rerun", changes)
    assert answer.status_code == 201, answer.text
    new_id: str = answer.json()["jobId"]
    return new_id


async def test_rerun_has_the_texts_files_and_settings_of_the_first_job(user: User, model: str) -> None:
    config = {"model": model, "maxTurns": 7, "timeoutMs": 60_000}
    first = await user.run(
        *SCRIPT, config=config, prompt="Write a file.", workspaceFiles=A_FILE, priority=1, agentRole=None
    )

    again = await user.wait(await rerun(user, first["id"], {"config": {"maxTurns": 9}, "priority": 3}))

    assert again["rerunOf"] == first["id"]
    assert again["id"] != first["id"]
    same = ("name", "source", "title", "metadata", "workspaceFiles", "status", "result", "model", "owner")
    assert {field: again[field] for field in same} == {field: first[field] for field in same}
    assert (again["config"]["maxTurns"], again["config"]["timeoutMs"], again["priority"]) == (9, 60_000, 3)
    origins = again["configOrigins"]
    assert (origins["maxTurns"], origins["timeoutMs"], origins["maxAttempts"]) == ("request", "rerun", "built-in")
    assert (await user.get(f"/api/jobs/{again['id']}/prompt")).json()["prompt"] == "Write a file."


async def test_rerun_may_have_another_prompt_and_keeps_the_instructions(user: User, admin: User, name: str) -> None:
    await admin.post("/api/instructions", {"name": name, "content": "Be brief."})
    agent = {"name": name, "triggerName": name, "instructions": [name]}
    assert (await admin.post("/api/agents", agent)).status_code == 201
    first = await user.run(prompt="Say hello.", agentRole=name)
    await admin.http.patch(f"/api/instructions/{name}", json={"content": "Be long."})

    again = await user.wait(await rerun(user, first["id"], {"prompt": "Say goodbye."}))

    assert (again["agentRole"], again["title"]) == (name, "Say goodbye.")
    texts = (await user.get(f"/api/jobs/{again['id']}/prompt")).json()
    assert texts["prompt"] == "Say goodbye."
    assert "Be brief." in texts["instructions"]


@pytest.mark.parametrize("how", ["deleted", "disabled"])
async def test_job_of_a_former_agent_runs_again_and_continues_with_its_recorded_settings(
    user: User, admin: User, name: str, how: str
) -> None:
    agent = {"name": name, "defaultProvider": "mock", "defaultModel": name, "defaultEffort": "high"}
    assert (await admin.post("/api/agents", agent)).status_code == 201
    first = await user.run(prompt="Say hello.", agentRole=name, config={})
    if how == "deleted":
        await admin.http.delete(f"/api/agents/{name}")
    else:
        await admin.http.patch(f"/api/agents/{name}", json={"enabled": False})

    again = await user.wait(await rerun(user, first["id"], {}))
    message = await user.post(f"/api/jobs/{again['id']}/messages", {"prompt": "And goodbye."})
    further = await user.wait(message.json()["jobId"])
    new = await user.post("/api/jobs/submit", {"source": "s", "type": "t", "prompt": "x", "agentRole": name})

    for job in (again, further):
        assert (job["agentRole"], job["model"], job["config"]["effort"]) == (name, name, "high")
        assert job["status"] == "completed"
    assert new.status_code == 422


async def test_rerun_may_have_another_result_schema_and_a_callback(user: User) -> None:
    first, schema = await user.run({"result": {"ok": True}}), {"type": "object", "required": ["ok"]}

    again = await user.wait(await rerun(user, first["id"], {"resultSchema": schema}))
    unreachable = {"callbackUrl": "http://127.0.0.1:1/hook"}
    refused = await user.post(f"/api/jobs/{first['id']}/rerun", unreachable)

    assert (again["status"], again["resultSchema"]) == ("completed", schema)
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (422, "callbackUrl")


async def test_repeated_rerun_with_one_key_creates_one_job(user: User) -> None:
    first, other = (await user.run())["id"], (await user.run())["id"]

    answers = [await user.post(f"/api/jobs/{first}/rerun", {}, Idempotency_Key="again") for _ in range(2)]
    elsewhere = await user.post(f"/api/jobs/{other}/rerun", {}, Idempotency_Key="again")

    assert len({answer.json()["jobId"] for answer in answers}) == 1
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert elsewhere.json()["jobId"] != answers[0].json()["jobId"]


async def test_invalid_changes_are_refused_with_their_field(user: User) -> None:
    first = (await user.run())["id"]

    unknown = await user.post(f"/api/jobs/{first}/rerun", {"modell": "opus"})
    script = await user.post(f"/api/jobs/{first}/rerun", {"metadata": {"mock": {"steps": [{"lgo": "x"}]}}})

    assert (unknown.status_code, unknown.json()["details"][0]["field"]) == (422, "modell")
    assert script.status_code == 422
    assert "metadata.mock" in script.json()["details"][0]["field"]

"""Follow-ups: a further message to the agent of an ended job is a new job that continues it."""

from tests.acceptance.engine import User

SHOWS_PROMPT = [{"log": "{prompt}"}, {"result": "Done, <b>with care</b>."}]


async def reply(user: User, job_id: str, prompt: str, **headers: str) -> str:
    answer = await user.post(f"/api/jobs/{job_id}/messages", {"prompt": prompt}, **headers)
    assert answer.status_code == 201, answer.text
    new_id: str = answer.json()["jobId"]
    return new_id


async def test_follow_up_has_the_settings_of_the_first_job_and_its_own_prompt(user: User, model: str) -> None:
    config = {"model": model, "maxTurns": 7}
    first = await user.run(*SHOWS_PROMPT, config=config, prompt="Write a file.", priority=1)

    second = await user.wait(await reply(user, first["id"], "Now a test."))

    assert (second["followUpOf"], second["rerunOf"], second["title"]) == (first["id"], None, "Now a test.")
    same = ("name", "source", "metadata", "status", "result", "model", "owner", "priority", "isolation")
    assert {field: second[field] for field in same} == {field: first[field] for field in same}
    assert (second["config"]["maxTurns"], first["followUpOf"]) == (7, None)
    assert (await user.get(f"/api/jobs/{second['id']}/prompt")).json()["prompt"] == "Now a test."
    assert (await user.job(first["id"])) == first, "an ended job never changes"


async def test_agent_without_its_session_gets_the_whole_conversation_as_data_before_the_prompt(user: User) -> None:
    first = await user.run(*SHOWS_PROMPT, prompt="Write a file.")
    second = await user.wait(await reply(user, first["id"], "Now a test."))
    third = await user.wait(await reply(user, second["id"], "And a changelog."))

    log = "\n".join(await user.log_lines(third["id"]))
    told = [log.index(f">{text}</data-") for text in ("Write a file.", "Done, <b>with care</b>.", "Now a test.")]
    assert told == sorted(told)
    assert log.rstrip().endswith("And a changelog.")
    assert f"[follow-up of {second['id']}: " in log


async def test_rerun_of_a_follow_up_continues_the_same_conversation(user: User) -> None:
    first = await user.run(*SHOWS_PROMPT, prompt="Write a file.")
    second = await user.wait(await reply(user, first["id"], "Now a test."))

    again = await user.wait((await user.post(f"/api/jobs/{second['id']}/rerun", {})).json()["jobId"])

    assert (again["rerunOf"], again["followUpOf"]) == (second["id"], first["id"])
    assert ">Write a file.</data-" in "\n".join(await user.log_lines(again["id"]))


async def test_follow_up_of_a_failed_job_tells_the_agent_why_it_failed(user: User) -> None:
    first = await user.run({"log": "{prompt}"}, {"fail": "no such figure"})

    second = await user.wait(await reply(user, first["id"], "Try again."))

    assert "This job failed: no such figure" in "\n".join(await user.log_lines(second["id"]))


async def test_job_that_has_not_ended_takes_no_message(user: User) -> None:
    job_id = await user.submit({"hang": True})

    early = await user.post(f"/api/jobs/{job_id}/messages", {"prompt": "Hurry."})
    await user.post(f"/api/jobs/{job_id}/cancel")
    await user.wait(job_id)
    late = await user.post(f"/api/jobs/{job_id}/messages", {"prompt": "Never mind."})

    assert (early.status_code, early.json()["code"]) == (400, "not_ended")
    assert f"labrats wait {job_id}" in early.json()["error"]
    assert late.status_code == 201
    await user.post(f"/api/jobs/{late.json()['jobId']}/cancel")


async def test_message_may_set_a_result_schema_and_a_report(user: User) -> None:
    first = (await user.run())["id"]
    schema = {"type": "object", "required": ["ok"]}

    body = {"prompt": "Answer.", "resultSchema": schema, "report": False}
    answer = await user.post(f"/api/jobs/{first}/messages", body)
    job = await user.wait(answer.json()["jobId"])
    without_report = await user.post(f"/api/jobs/{first}/messages", {"prompt": "Report.", "report": True})

    assert job["resultSchema"] == schema
    assert (without_report.status_code, without_report.json()["details"][0]["field"]) == (422, "report")


async def test_invalid_messages_are_refused_with_their_field(user: User, admin: User) -> None:
    first, foreign = (await user.run())["id"], (await admin.run())["id"]

    answers = [
        await user.post(f"/api/jobs/{first}/messages", body)
        for body in ({}, {"prompt": ""}, {"prompt": " \n"}, {"prompt": "x", "priority": 1})
    ]
    too_long = await user.post(f"/api/jobs/{first}/messages", {"prompt": "x" * (900 * 1024 + 1)})
    unknown = await user.post("/api/jobs/ir-00000000/messages", {"prompt": "x"})
    forbidden = await user.post(f"/api/jobs/{foreign}/messages", {"prompt": "x"})

    fields = [(answer.status_code, answer.json()["details"][0]["field"]) for answer in answers]
    assert fields == [(422, "prompt"), (422, "prompt"), (422, "prompt"), (422, "priority")]
    assert (too_long.status_code, unknown.status_code, forbidden.status_code) == (413, 404, 403)


async def test_repeated_message_with_one_key_creates_one_job(user: User) -> None:
    first = (await user.run())["id"]

    ids = {await reply(user, first, "Again.", Idempotency_Key="once") for _ in range(2)}
    rerun = await user.post(f"/api/jobs/{first}/rerun", {"prompt": "Again."}, Idempotency_Key="once")

    assert len(ids) == 1
    assert rerun.json()["jobId"] not in ids


REMEMBERS = [
    {"remember": True},
    {"read": "made.txt"},
    {"write": {"path": "made.txt", "text": "made"}},
    {"result": "done"},
]


async def test_follow_up_resumes_the_session_and_has_the_files_of_the_first_job(user: User) -> None:
    first = await user.run(*REMEMBERS, prompt="One.")
    second = await user.wait(await reply(user, first["id"], "Two."))
    third = await user.wait(await reply(user, second["id"], "Three."))
    patch = (await user.get(f"/api/jobs/{third['id']}/patch")).text

    assert third["logs"][0].startswith(f"[follow-up of {second['id']}: resuming its session in a ")
    log = "\n".join(third["logs"])
    assert log.index("remembered: One. |") < log.index("Two. |") < log.index("Three.")
    assert third["logs"][-1] == "made.txt: made"
    assert third["session"] == first["session"]
    assert "+made" in patch


async def test_two_follow_ups_of_one_job_work_each_in_a_copy(user: User) -> None:
    first = await user.run(*REMEMBERS, prompt="One.")
    ids = [await reply(user, first["id"], text) for text in ("Left.", "Right.")]
    left, right = [await user.wait(each) for each in ids]

    log = "\n".join(left["logs"]), "\n".join(right["logs"])
    assert [("One. |" in each, "Left." in each, "Right." in each) for each in log] == [
        (True, True, False),
        (True, False, True),
    ]
    assert left["logs"][-1] == right["logs"][-1] == "made.txt: made"


async def test_retry_of_a_failed_job_resumes_its_session_and_files(user: User) -> None:
    fails_first = {"onAttempt": 1, "steps": [{"fail": "not yet"}]}
    failed = await user.run(*REMEMBERS[:3], fails_first, {"result": "done"}, prompt="One.")
    await user.post(f"/api/jobs/{failed['id']}/retry")
    done = await user.wait(failed["id"])

    assert (failed["status"], done["status"]) == ("failed", "completed")
    assert done["logs"][0].startswith("[resuming the session of attempt 1")
    log = "\n".join(done["logs"])
    assert "remembered: One. |" in log
    assert "You were interrupted" in log
    assert done["logs"][-1] == "made.txt: made"

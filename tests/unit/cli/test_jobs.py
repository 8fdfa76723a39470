"""The commands for existing jobs."""

import sys
from typing import Any

import pytest

from tests.unit.cli.engines import Answer, Labrats, ScriptedEngine, a_job, frame, stream

JOB = "GET /api/jobs/ir-3ab1c2d4"


def a_page(*jobs: object, total: int = 1) -> dict[str, object]:
    return {"jobs": jobs, "total": total, "page": 1, "limit": 20}


def test_jobs_prints_one_line_per_job(labrats: Labrats, engine: ScriptedEngine) -> None:
    failed = a_job(status="failed", failedReason="no\ncheese", attempts=2)
    engine.answers("GET /api/jobs", a_page(failed))
    heading, row = labrats("jobs").out.splitlines()
    assert heading.split() == ["ID", "STATUS", "TYPE", "SOURCE", "AGE", "DURATION", "ATTEMPTS", "DETAIL"]
    id_, status, type_, source, _, duration, attempts, *reason = row.split()
    assert (id_, status, type_, source) == ("ir-3ab1c2d4", "failed", "implement-issue", "github")
    assert (duration, attempts, reason) == ("42s", "2", ["no", "cheese"])


def test_jobs_shows_what_a_running_job_does(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs", a_page(a_job(status="active", finishedAt=None, activity="Bash: npm test")))
    assert labrats("jobs").out.splitlines()[1].endswith("  1         Bash: npm test")


def test_jobs_reports_further_pages(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs", a_page(a_job(), total=41))
    assert labrats("jobs").err == "1 of 41 jobs; for more use --page 2\n"


def test_jobs_sends_filters_under_the_names_of_the_api(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs", a_page())
    labrats(
        *("jobs", "--status", "failed", "--type", "t", "--source", "s", "--agent", "a", "--repo", "o/r"),
        *("--provider", "claude", "--model", "opus", "--failed-code", "timeout", "--owner", "key-1"),
        *("--chain", "c", "-q", "two words", "--page", "2", "--limit", "5"),
    )
    assert engine.requests[0].path == (
        "/api/jobs?status=failed&type=t&source=s&agentRole=a&repo=o%2Fr&provider=claude&model=opus&failedCode=timeout"
        "&owner=key-1&chainId=c&q=two+words&page=2&limit=5"
    )


def test_job_fits_on_one_screen(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(
        JOB,
        a_job(
            status="failed",
            failedReason="it took too long",
            failedCode="timeout",
            usage={"inputTokens": 1200, "outputTokens": 300, "cacheReadTokens": 7, "costUsd": 0.0123, "turns": 4},
            outputs={"branch": "fix-17", "commit": None, "pullRequestUrl": None},
            metadata={"long": "x" * 500},
            returnvalue="\n".join(f"line {n}" for n in range(100)),
            logs=[f"tick {n}" for n in range(100)],
        ),
    )
    out = labrats("job", "ir-3ab1c2d4").out
    lines = out.splitlines()
    assert lines[0] == "ir-3ab1c2d4  failed"
    assert "  model      mock/mock, effort medium" in lines
    assert "  ran        42s, after waiting 2.0s" in lines
    assert "  usage      1,200 tokens in, 300 out, 7 from cache; $0.0123; turns: 4" in lines
    assert "  branch     fix-17" in lines
    assert "  reason     it took too long [timeout]" in lines
    assert f'  metadata   {{"long": "{"x" * 150}…' in lines
    assert lines[-1] == "  tick 99"
    assert "result (15 of 100 lines)" in lines
    assert "log (10 of 100 lines)" in lines
    assert len(lines) < 45


def test_job_shows_the_checked_value_of_its_result(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(returnvalue="Done.", resultData={"risk": 2}))
    out = labrats("job", "ir-3ab1c2d4").out
    assert '\nresult\n  Done.\n\ndata\n  {\n    "risk": 2\n  }\n' in out


def test_job_with_several_attempts_shows_no_waiting_time(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(attempts=2))
    assert "  ran        42s in the latest attempt\n" in labrats("job", "ir-3ab1c2d4").out


def test_job_shows_its_repository_and_ref(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(workspaceSetup={"gitRepo": "https://example.org/a.git", "gitRef": "main"}))
    assert "  git        https://example.org/a.git @ main\n" in labrats("job", "ir-3ab1c2d4").out


def test_job_shows_its_setup_commands(labrats: Labrats, engine: ScriptedEngine) -> None:
    setup = {
        "gitRepo": "https://example.org/a.git",
        "gitRef": None,
        "setup": [["npm", "ci"], ["sh", "-c", "make deps"]],
    }
    engine.answers(JOB, a_job(workspaceSetup=setup))
    assert "  setup      npm ci; sh -c 'make deps'\n" in labrats("job", "ir-3ab1c2d4").out


def test_job_shows_how_it_is_contained(labrats: Labrats, engine: ScriptedEngine) -> None:
    config = {"network": {"allow": ["npm", "*.example.com"]}, "isolation": "sandbox", "env": {"CI": "1"}}
    engine.answers(
        JOB,
        a_job(config=config, isolation="container", refusedHosts=["a.test:443", "b.test:80"], keyExposed=True),
    )
    lines = labrats("job", "ir-3ab1c2d4").out.splitlines()
    assert "  network    npm,*.example.com" in lines
    assert "  isolation  container (at least sandbox)" in lines
    assert "  env        CI=1" in lines
    assert "  refused    a.test:443 b.test:80" in lines
    assert "  model key  exposed to the agent" in lines


def test_job_without_a_rule_has_an_open_network(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(isolation="sandbox", refusedHosts=[], keyExposed=False))
    out = labrats("job", "ir-3ab1c2d4").out
    assert "  network    open\n" in out
    assert "  isolation  sandbox\n" in out
    assert "refused" not in out
    assert "model key" not in out


@pytest.mark.parametrize(
    ("attempts", "least", "line"),
    [
        (1, None, "  isolation  not recorded"),
        (1, "sandbox", "  isolation  not recorded (at least sandbox)"),
        (0, "sandbox", "  isolation  (at least sandbox)"),
        (0, None, None),
    ],
)
def test_job_without_a_recorded_isolation_says_so(
    labrats: Labrats, engine: ScriptedEngine, attempts: int, least: str | None, line: str | None
) -> None:
    """Such a job was stored by version 0.1, or has not started yet."""
    config = {"isolation": least} if least else {}
    engine.answers(JOB, a_job(attempts=attempts, isolation=None, config=config))
    lines = labrats("job", "ir-3ab1c2d4").out.splitlines()
    assert [each for each in lines if "isolation" in each] == ([line] if line else [])


def test_job_shows_a_pending_cancellation(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(status="active", finishedAt=None, cancelRequestedAt="2030-01-01T12:00:03Z"))
    assert labrats("job", "ir-3ab1c2d4").out.startswith("ir-3ab1c2d4  active (being cancelled)\n")


def test_logs_of_an_ended_job_are_complete(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(status="failed", logs=["only the end"]))
    engine.streams("ir-3ab1c2d4", "one", "two", status="failed")
    assert labrats("logs", "ir-3ab1c2d4") == (0, "one\ntwo\n", "")


def test_logs_of_a_running_job_return_at_once(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(status="active", finishedAt=None, logs=["so far"]))
    ended = labrats("logs", "ir-3ab1c2d4")
    assert (ended.code, ended.out) == (0, "so far\n")
    assert "labrats logs -f ir-3ab1c2d4" in ended.err


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("cancelled", 5)])
def test_logs_follow_exits_with_the_code_of_the_outcome(
    labrats: Labrats, engine: ScriptedEngine, status: str, code: int
) -> None:
    engine.streams("ir-3ab1c2d4", "a\u2028b", status=status)
    assert labrats("logs", "-f", "ir-3ab1c2d4") == (code, "a\u2028b\n", "")


def test_logs_json_prints_one_event_per_line(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.streams("ir-3ab1c2d4", "a\nb")
    out = labrats("logs", "-f", "ir-3ab1c2d4", "--json").out
    assert out == '{"log": "a\\nb"}\n{"done": true, "status": "completed"}\n'


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("cancelled", 5)])
def test_wait_prints_the_result_and_exits_with_the_code_of_the_outcome(
    labrats: Labrats, engine: ScriptedEngine, status: str, code: int
) -> None:
    engine.streams("ir-3ab1c2d4", "not shown", status=status)
    engine.answers(JOB, a_job(status=status, failedReason="no cheese" if code else None, returnvalue="the result"))
    ended = labrats("wait", "ir-3ab1c2d4")
    assert (ended.code, ended.out) == (code, "the result\n")
    assert ended.err.startswith(f"ir-3ab1c2d4 {status} after 42s")


def test_cancel_of_a_waiting_job_takes_effect_at_once(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/jobs/ir-3ab1c2d4/cancel", a_job(status="cancelled"))
    assert labrats("cancel", "ir-3ab1c2d4") == (0, "", "ir-3ab1c2d4 cancelled\n")


def test_cancel_of_a_running_job_is_reported_as_in_progress(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/jobs/ir-3ab1c2d4/cancel", a_job(status="active", finishedAt=None))
    assert "is being cancelled" in labrats("cancel", "ir-3ab1c2d4").err


def test_retry_reports_the_refusal_of_the_engine(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/jobs/ir-3ab1c2d4/retry", {"error": "not now", "code": "not_allowed"}, status=400)
    assert labrats("retry", "ir-3ab1c2d4") == (2, "", "labrats: not now\n")


def test_publish_names_the_command_that_shows_the_result(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/jobs/ir-3ab1c2d4/publish", a_job())
    assert "`labrats published ir-3ab1c2d4`" in labrats("publish", "ir-3ab1c2d4").err


def test_retry_follow_starts_at_the_new_attempt(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/jobs/ir-3ab1c2d4/retry", a_job(status="waiting", attempts=1))
    done = frame(None, {"done": True, "status": "completed"})
    engine.script(f"{JOB}/logs", stream(frame("2-1", {"log": "second"}), done))
    engine.answers(JOB, a_job(attempts=2))
    ended = labrats("retry", "ir-3ab1c2d4", "--follow")
    assert engine.requests[1].headers["Last-Event-ID"] == "2-0"
    assert (ended.code, ended.out) == (0, "second\ndone\n")


def test_patch_on_a_terminal_has_no_escape_sequences(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "+one \x1b]0;title\x07\x1b[31mred\x1b[0m\u202e\n+two\n"
    engine.script(f"{JOB}/patch", Answer(content.encode(), content_type="text/x-diff"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert labrats("patch", "ir-3ab1c2d4").out.rstrip("\n") == "+one red\n+two"


def test_patch_in_a_pipe_is_unchanged(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.script(f"{JOB}/patch", Answer("+grüße\n".encode(), content_type="text/x-diff"))
    assert labrats("patch", "ir-3ab1c2d4").out == "+grüße\n"


def test_bundle_is_written_to_a_file_and_not_to_a_terminal(
    labrats: Labrats, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.script(f"{JOB}/bundle", Answer(b"# v2 git bundle\n", content_type="application/x-git-bundle"))
    assert labrats("bundle", "ir-3ab1c2d4").out == "# v2 git bundle\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    refused = labrats("bundle", "ir-3ab1c2d4")
    assert (refused.code, refused.out) == (2, "")
    assert "labrats bundle JOB > job.bundle" in refused.err


@pytest.mark.parametrize("command", ["job", "wait", "cancel", "retry"])
def test_json_prints_the_answer_of_the_api_unchanged(labrats: Labrats, engine: ScriptedEngine, command: str) -> None:
    detail = a_job(failedReason="Zoë \u2028")
    engine.streams("ir-3ab1c2d4")
    engine.answers(JOB, detail)
    engine.answers(f"POST /api/jobs/ir-3ab1c2d4/{command}", detail)
    engine.answers("GET /api/jobs", a_page(detail))
    ended = labrats(command, "ir-3ab1c2d4", "--json")
    sent = engine.scripts[JOB][0].body.decode()
    assert (ended.out, ended.err) == (f"{sent}\n", "")


def test_job_id_is_quoted_in_the_path(labrats: Labrats, engine: ScriptedEngine) -> None:
    assert labrats("job", "../api-keys?x=1").code == 4
    assert engine.requests[0].path == "/api/jobs/..%2Fapi-keys%3Fx%3D1"


def test_rerun_sends_the_changes_only(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/jobs/ir-3ab1c2d4/rerun", {"jobId": "ir-0000000b", "source": "s", "type": "t"}, status=201)

    plain = labrats("rerun", "ir-3ab1c2d4")
    changed = labrats("rerun", "ir-3ab1c2d4", "--model", "opus", "-p", "Again.", "--priority", "1", "--metadata", "a=1")

    assert plain == changed == (0, "ir-0000000b\n", "")
    assert [each.json for each in engine.requests] == [
        {},
        {"prompt": "Again.", "config": {"model": "opus"}, "priority": 1, "metadata": {"a": 1}},
    ]


def test_reply_sends_the_message_once_and_prints_the_new_job(labrats: Labrats, engine: ScriptedEngine) -> None:
    answer = {"jobId": "ir-0000000b", "source": "s", "type": "t"}
    engine.answers("POST /api/jobs/ir-3ab1c2d4/messages", answer, status=201)

    as_option = labrats("reply", "ir-3ab1c2d4", "-p", "-x Add a test.", "--idempotency-key", "k1")
    as_text = labrats("reply", "ir-3ab1c2d4", "Add a test.", "--no-report", "--callback-url", "https://ci.example.com")

    assert as_option == as_text == (0, "ir-0000000b\n", "")
    assert [each.json["prompt"] for each in engine.requests] == ["-x Add a test.", "Add a test."]
    assert engine.requests[0].headers["Idempotency-Key"] == "k1"
    assert engine.requests[1].json == {
        "prompt": "Add a test.",
        "report": False,
        "callbackUrl": "https://ci.example.com",
    }


def test_search_prints_all_matching_lines_with_their_ids(labrats: Labrats, engine: ScriptedEngine) -> None:
    pages = [
        {"events": [{"id": "1-4", "text": "a needle"}], "next": "1-4", "total": 2},
        {"events": [{"id": "2-9", "text": "another needle"}], "next": None, "total": 2},
    ]
    engine.answers("GET /api/jobs/ir-3ab1c2d4/events", *pages)

    ended = labrats("logs", "ir-3ab1c2d4", "--search", "needle")

    assert ended == (0, "1-4  a needle\n2-9  another needle\n", "2 lines with 'needle'\n")
    assert "after=1-4" in engine.requests[1].path


BUSY = {
    "reason": "slots_busy", "position": 2, "slots": 1, "active": 1, "holders": ["ir-0000000a"], "pausedUntil": None,
    "estimateSeconds": 360,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "number 2 in its queue; 1 of 1 slots busy by ir-0000000a; starts in about 6m00s"),
        ({"holders": [], "estimateSeconds": None}, "number 2 in its queue; 1 of 1 slots busy"),
        ({"reason": "no_slots"}, "its model is paused: it has no slots"),
        (
            {"reason": "paused", "pausedUntil": "2030-01-01T12:00:00Z"},
            "its model's provider asked for a pause until 2030-01-01 12:00:00 UTC",
        ),
        ({"reason": "starting"}, "nothing stands in its way"),
        ({"reason": "concurrency", "waitsFor": "ir-1"}, "ir-1 with the same concurrency key must end first"),
        (
            {"reason": "debounce", "debouncedUntil": "2030-01-01T12:00:00Z"},
            "until 2030-01-01 12:00:00 UTC, for newer jobs with its concurrency key",
        ),
        ({"reason": "no_controller"}, "no controller is running: the one of the cluster has shown no sign of life"),
    ],
)
def test_job_shows_why_it_waits(
    labrats: Labrats, engine: ScriptedEngine, changes: dict[str, Any], sentence: str
) -> None:
    engine.answers("GET /api/jobs/ir-3ab1c2d4", a_job(status="waiting", waiting=BUSY | changes))

    assert f"  waits      {sentence}\n" in labrats("job", "ir-3ab1c2d4").out


def test_job_shows_the_job_that_it_follows_up(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers(JOB, a_job(followUpOf="ir-0a1b2c3d"))

    assert "  follows up ir-0a1b2c3d\n" in labrats("job", "ir-3ab1c2d4").out


def test_job_shows_its_concurrency_key_and_the_job_that_superseded_it(labrats: Labrats, engine: ScriptedEngine) -> None:
    concurrency = {"key": "octo/demo#7", "onNew": "supersede", "debounceSeconds": 30}
    job = a_job(status="cancelled", concurrency=concurrency, supersededBy="ir-0a1b2c3d")
    engine.answers("GET /api/jobs/ir-3ab1c2d4", job)

    shown = labrats("job", "ir-3ab1c2d4").out

    assert "  key        octo/demo#7 (supersede, debounced for 30s)\n" in shown
    assert "  superseded by ir-0a1b2c3d\n" in shown

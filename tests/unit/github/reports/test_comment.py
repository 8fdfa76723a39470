"""The comment and the check of a job, as functions of the job."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from markdown_it import MarkdownIt
from msgspec.structs import replace

from labrats.github.reports.check import check_of
from labrats.github.reports.comment import COMMENT_BYTES, comment_body, ending_body, marker_of
from labrats.github.reports.reported_job import LostRace, ReportedJob
from labrats.model.job import FailedCode, Outputs, Usage, WorkspaceSetup
from labrats.model.phases import Phase
from labrats.model.publication import Finding, Publication
from labrats.model.report import CommentMode, PullRequestReport, Report, ReportTarget
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec

REVIEW = "https://github.com/octo/demo/pull/18#pullrequestreview-1"
TARGET = ReportTarget(repository="octo/demo", issue=17, source="github")


def a_reported_job(phase: Phase, *, report: Report | None = None, **fields: Any) -> ReportedJob:
    """Return a job of the agent `ai-developer` that reports to an issue. fields: of ReportedJob and of the status."""
    own = {name: fields.pop(name) for name in list(fields) if name in ReportedJob.__dataclass_fields__}
    created_at = fields.pop("created_at", NOON)
    rules = (report or Report(comment=CommentMode.STICKY)).over(Report(target=TARGET))
    job = a_job(phase, spec=a_spec(agent_role="ai-developer", report=rules), created_at=created_at, **fields)
    return ReportedJob(job, **own)


def body_of(reported: ReportedJob) -> str:
    return comment_body(reported)


@pytest.mark.parametrize("answer", ["Done.\n```", "1. Run\n   ```sh\n   make\n   ```\n```", "- a\n  ```\n~~~~"])
def test_no_answer_makes_the_patch_active(answer: str) -> None:
    patch = " ```\n+@acme/security ![p](https://evil.example/p.png)\n"
    tokens = MarkdownIt().parse(body_of(a_reported_job(Phase.SUCCEEDED, result=answer, patch=patch)))
    assert f"{patch}\n" in [each.content for each in tokens if each.type == "fence"]
    assert not [each for each in tokens if each.type == "inline" and "acme" in each.content]


def test_answer_before_a_patch_keeps_the_code_of_its_lists() -> None:
    answer = "1. Run:\n\n   ```sh\n   # all\n   make\n   ```\n\nThen:\n\n```python\nf(*args)\n```"
    tokens = MarkdownIt().parse(body_of(a_reported_job(Phase.SUCCEEDED, result=answer, patch="+x")))
    fences = [(each.info, each.content) for each in tokens if each.type == "fence"]
    assert fences == [("sh", "# all\nmake\n"), ("python", "f(*args)\n"), ("diff", "+x\n")]


def test_annotation_of_a_check_has_no_lines_for_what_follows() -> None:
    """GitHub shows it as it is, not as Markdown."""
    body = "- Run:\n  ```\n  make\n  ```"
    finding = Finding(path="a.py", line=1, body=body)
    [annotation] = check_of(a_reported_job(Phase.SUCCEEDED, written=Publication(findings=(finding,)))).annotations
    assert annotation.message == body


def test_summary_of_a_check_keeps_to_its_limit() -> None:
    """GitHub accepts 65,535 characters."""
    for length in range(30):
        answer = f"{'@a' * 19_990}{'x' * length}\n```\n```\n{'y' * 30_000}"
        assert len(check_of(a_reported_job(Phase.SUCCEEDED, result=answer)).summary) <= 60_000


def test_a_waiting_job_is_reported_with_its_model() -> None:
    assert "**ai-developer** is waiting for a free slot of `mock`." in body_of(a_reported_job(Phase.PENDING))


def test_the_model_of_a_waiting_job_mentions_nobody() -> None:
    """Whoever may apply a job names its model."""
    reported = a_reported_job(Phase.PENDING)
    resolved = reported.job.resolved
    hostile = replace(resolved, config=replace(resolved.config, model="x` @octocat `"))
    job = replace(reported.job, spec=replace(reported.job.spec, resolved=hostile))
    assert "@octocat" not in body_of(ReportedJob(job))


def test_a_paused_job_is_reported_with_the_reason_and_the_end_of_the_pause() -> None:
    body = body_of(
        a_reported_job(
            Phase.PENDING,
            not_before=NOON + timedelta(minutes=5),
            failed_code=FailedCode.RATE_LIMITED,
            failed_reason="the provider asks for a pause",
        )
    )
    assert f"is waiting until {NOON:%d %b} 12:05 UTC." in body
    assert "> the provider asks for a pause" in body


def test_a_running_job_is_reported_with_what_its_agent_does() -> None:
    body = body_of(a_reported_job(Phase.RUNNING, activity="Bash: npm test @octocat"))
    assert "is working on this." in body
    assert "Now: Bash: npm test @\u200boctocat" in body


def test_a_finished_job_is_reported_with_its_answer_and_its_cost() -> None:
    usage = Usage(input_tokens=1200, output_tokens=34, cost_usd=0.4249)
    body = body_of(a_reported_job(Phase.SUCCEEDED, result="All 3 tests pass.", usage=usage))
    assert "**ai-developer** has finished." in body
    assert "All 3 tests pass." in body
    assert "1m00s · 1,234 tokens · $0.42" in body


def test_a_small_cost_is_reported_with_more_digits() -> None:
    body = body_of(a_reported_job(Phase.SUCCEEDED, usage=Usage(cost_usd=0.0006)))
    assert "· $0.0006" in body


def test_the_comment_of_the_publication_replaces_the_answer() -> None:
    body = body_of(a_reported_job(Phase.SUCCEEDED, result="long", written=Publication(comment="Short.")))
    assert "Short." in body
    assert "long" not in body


def test_a_job_without_changes_says_so_where_a_pull_request_was_wanted() -> None:
    report = Report(comment=CommentMode.STICKY, pull_request=PullRequestReport())
    assert "has finished and changed nothing." in body_of(a_reported_job(Phase.SUCCEEDED, report=report))


def test_a_job_whose_commits_cannot_be_pushed_has_not_changed_nothing() -> None:
    """Commits that change no file together may have no bundle, as one of them contains a secret."""
    report = Report(comment=CommentMode.STICKY, pull_request=PullRequestReport())
    outputs = Outputs(commit="a" * 40, files_changed=0)
    assert "changed nothing" not in body_of(a_reported_job(Phase.SUCCEEDED, report=report, outputs=outputs))


@pytest.mark.parametrize(("phase", "words"), [(Phase.FAILED, "has failed."), (Phase.CANCELLED, "was cancelled.")])
def test_every_other_end_is_reported_with_its_reason(phase: Phase, words: str) -> None:
    body = body_of(a_reported_job(phase, failed_reason="the model said no to @octocat"))
    assert words in body
    assert "> the model said no to @\u200boctocat" in body


@pytest.mark.parametrize(
    ("target", "review", "words"),
    [
        (TARGET, None, "has finished. Pull request #18."),
        (ReportTarget(repository="octo/demo", pull_request=18), None, "has finished. New commits."),
        (
            ReportTarget(repository="octo/demo", pull_request=18),
            REVIEW,
            f"has finished. New commits and [Review]({REVIEW}).",
        ),
        (ReportTarget(repository="octo/demo", pull_request=17), None, "has finished. Pull request #18."),
    ],
)
def test_the_headline_names_the_result(target: ReportTarget, review: str | None, words: str) -> None:
    report = Report(comment=CommentMode.STICKY).over(Report(target=target))
    reported = a_reported_job(
        Phase.SUCCEEDED,
        report=replace(report, target=target),
        pull_request_url="https://github.com/octo/demo/pull/18",
        review_url=review,
    )
    assert f"**ai-developer** {words}" in body_of(reported)


def test_a_job_that_could_not_push_names_no_new_commits() -> None:
    target = ReportTarget(repository="octo/demo", pull_request=18)
    report = replace(Report(comment=CommentMode.STICKY), target=target)
    url = "https://github.com/octo/demo/pull/18"
    lost = a_reported_job(Phase.SUCCEEDED, report=report, pull_request_url=url, lost=LostRace.NOT_PUSHED)
    assert "**ai-developer** has finished, but nothing was pushed.\n" in body_of(lost)


def test_a_failure_says_how_to_run_the_job_again() -> None:
    assert "`/labrats retry`" in body_of(a_reported_job(Phase.FAILED, failed_reason="no"))
    for phase in (Phase.SUCCEEDED, Phase.CANCELLED, Phase.RUNNING):
        assert "retry" not in body_of(a_reported_job(phase))


def test_the_comment_at_the_end_of_a_reply_is_the_answer_or_why_it_failed() -> None:
    """Nobody is notified of the edit of another comment."""
    url = "https://github.com/octo/demo/issues/17#issuecomment-1"
    answer = ending_body(a_reported_job(Phase.SUCCEEDED, result="The cause is in `a.py`."), url)
    assert f"**ai-developer** has finished. See {url}\n\nThe cause is in `a.py`." in answer
    failure = ending_body(a_reported_job(Phase.FAILED, failed_reason="no key"), url)
    assert "> no key\n\nTo run it again, comment `/labrats retry`." in failure


def test_a_superseded_job_is_reported_with_the_newer_one() -> None:
    superseded = a_reported_job(Phase.CANCELLED, superseded_by="ir-0a1b2c3d")
    assert "was cancelled, because `ir-0a1b2c3d` supersedes it." in body_of(superseded)
    assert check_of(superseded).title == "superseded by ir-0a1b2c3d"
    stopping = body_of(a_reported_job(Phase.RUNNING, superseded_by="ir-0a1b2c3d"))
    assert "is working on this." in stopping


def test_refused_hosts_and_refused_parts_are_listed() -> None:
    outputs = Outputs(refused_hosts=("evil.example:443",))
    body = body_of(a_reported_job(Phase.SUCCEEDED, outputs=outputs, refused=("check: the App may not write checks",)))
    assert "The network rule refused `evil.example:443`." in body
    assert "- check: the App may not write checks" in body


def test_the_marker_survives_hostile_names() -> None:
    spec = a_spec(agent_role="a --> b -- c", report=Report(comment=CommentMode.STICKY, target=TARGET))
    body = body_of(ReportedJob(a_job(spec=spec)))
    marker = marker_of(body)
    assert marker
    assert marker.key == "agent a --> b -- c"
    assert body.partition("\n")[0].count("-->") == 1


@pytest.mark.parametrize("body", ["", "text", "<!-- labrats:report {} -->", "<!-- labrats:report not json -->\nx"])
def test_other_texts_have_no_marker(body: str) -> None:
    assert marker_of(body) is None


def test_a_later_job_takes_the_sticky_comment_over_and_lists_the_earlier_one() -> None:
    first = a_reported_job(Phase.SUCCEEDED, job_id="ir-00000001")
    second = a_reported_job(Phase.RUNNING, job_id="ir-00000002", created_at=NOON + timedelta(minutes=1))
    body = comment_body(second, body_of(first))
    assert body.endswith("- `ir-00000001` has finished\n\n</details>")
    assert comment_body(first, body) == body


def test_an_earlier_job_that_is_reported_late_joins_the_list() -> None:
    second = a_reported_job(Phase.RUNNING, job_id="ir-00000002", created_at=NOON + timedelta(minutes=1))
    body = body_of(second)
    first = a_reported_job(Phase.CANCELLED, job_id="ir-00000001")
    assert comment_body(first, body).endswith("- `ir-00000001` was cancelled\n\n</details>")
    assert "is working on this" in comment_body(first, body)


@pytest.mark.parametrize(("number", "state"), [(17, "has finished"), (18, "has finished: {url}")])
def test_an_earlier_job_is_listed_with_its_pull_request_on_another_thread(number: int, state: str) -> None:
    url = f"https://github.com/octo/demo/pull/{number}"
    report = Report(comment=CommentMode.STICKY, target=ReportTarget(repository="octo/demo", pull_request=17))
    first = a_reported_job(Phase.SUCCEEDED, job_id="ir-00000001", report=report, pull_request_url=url)
    second = a_reported_job(Phase.RUNNING, job_id="ir-00000002", report=report, created_at=NOON + timedelta(minutes=1))
    assert comment_body(second, body_of(first)).endswith(f"- `ir-00000001` {state.format(url=url)}\n\n</details>")


def test_the_end_of_an_earlier_job_is_shown_in_the_list() -> None:
    first = a_reported_job(Phase.RUNNING, job_id="ir-00000001", result="```\n<details><summary>Earlier jobs</summary>")
    later = NOON + timedelta(minutes=1)
    second = a_reported_job(Phase.SUCCEEDED, job_id="ir-00000002", created_at=later, result="Done.")
    body = comment_body(second, body_of(first))
    assert "- `ir-00000001` is working on this" in body
    ended = a_reported_job(Phase.FAILED, job_id="ir-00000001")
    updated = comment_body(ended, body)
    assert updated == body.replace("is working on this", "has failed")
    assert marker_of(updated) != marker_of(body)
    third = a_reported_job(Phase.PENDING, job_id="ir-00000003", created_at=later + timedelta(minutes=1))
    assert "- `ir-00000002` has finished\n- `ir-00000001` has failed" in comment_body(third, updated)


def test_a_comment_of_hostile_length_stays_within_the_bound() -> None:
    reported = a_reported_job(
        Phase.SUCCEEDED,
        result="@a" * 16_000,
        patch="x" * 100_000,
        refused=tuple("y" * 1000 for _ in range(20)),
        outputs=Outputs(refused_hosts=tuple("h" * 1000 for _ in range(50))),
    )
    assert len(body_of(reported)) <= COMMENT_BYTES


def _job_check(phase: Phase, **fields: Any) -> tuple[str, str | None]:
    check = check_of(a_reported_job(phase, **fields))
    return check.status, check.conclusion


@pytest.mark.parametrize(
    ("phase", "code", "wanted"),
    [
        (Phase.PENDING, None, ("queued", None)),
        (Phase.RUNNING, None, ("in_progress", None)),
        (Phase.SUCCEEDED, None, ("completed", "success")),
        (Phase.FAILED, FailedCode.AGENT_ERROR, ("completed", "failure")),
        (Phase.FAILED, FailedCode.TIMEOUT, ("completed", "timed_out")),
        (Phase.FAILED, FailedCode.AUTH, ("completed", "action_required")),
        (Phase.CANCELLED, None, ("completed", "cancelled")),
    ],
)
def test_the_check_follows_the_phase(phase: Phase, code: FailedCode | None, wanted: tuple[str, str | None]) -> None:
    assert _job_check(phase, failed_code=code) == wanted


def test_a_finding_that_is_an_error_fails_the_check() -> None:
    error = Publication(findings=(Finding(path="a.py", line=1, severity="error"),))
    warning = Publication(findings=(Finding(path="a.py", line=1, severity="warning"),))
    assert _job_check(Phase.SUCCEEDED, written=error) == ("completed", "failure")
    assert _job_check(Phase.SUCCEEDED, written=warning) == ("completed", "success")


def test_a_job_that_was_to_change_something_and_did_not_has_a_neutral_check() -> None:
    report = Report(pull_request=PullRequestReport())
    assert _job_check(Phase.SUCCEEDED, report=report) == ("completed", "neutral")


def test_the_status_of_a_job_without_an_app_says_the_same() -> None:
    states = {phase: check_of(a_reported_job(phase)).status_state for phase in Phase}
    assert states == {
        Phase.PENDING: "pending",
        Phase.RUNNING: "pending",
        Phase.SUCCEEDED: "success",
        Phase.FAILED: "failure",
        Phase.CANCELLED: "error",
    }


@pytest.mark.parametrize("conclusion", ["success", "failure", "neutral", "action_required"])
def test_the_checked_value_decides_the_check_whatever_the_findings_are(conclusion: str) -> None:
    findings = Publication(findings=(Finding(path="a.py", line=1, severity="error", body="Wrong."),))
    data = {"conclusion": conclusion, "risk": 9}

    check = check_of(a_reported_job(Phase.SUCCEEDED, result="{}", result_data=data, written=findings))

    assert (check.conclusion, check.title) == (conclusion, f"the agent's conclusion: {conclusion}")


@pytest.mark.parametrize(
    ("has_repository", "seen", "conclusion", "title"),
    [
        (True, "a" * 40, "success", "the agent's conclusion: success"),
        (True, "b" * 40, "neutral", "no verdict: the agent has seen bbbbbbb instead of this commit"),
        (True, None, "neutral", "no verdict: the agent has seen an unknown commit instead of this commit"),
        (False, None, "success", "the agent's conclusion: success"),
    ],
)
def test_check_has_a_verdict_on_the_commit_that_the_agent_has_seen(
    has_repository: bool, seen: str | None, conclusion: str, title: str
) -> None:
    findings = Publication(findings=(Finding(path="a.py", line=1, severity="info", body="Look."),))
    data = {"conclusion": "success"}
    reported = a_reported_job(
        Phase.SUCCEEDED, result_data=data, written=findings, head_sha="a" * 40, outputs=Outputs(base_commit=seen)
    )
    if has_repository:
        spec = replace(reported.job.spec, workspace_setup=WorkspaceSetup(git_repo="https://git.example/r"))
        reported = dataclasses.replace(reported, job=replace(reported.job, spec=spec))
    check = check_of(reported)
    assert (check.conclusion, check.title) == (conclusion, title)
    assert len(check.annotations) == (conclusion == "success")


@pytest.mark.parametrize(
    "data", [{"conclusion": "skipped"}, {"conclusion": ["success"]}, {"passed": True}, ["success"], "success"], ids=str
)
def test_a_checked_value_without_a_known_conclusion_decides_nothing(data: Any) -> None:
    findings = Publication(findings=(Finding(path="a.py", line=1, severity="error", body="Wrong."),))

    check = check_of(a_reported_job(Phase.SUCCEEDED, result="{}", result_data=data, written=findings))

    assert (check.conclusion, check.title) == ("failure", "1 finding")


def test_the_check_of_a_failed_job_is_a_failure() -> None:
    reason = "the result does not match"

    check = check_of(a_reported_job(Phase.FAILED, failed_code=FailedCode.RESULT_INVALID, failed_reason=reason))

    assert (check.conclusion, check.title) == ("failure", reason)


@pytest.mark.parametrize("result", ['{"risk": 2}', {"risk": 2}], ids=["text", "value"])
def test_an_answer_that_is_only_its_checked_value_is_shown_as_formatted_json(result: Any) -> None:
    body = body_of(a_reported_job(Phase.SUCCEEDED, result=result, result_data={"risk": 2}))
    assert '```json\n{\n  "risk": 2\n}\n```' in body


def test_an_answer_with_more_than_its_checked_value_is_shown_as_it_is() -> None:
    answer = 'I looked.\n\n```json\n{"risk": 2}\n```'
    assert answer in body_of(a_reported_job(Phase.SUCCEEDED, result=answer, result_data={"risk": 2}))


def test_an_answer_that_is_nested_deeper_than_json_can_be_read_is_shown_as_it_is() -> None:
    answer = "[" * 20_000
    assert "[" * 1000 in body_of(a_reported_job(Phase.SUCCEEDED, result=answer, result_data={"risk": 2}))

"""The review of a pull request, and the policy on changes."""

import msgspec
import pytest
from markdown_it import MarkdownIt

from labrats.github.reports.markdown import BREAK
from labrats.github.reports.policy import protected_among, reason_to_refuse
from labrats.github.reports.pull_request import branch_name, pull_request_body, pull_request_title
from labrats.github.reports.reported_job import ReportedJob
from labrats.github.reports.review import Review, fingerprint_of, fingerprints_in, lines_of, review_of
from labrats.model.phases import Phase
from labrats.model.publication import Finding, Publication
from labrats.model.report import (
    ProtectedFiles,
    PublishPolicy,
    PullRequestReport,
    ReportTarget,
    ReviewEvent,
    ReviewReport,
)
from labrats.model.untrusted_commits import MARK
from tests.unit.github.reports.test_comment import TARGET, a_reported_job

PATCH = "@@ -1,3 +1,4 @@ def main\n one\n-two\n+TWO\n+and\n three\n@@ -20,2 +21,2 @@\n twenty\n+more"
LINES = lines_of({"src/a.py": PATCH})


def review_with(
    *findings: Finding, rules: ReviewReport | None = None, known: frozenset[str] = frozenset()
) -> Review | None:
    reported = a_reported_job(Phase.SUCCEEDED, written=Publication(findings=findings))
    return review_of(reported, rules or ReviewReport(), LINES, known)


def test_lines_of_a_diff_have_their_numbers_on_both_sides() -> None:
    assert {key[1:]: line.text for key, line in LINES.items()} == {
        ("LEFT", 1): "one",
        ("RIGHT", 1): "one",
        ("LEFT", 2): "two",
        ("RIGHT", 2): "TWO",
        ("RIGHT", 3): "and",
        ("LEFT", 3): "three",
        ("RIGHT", 4): "three",
        ("LEFT", 20): "twenty",
        ("RIGHT", 21): "twenty",
        ("RIGHT", 22): "more",
    }


def test_findings_outside_of_the_diff_are_listed_in_the_text() -> None:
    review = review_with(
        Finding(path="src/a.py", line=2, title="shouting", body="Use lower case."),
        Finding(path="src/a.py", line=10, title="far away"),
        Finding(path="src/b.py", title="no test"),
    )
    assert review
    assert [(each["path"], each["line"], each["side"]) for each in review.comments] == [("src/a.py", 2, "RIGHT")]
    assert "`src/a.py:10` **warning** far away" in review.body
    assert "`src/b.py` **warning** no test" in review.body


def test_several_lines_are_marked_only_within_one_hunk() -> None:
    review = review_with(
        Finding(path="src/a.py", start_line=1, line=3, title="in one hunk"),
        Finding(path="src/a.py", start_line=4, line=22, title="across hunks"),
    )
    assert review
    assert [each.get("start_line") for each in review.comments] == [1, None]


@pytest.mark.parametrize(
    ("body", "code"), [("see:\n\n```\nx", ["x\n"]), ("- see:\n  ```\n  x\n  ```\n", ["x\n"]), ("see", [])]
)
def test_no_text_of_a_finding_makes_its_suggestion_active(body: str, code: list[str]) -> None:
    """A suggestion stays as it is, and must not be within a block that the text leaves open."""
    suggestion = "x\n```\n\n@acme/security ![p](https://evil.example/p.png)"
    review = review_with(Finding(path="src/a.py", line=2, body=body, suggestion=suggestion))
    assert review
    [comment] = review.comments
    tokens = MarkdownIt().parse(comment["body"])
    assert [each.content for each in tokens if each.type == "fence"] == [*code, f"{suggestion}\n"]
    assert not [each for each in tokens if each.type == "inline" and "acme" in each.content]


@pytest.mark.parametrize("body", ["```\nx", "- a\n  ```\n~~~\nx"])
def test_the_mark_of_a_finding_stays_hidden_after_its_text(body: str) -> None:
    review = review_with(Finding(path="src/a.py", line=2, body=body))
    assert review
    [comment] = review.comments
    tokens = MarkdownIt().parse(comment["body"])
    assert [each.type for each in tokens if "labrats:finding" in each.content] == ["html_block"]


def test_no_text_of_a_review_hides_the_findings_after_it() -> None:
    findings = (Finding(path="src/b.py", title="no test"),)
    reported = a_reported_job(Phase.SUCCEEDED, written=Publication(findings=findings, body="```\nx"))
    review = review_of(reported, ReviewReport(), LINES, frozenset())
    assert review
    assert [each for each in MarkdownIt().parse(review.body) if each.type == "inline" and "no test" in each.content]


def test_findings_beyond_the_limit_are_listed_in_the_text() -> None:
    findings = [Finding(path="src/a.py", line=line, title=f"line {line}") for line in (1, 2, 3)]
    review = review_with(*findings, rules=ReviewReport(max_comments=2))
    assert review
    assert len(review.comments) == 2
    assert "line 3" in review.body


def test_a_finding_that_was_reported_before_is_not_repeated() -> None:
    finding = Finding(path="src/a.py", line=2, title="shouting")
    first = review_with(finding)
    assert first
    known = frozenset(fingerprints_in(first.comments[0]["body"], "ai-developer"))
    assert known == {fingerprint_of(finding, LINES)}
    assert review_with(finding, known=known) is None


def test_findings_of_another_agent_are_not_known() -> None:
    finding = Finding(path="src/a.py", line=2, title="shouting")
    review = review_with(finding)
    assert review
    assert fingerprints_in(review.comments[0]["body"], "ai-reviewer") == set()
    assert fingerprints_in("<!-- labrats:finding 0123456789abcdef -->", "ai-reviewer") == {"0123456789abcdef"}


def test_findings_outside_of_the_diff_are_known_from_the_text_of_the_review() -> None:
    finding = Finding(path="src/b.py", title="no test")
    review = review_with(finding)
    assert review
    known = frozenset(fingerprints_in(review.body, "ai-developer"))
    assert review_with(finding, known=known) is None


def test_the_fingerprint_follows_its_line_when_other_lines_move() -> None:
    moved = lines_of({"src/a.py": PATCH.replace("+1,4", "+11,4").replace("-1,3", "-11,3")})
    before = Finding(path="src/a.py", line=2, title="shouting")
    after = Finding(path="src/a.py", line=12, title="Shouting")
    assert fingerprint_of(before, LINES) == fingerprint_of(after, moved)


@pytest.mark.parametrize(
    ("wanted", "severity", "event"),
    [
        (ReviewEvent.COMMENT, "error", "COMMENT"),
        (ReviewEvent.REQUEST_CHANGES, "error", "REQUEST_CHANGES"),
        (ReviewEvent.REQUEST_CHANGES, "info", "COMMENT"),
        (ReviewEvent.APPROVE, "warning", "COMMENT"),
        (ReviewEvent.APPROVE, "info", "APPROVE"),
    ],
)
def test_the_verdict_follows_the_severity(wanted: ReviewEvent, severity: str, event: str) -> None:
    finding = Finding(path="src/a.py", line=2, severity=severity)  # type: ignore[arg-type]
    review = review_with(finding, rules=ReviewReport(event=wanted))
    assert review
    assert review.event == event


def test_a_review_without_findings_is_written_only_to_approve() -> None:
    assert review_with() is None
    approval = review_with(rules=ReviewReport(event=ReviewEvent.APPROVE))
    assert approval
    assert approval.event == "APPROVE"


@pytest.mark.parametrize("ignored", [None, "findings: must have at most 100 items"])
def test_an_agent_without_a_valid_publication_approves_nothing(ignored: str | None) -> None:
    reported = a_reported_job(Phase.SUCCEEDED, ignored=ignored)
    assert review_of(reported, ReviewReport(event=ReviewEvent.APPROVE), LINES, frozenset()) is None


def suggested(text: str) -> str:
    """Return the comment with a suggestion."""
    review = review_with(Finding(path="src/a.py", line=2, suggestion=text))
    assert review
    body: str = review.comments[0]["body"]
    return body


def test_a_suggestion_that_a_program_could_obey_is_plain_code() -> None:
    """The engine would take the forged mark for that of an earlier finding, also in a review as one text."""
    mark = "<!-- labrats:finding another-agent 0123456789abcdef -->"
    assert fingerprints_in(mark, "another-agent") == {"0123456789abcdef"}
    for text, shown in [
        (f"x = 1  # {mark}", f"x = 1  # {mark.replace('<!--', '<!--' + BREAK)}"),
        ("/approve", f"/{BREAK}approve"),
    ]:
        body = suggested(text)
        assert f"```\n{shown}\n```" in body
        assert fingerprints_in(body, "another-agent") == set()
    assert "```suggestion\n<!-- a comment -->\n```" in suggested("<!-- a comment -->")


def test_a_suggestion_cannot_close_its_block() -> None:
    review = review_with(Finding(path="src/a.py", line=2, suggestion="```\n<img src=https://evil.example>"))
    assert review
    assert "````suggestion\n```\n<img src=https://evil.example>\n````" in review.comments[0]["body"]


@pytest.mark.parametrize(
    ("file", "is_protected"),
    [
        (".github/workflows/ci.yml", True),
        (".GitHub/workflows/ci.yml", True),
        ("src/.github/x", False),
        ("CODEOWNERS", True),
        ("docs/CODEOWNERS", True),
        ("deep/AGENTS.md", True),
        ("src/main.py", False),
        ("AGENTS.md.txt", False),
    ],
)
def test_protected_files_are_found_by_globs(file: str, is_protected: bool) -> None:
    assert bool(protected_among(PublishPolicy(), [file])) is is_protected


def test_a_double_star_matches_any_depth() -> None:
    policy = PublishPolicy(protected_files=ProtectedFiles(paths=("src/**/secret.py", "*.lock")))
    files = ["src/secret.py", "src/a/b/secret.py", "x/src/secret.py", "a/poetry.lock", "a/lock"]
    assert protected_among(policy, files) == ["src/secret.py", "src/a/b/secret.py", "a/poetry.lock"]


@pytest.mark.parametrize(
    ("glob", "file", "is_protected"),
    [
        ("secrets/", "secrets/a/key", True),
        ("secrets/", "deep/secrets/key", True),
        ("infra", "infra/main.tf", True),
        ("/infra", "infra/main.tf", True),
        ("/infra", "deep/infra/main.tf", False),
        ("deploy/*", "deploy/prod/values.yaml", True),
        ("infra", "infrared.txt", False),
        ("**/a/**/b/**/c", "x/a/y/a/b/z/b/c/d", True),
        ("**/a/**/b/**/c", "a/c/b", False),
        ("a*b*/**/*.lock", "aXbY/z/k.lock", True),
        ("a*b*/**/*.lock", "aX/b/k.lock", False),
        ("src**test", "src/a/mytest", True),
        ("***/key", "a/b/key", True),
        ("infra/**", "infra", True),
        ("/infra/**/", "infra", True),
        ("infra/**", "infra/a/b", True),
        ("infra/**", "deep/infra", False),
        ("**", "any/file", True),
    ],
)
def test_a_glob_protects_files_and_all_files_of_folders(glob: str, file: str, is_protected: bool) -> None:
    """With a folder, also what takes its place: a link could lead to files that the agent may change."""
    policy = PublishPolicy(protected_files=ProtectedFiles(paths=(glob,)))
    assert bool(protected_among(policy, [file])) is is_protected


@pytest.mark.parametrize("glob", ["**/" * 60 + "x", "**/a/**/a/**/a/**/x", "*a" * 60 + "x", "**a" * 60 + "x"])
def test_a_glob_with_many_wildcards_is_matched_in_linear_time(glob: str) -> None:
    """With exponential time, these would take years, in which no other report is written."""
    policy = PublishPolicy(protected_files=ProtectedFiles(paths=(glob,)))
    assert protected_among(policy, ["a/" * 2000, "a" * 4000]) == []


def test_changes_beyond_the_limits_are_refused_with_the_limit() -> None:
    assert reason_to_refuse(PublishPolicy(max_files=1), ["a", "b"], 10) == (
        "the changes concern 2 files; policy.maxFiles is 1"
    )
    assert reason_to_refuse(PublishPolicy(max_kib=1), ["a"], 5000) == "the commits have 4 KiB; policy.maxKiB is 1"
    assert reason_to_refuse(PublishPolicy(), ["a"], 5000) is None


def test_a_limit_that_was_stored_under_its_former_name_holds() -> None:
    stored = msgspec.json.decode(b'{"maxKib": 1}', type=PublishPolicy)
    assert reason_to_refuse(stored, ["a"], 5000) == "the commits have 4 KiB; policy.maxKiB is 1"


def test_the_pull_request_closes_its_issue_and_no_other() -> None:
    publication = Publication(title="Add a flag @octocat", body="Fixes #99\n\nDone.")
    reported = a_reported_job(Phase.SUCCEEDED, written=publication)
    body = pull_request_body(reported, PullRequestReport(), TARGET, ["AGENTS.md"])
    assert "Fixes #17" in body
    assert "Fixes #99" not in body
    assert "- `AGENTS.md`" in body
    title = pull_request_title(reported, PullRequestReport(title_prefix="[ai] "), None)
    assert title == "[ai] Add a flag @\u200boctocat"


def test_a_pull_request_without_a_text_has_the_answer_of_the_agent() -> None:
    reported = a_reported_job(Phase.SUCCEEDED, result="I added the flag. @octocat")
    assert "\nI added the flag. @\u200boctocat\n" in pull_request_body(reported, PullRequestReport(), TARGET)


@pytest.mark.parametrize("answer", ["```\nx", "- a\n  ```\n```\nx", "- a\n  ```\n~~~\nx"])
def test_no_answer_hides_that_protected_files_are_changed(answer: str) -> None:
    reported = a_reported_job(Phase.SUCCEEDED, result=answer)
    tokens = MarkdownIt().parse(pull_request_body(reported, PullRequestReport(), TARGET, ["AGENTS.md"]))
    assert [each for each in tokens if each.type == "inline" and "files are protected" in each.content]


@pytest.mark.parametrize(
    ("template", "branch"),
    [
        ("labrats/{{agent}}/{{number}}", "labrats/ai-developer/17"),
        ("{{ job }}", "ir-00000001"),
        ("a/../b//c.lock", "a/-/b-c"),
    ],
)
def test_the_branch_has_a_valid_name(template: str, branch: str) -> None:
    assert branch_name(template, a_reported_job(Phase.SUCCEEDED, job_id="ir-00000001"), TARGET) == branch


@pytest.mark.parametrize(
    ("template", "branch"),
    [
        ("labrats/{{agent}}/{{number}}", "labrats-external/ai-developer/17"),
        ("bot/{{number}}", "labrats-external/bot/17"),
        ("labrats-external/{{number}}", "labrats-external/17"),
    ],
)
def test_the_branch_of_an_untrusted_job_has_a_prefix_of_its_own(template: str, branch: str) -> None:
    reported = a_reported_job(Phase.SUCCEEDED)
    spec = msgspec.structs.replace(reported.job.spec, untrusted=True)
    untrusted = ReportedJob(msgspec.structs.replace(reported.job, spec=spec))
    assert branch_name(template, untrusted, TARGET) == branch
    assert MARK in pull_request_body(untrusted, PullRequestReport(), TARGET)
    assert MARK not in pull_request_body(reported, PullRequestReport(), TARGET)


def test_the_branch_of_a_job_without_a_number_is_named_after_the_job() -> None:
    target = ReportTarget(repository="octo/demo")
    reported = a_reported_job(Phase.SUCCEEDED, job_id="ir-00000001")
    assert branch_name("labrats/{{agent}}/{{number}}", reported, target) == "labrats/ai-developer/ir-00000001"


def test_the_name_of_a_file_mentions_nobody_in_the_text_of_a_review() -> None:
    """The text has the comments if GitHub refuses them on their lines. A fork's author may choose the names."""
    comments = [{"path": "a`@org/team\n/approve ![](http://a.example/x)", "line": 3, "body": "Wrong."}]
    body, _, place, text = Review("COMMENT", "Two findings.", comments).as_text().split("\n")
    assert (body, text) == ("Two findings.", "Wrong.")
    assert place.startswith("`a")
    assert place.endswith(":3`")
    assert place.count("`") == 2

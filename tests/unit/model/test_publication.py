"""Tests of the JSON of publications."""

import json
from typing import Any

import pytest

from labrats.model.errors import Invalid
from labrats.model.publication import Finding, Publication, parse_publication


def test_complete_publication_is_parsed() -> None:
    finding = {"path": "src/a.py", "line": 7, "startLine": 5, "side": "LEFT", "severity": "error", "title": "Leak"}
    texts = {"body": "It is never closed.", "suggestion": "with open(path):"}
    raw = {"title": "Close files", "body": "Why", "comment": "Done", "labels": ["ai"], "findings": [finding | texts]}

    assert parse_publication(json.dumps(raw).encode()) == Publication(
        title="Close files",
        body="Why",
        comment="Done",
        labels=("ai",),
        findings=(
            Finding(path="src/a.py", line=7, start_line=5, side="LEFT", severity="error", title="Leak", **texts),
        ),
    )


def test_every_field_of_a_publication_is_optional() -> None:
    assert parse_publication(b"{}") == Publication()
    assert parse_publication(b'{"findings": [{"path": "a"}]}').findings == (Finding(path="a"),)
    assert parse_publication(b'{"title": null, "body": null}') == Publication()


def a_finding(**fields: Any) -> dict[str, Any]:
    return {"findings": [{"path": "a", **fields}]}


FINDING_FIELDS = ("path", "line", "startLine", "side", "severity", "title", "body", "suggestion")
INVALID: list[tuple[Any, str]] = [
    ([], "publication: must be an object"),
    ({"titel": ""}, "titel: there is no such field; the fields are title, body, comment, labels, findings"),
    ({"title": 1}, "title: must be a string"),
    ({"title": "x" * 257}, "title: must have at most 256 characters"),
    ({"body": "ü" * 30721}, "body: must have at most 60 KiB in UTF-8"),
    ({"comment": "x" * 61441}, "comment: must have at most 60 KiB in UTF-8"),
    ({"labels": ["x" * 51]}, "labels[0]: must have at most 50 characters"),
    ({"labels": [""]}, "labels[0]: must not be empty"),
    ({"labels": ["x"] * 21}, "labels: must have at most 20 items"),
    ({"findings": [{"path": "a"}] * 101}, "findings: must have at most 100 items"),
    ({"findings": [{}]}, "findings[0].path: is required"),
    (a_finding(lines=1), f"findings[0].lines: there is no such field; the fields are {', '.join(FINDING_FIELDS)}"),
    (a_finding(line=0), "findings[0].line: must be at least 1"),
    (a_finding(line="7"), "findings[0].line: must be a whole number"),
    (a_finding(line=7, startLine=8), "findings[0].startLine: must not be greater than line"),
    (a_finding(startLine=8), "findings[0].line: is required with startLine"),
    (a_finding(side="left"), "findings[0].side: must be LEFT or RIGHT"),
    (a_finding(severity="bad"), "findings[0].severity: must be info, warning or error"),
    (a_finding(body="x" * 8193), "findings[0].body: must have at most 8 KiB in UTF-8"),
    (a_finding(suggestion="x" * 8193), "findings[0].suggestion: must have at most 8 KiB in UTF-8"),
    (a_finding(path="/etc/passwd"), "findings[0].path: must be a path within the repository, such as src/main.py"),
    (a_finding(path="a/../../b"), "findings[0].path: must be a path within the repository, such as src/main.py"),
]


@pytest.mark.parametrize(("value", "message"), INVALID, ids=[message for _, message in INVALID])
def test_invalid_publication_is_refused_with_the_field(value: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_publication(json.dumps(value).encode())
    assert str(caught.value) == message


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"title": "\xff"}', b'{"title": "\\ud800"}', b"[" * 10**5])
def test_text_that_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid, match=r"^publication: must be"):
        parse_publication(raw)


def test_all_problems_of_valid_types_are_named() -> None:
    raw = {"body": "x" * 61441, "comment": "x" * 61441}
    with pytest.raises(Invalid) as caught:
        parse_publication(json.dumps(raw).encode())
    assert [problem.field for problem in caught.value.problems] == ["body", "comment"]

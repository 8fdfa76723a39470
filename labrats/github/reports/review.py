"""The review of a pull request: findings on lines of its diff, and the rest in the review's text."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from labrats.github.reports.markdown import BREAK, code_block, neutralised, one_line, without_commands
from labrats.github.reports.reported_job import ReportedJob
from labrats.model.outside_text import AGENT_MARK
from labrats.model.publication import Finding, Publication
from labrats.model.report import ReviewEvent, ReviewReport

_BODY_BYTES: Final = 8 * 1024
_TEXT_BYTES: Final = 30_000
_REVIEW_LENGTH: Final = 60_000
_HUNK: Final = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")
_FINGERPRINT: Final = re.compile(r"<!-- labrats:finding (?:([^\s<>]+) )?([0-9a-f]{16}) -->")
_OWN_MARK: Final = re.compile(r"<!--(?=\s*labrats:)")
_JOB: Final = "<!-- labrats:review {job} -->"


@dataclass(frozen=True)
class DiffLine:
    """A line of a diff. hunk: the number of its hunk in the file."""

    hunk: int
    text: str


Lines = Mapping[tuple[str, str, int], DiffLine]
"""The lines of a diff on which GitHub accepts comments, by path, side (`LEFT` or `RIGHT`) and number."""


@dataclass(frozen=True)
class Review:
    """A review in GitHub's words. comments: bodies of `POST …/reviews`."""

    event: str
    body: str
    comments: Sequence[Mapping[str, Any]]

    def as_text(self) -> str:
        """Return the body with the comments in it."""
        comments = (f"`{_place(each['path'], each['line'])}`\n{each['body']}" for each in self.comments)
        return "\n\n".join([self.body, *comments])


def lines_of(patches: Mapping[str, str]) -> Lines:
    """Return the lines of a diff. patches: the hunks of each file, as GitHub lists them."""
    return {(path, side, number): line for path, patch in patches.items() for side, number, line in _lines(patch)}


def _lines(patch: str) -> Iterator[tuple[str, int, DiffLine]]:
    left = right = hunk = 0
    for line in patch.split("\n"):
        if found := _HUNK.match(line):
            left, right, hunk = int(found[1]), int(found[2]), hunk + 1
        elif line.startswith("+"):
            yield "RIGHT", right, DiffLine(hunk, line[1:])
            right += 1
        elif line.startswith("-"):
            yield "LEFT", left, DiffLine(hunk, line[1:])
            left += 1
        elif not line.startswith("\\"):
            yield "LEFT", left, DiffLine(hunk, line[1:])
            yield "RIGHT", right, DiffLine(hunk, line[1:])
            left, right = left + 1, right + 1


def review_mark(job_id: str) -> str:
    """Return the hidden mark by which the review of a job is found again."""
    return _JOB.format(job=job_id)


def fingerprints_in(body: str, agent: str) -> set[str]:
    """Return the fingerprints of the agent's findings in an earlier review or comment.

    Those of version 0.1 name no agent, and count as its own.
    """
    return {found[2] for found in _FINGERPRINT.finditer(body) if found[1] in (None, agent)}


def _mark_of(fingerprint: str, agent: str) -> str:
    return f"<!-- labrats:finding {agent} {fingerprint} -->"


def fingerprint_of(finding: Finding, lines: Lines) -> str:
    """Return an id of the finding that stays the same while its file, the text of its line and its title do."""
    line = lines.get((finding.path, finding.side, finding.line or 0))
    parts = [finding.path, " ".join(line.text.split()) if line else "", (finding.title or finding.body or "").lower()]
    return sha256("\0".join(parts).encode()).hexdigest()[:16]


def review_of(reported: ReportedJob, rules: ReviewReport, lines: Lines, known: Collection[str]) -> Review | None:
    """Return the review with the findings of the agent; None if it has nothing new to say.

    Only an agent that has written a valid `publish.json` approves: silence is no verdict.

    known: the fingerprints of findings that earlier reviews have reported.
    """
    placed: list[dict[str, Any]] = []
    rest: dict[str, Finding] = {}
    for finding in reported.publication.findings:
        fingerprint = fingerprint_of(finding, lines)
        if fingerprint in known:
            continue
        if len(placed) < rules.max_comments and (anchor := _anchor(finding, lines)):
            body = _comment(finding, reported.known_hosts)
            placed.append(anchor | {"body": f"{body}\n\n{_mark_of(fingerprint, reported.agent)}\n{AGENT_MARK}"})
        else:
            rest[fingerprint] = finding
    event = _event(rules, reported.written)
    if not placed and not rest and event is not ReviewEvent.APPROVE:
        return None
    return Review(event.value, _body(reported, rest, len(placed)), placed)


def _event(rules: ReviewReport, written: Publication | None) -> ReviewEvent:
    """Return the verdict: changes are requested for findings that are more than remarks, and approved without any."""
    if written is None:
        return ReviewEvent.COMMENT
    has_problems = any(finding.severity != "info" for finding in written.findings)
    if rules.event is ReviewEvent.REQUEST_CHANGES and has_problems:
        return ReviewEvent.REQUEST_CHANGES
    return ReviewEvent.APPROVE if rules.event is ReviewEvent.APPROVE and not has_problems else ReviewEvent.COMMENT


def _anchor(finding: Finding, lines: Lines) -> dict[str, Any] | None:
    """Return the place of a comment on a line; None if the diff does not have the lines in one hunk."""
    if finding.line is None or (last := lines.get((finding.path, finding.side, finding.line))) is None:
        return None
    anchor: dict[str, Any] = {"path": finding.path, "line": finding.line, "side": finding.side}
    if finding.start_line is None or finding.start_line == finding.line:
        return anchor
    first = lines.get((finding.path, finding.side, finding.start_line))
    if first is None or first.hunk != last.hunk or finding.start_line > finding.line:
        return anchor
    return anchor | {"start_line": finding.start_line, "start_side": finding.side}


def _comment(finding: Finding, known_hosts: Collection[str]) -> str:
    title = one_line(finding.title or "", known_hosts, 200)
    text = neutralised(finding.body or "", known_hosts, _BODY_BYTES)
    label = f"**{finding.severity}**"
    parts = [f"{label}: {title}" if title else label, text]
    if finding.suggestion is not None and finding.side == "RIGHT":
        parts.append(_suggestion(finding.suggestion.rstrip("\n")))
    return "\n\n".join(part for part in parts if part)


def _suggestion(text: str) -> str:
    """Return the block of a suggestion. It is plain code if a program could obey it, which would change the text."""
    inactive = without_commands(_OWN_MARK.sub(rf"\g<0>{BREAK}", text))
    return code_block(inactive, "suggestion" if inactive == text else "")


def _body(reported: ReportedJob, rest: Mapping[str, Finding], placed: int) -> str:
    hosts, publication = reported.known_hosts, reported.publication
    marks = [review_mark(reported.job.id), *(_mark_of(each, reported.agent) for each in rest), AGENT_MARK]
    parts = ["\n".join(marks)]
    if publication.body:
        parts.append(neutralised(publication.body, hosts, _TEXT_BYTES))
    else:
        number = placed + len(rest)
        parts.append(f"**{one_line(reported.agent, hosts, 100)}** has {number} finding{'' if number == 1 else 's'}.")
    if rest:
        parts.append("On lines outside of the diff:" if placed or any(each.line for each in rest.values()) else "")
        parts.append("\n".join(_listed(each, hosts) for each in rest.values()))
    return "\n\n".join(part for part in parts if part)[:_REVIEW_LENGTH]


def _listed(finding: Finding, known_hosts: Collection[str]) -> str:
    text = one_line(": ".join(part for part in (finding.title, finding.body) if part), known_hosts, 1000)
    return f"- `{_place(finding.path, finding.line)}` **{finding.severity}** {text}"


def _place(path: str, line: int | None) -> str:
    """Return a place in a file for inline code: its name may contain anything."""
    return one_line(f"{path}:{line}" if line else path, (), 300).replace("`", "")

"""Conditions on jobs, and their SQL over the tables of job_table.py."""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

_SELECTIVE: Final = frozenset({"repo", "chain_id", "failed_code", "thread", "pull_request"})
"""Columns of which most values have few jobs."""

_EQUAL: Final = (
    "type", "source", "agent_role", "repo", "chain_id", "owner", "provider", "model", "failed_code", "thread",
    "pull_request",
)  # fmt: skip


_THREAD: Final = re.compile(
    r"(?:(?:https?://[^/\s]+/(?P<repo>[\w.-]+/[\w.-]+)/)?(?:issues|pulls?)/|(?P<short>[\w.-]+/[\w.-]+)?#)"
    r"(?P<number>[1-9]\d{0,9})(?:[/?#]\S*)?"
)
"""An issue or pull request: `#12`, `pull/12`, `octo-org/api#12` or its URL, also of a part of it such as a comment."""


@dataclass(frozen=True)
class JobFilter:
    """Conditions on jobs. None and an empty sequence match every job; one of several values has to match.

    thread:       see `thread_of` in job_table.py. pull_request: URL of the one that has a job's commits.
    since, until: the earliest time of creation, and the time before which a job was created.
    ended_since, ended_until: the same of its end.
    q:            occurs in the id, type, source, repo or title, or names the job's issue or pull request.
    """

    status: Sequence[str] = ()
    type: str | None = None
    source: str | None = None
    agent_role: str | None = None
    repo: str | None = None
    chain_id: str | None = None
    owner: str | None = None
    provider: str | None = None
    model: str | None = None
    failed_code: str | None = None
    thread: str | None = None
    pull_request: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ended_since: datetime | None = None
    ended_until: datetime | None = None
    q: str | None = None

    @property
    def conditions(self) -> frozenset[str]:
        """Names of the fields that restrict the jobs."""
        return frozenset(name for name in _NAMES if getattr(self, name))

    @property
    def has_end(self) -> bool:
        """True if the time of a job's end is restricted."""
        return bool(self.ended_since or self.ended_until)

    def without(self, names: AbstractSet[str]) -> "JobFilter":
        """Return the filter without the conditions on these fields."""
        return replace(self, **{name: getattr(EVERY_JOB, name) for name in names})

    def only(self, names: AbstractSet[str]) -> "JobFilter":
        """Return the filter with no other conditions than those on these fields."""
        return self.without(self.conditions - names)


_NAMES: Final = tuple(each.name for each in fields(JobFilter))

EVERY_JOB: Final = JobFilter()


def condition_of(wanted: JobFilter, *, within_time: bool = False) -> tuple[str, list[Any]]:
    """Return the SQL condition of a filter, without any value in it, and the values. TRUE matches every job.

    within_time: the query also has a range of times, whose index reads less than that of a frequent value. A unary plus
    keeps SQLite, which does not know how frequent a value is, from the latter.
    """
    terms: list[str] = []
    values: list[Any] = []
    if wanted.status:
        terms.append(f"{'+' if within_time else ''}status IN ({', '.join('?' * len(wanted.status))})")
        values += wanted.status
    for column in _EQUAL:
        if (value := getattr(wanted, column)) is not None:
            terms.append(f"{'+' if within_time and column not in _SELECTIVE else ''}{column} = ?")
            values.append(value)
    if wanted.since:
        terms.append("created >= ?")
        values.append(wanted.since.timestamp())
    if wanted.until:
        terms.append("created < ?")
        values.append(wanted.until.timestamp())
    if wanted.ended_since:
        terms.append("finished >= ?")
        values.append(wanted.ended_since.timestamp())
    if wanted.ended_until:
        terms.append("finished < ?")
        values.append(wanted.ended_until.timestamp())
    if wanted.q:
        term, found = _search(wanted.q.lower())
        terms.append(term)
        values += found
    return " AND ".join(terms) or "TRUE", values


def _search(text: str) -> tuple[str, list[str]]:
    """Return the SQL condition for a text in lower case, and its values."""
    if (named := _THREAD.fullmatch(text.strip())) is None:
        return "instr(search, ?)", [text]
    repo, number = named["repo"] or named["short"], named["number"]
    subject = "subject" if repo else "substr(subject, instr(subject, '#'))"
    # The pull request may be one that the job opened for an issue.
    term = f"(instr(search, ?) OR {subject} = ? OR instr(lower(pull_request) || ' ', ?))"
    return term, [text, f"{repo or ''}#{number}", f"/{f'{repo}/' if repo else ''}pull/{number} "]


def where_of(wanted: JobFilter, *, within_time: bool = False) -> tuple[str, list[Any]]:
    """Return the SQL clause of a filter, which is empty for every job, and the values. within_time: see above."""
    condition, values = condition_of(wanted, within_time=within_time)
    return ("" if condition == "TRUE" else f"WHERE {condition}"), values

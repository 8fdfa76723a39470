"""The texts of a pull request with the commits of an agent."""

import re
from collections.abc import Sequence
from typing import Final

from labrats.github.reports.comment import COMMENT_BYTES, answer_of
from labrats.github.reports.markdown import neutralised, one_line
from labrats.github.reports.reported_job import ReportedJob
from labrats.model.outside_text import AGENT_MARK
from labrats.model.report import PullRequestReport, ReportTarget
from labrats.model.untrusted_commits import BRANCH_PREFIX, MARK

_PREFIX: Final = "labrats/"
_TITLE_LENGTH: Final = 200
_BRANCH_LENGTH: Final = 200
_LISTED_FILES: Final = 50
_PLACEHOLDER: Final = re.compile(r"\{\{ ?(agent|number|job) ?\}\}")
_UNSAFE: Final = re.compile(r"[^0-9A-Za-z._/-]+|\.{2,}|/{2,}|(?<=/)\.|\.(?=/)")
_BRANCH_REF: Final = "refs/heads/"
_NO_BRANCH: Final = re.compile(r"[0-9a-f]{7,64}|refs/.*")


PULL_REQUEST_MARK: Final = "<!-- labrats:pull-request "
"""The start of the hidden mark in the pull requests of jobs."""


def pull_request_mark(reported: ReportedJob) -> str:
    """Return the hidden mark by which the pull request of a job is found again."""
    return f"{PULL_REQUEST_MARK}{reported.job.id} -->"


def pull_request_title(reported: ReportedJob, rules: PullRequestReport, issue_title: str | None) -> str:
    """Return the title: the agent's, or else that of the issue or job."""
    candidates = (reported.publication.title, issue_title, reported.job.title)
    title = next((each.strip() for each in candidates if each and each.strip()), f"Changes of {reported.agent}")
    return rules.title_prefix + one_line(title, reported.known_hosts, _TITLE_LENGTH)


def pull_request_body(
    reported: ReportedJob, rules: PullRequestReport, target: ReportTarget, protected: Sequence[str] = ()
) -> str:
    """Return the text. protected: the changed files that the policy protects."""
    hosts = reported.known_hosts
    text = neutralised(reported.publication.body or answer_of(reported), hosts, COMMENT_BYTES // 2)
    marks = [pull_request_mark(reported), AGENT_MARK, *([MARK] if reported.job.spec.untrusted else [])]
    parts = ["\n".join([*marks, text])]
    if protected:
        files = "\n".join(f"> - `{one_line(file, (), 200).replace('`', '')}`" for file in protected[:_LISTED_FILES])
        parts.append(f"> [!WARNING]\n> These files are protected. Please review their changes with care.\n>\n{files}")
    if target.issue is not None and rules.closes:
        parts.append(f"Fixes #{target.issue}")
    elif target.number is not None:
        parts.append(f"For #{target.number}")
    name = f"[`{reported.job.id}`]({reported.url})" if reported.url else f"`{reported.job.id}`"
    parts.append(f"<sub>by {one_line(reported.agent, hosts, 100)}, job {name}</sub>")
    return "\n\n".join(part for part in parts if part.strip())


def branch_name(template: str, reported: ReportedJob, target: ReportTarget) -> str:
    """Return the name of the branch for the commits of the job. Those of untrusted jobs have a prefix of their own."""
    number = str(target.number) if target.number is not None else reported.job.id
    values = {"agent": reported.agent, "number": number, "job": reported.job.id}
    name = _PLACEHOLDER.sub(lambda found: values[found[1]], template)
    safe = _UNSAFE.sub("-", name).strip("/.-")[:_BRANCH_LENGTH].removesuffix(".lock").rstrip("/.-")
    name = safe or f"{_PREFIX}{reported.job.id}"
    if not reported.job.spec.untrusted:
        return name
    return BRANCH_PREFIX + name.removeprefix(BRANCH_PREFIX).removeprefix(_PREFIX)


def base_branch(reported: ReportedJob) -> str | None:
    """Return the branch that the agent started from; None if it started from a tag or commit, or the default branch."""
    setup = reported.job.spec.workspace_setup
    ref = (setup.git_ref if setup else None) or ""
    if ref.startswith(_BRANCH_REF):
        return ref.removeprefix(_BRANCH_REF)
    return ref if ref and not _NO_BRANCH.fullmatch(ref) else None

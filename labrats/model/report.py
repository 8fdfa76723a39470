"""The report of a job to GitHub: which comments, checks, reviews and pull requests the engine writes for it."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from labrats.model.found_secrets import FoundSecret
from labrats.model.record import Record

DEFAULT_BRANCH: Final = "labrats/{{agent}}/{{number}}"
DEFAULT_PROTECTED_PATHS: Final = (".github/**", "CODEOWNERS", "docs/CODEOWNERS", "AGENTS.md", "CLAUDE.md")


class CommentMode(StrEnum):
    """The comments of a job: one for all jobs of its agent, one of its own, one at its end, or none."""

    STICKY = "sticky"
    PER_JOB = "perJob"
    FINAL = "final"
    NONE = "none"


class ReviewEvent(StrEnum):
    """GitHub's names for the verdict of a review."""

    COMMENT = "COMMENT"
    REQUEST_CHANGES = "REQUEST_CHANGES"
    APPROVE = "APPROVE"


class ProtectedAction(StrEnum):
    """The treatment of changes to protected files: ask people to review them, or do not push them."""

    REQUEST_REVIEW = "requestReview"
    REFUSE = "refuse"


class ReportMode(StrEnum):
    """Switch between writing the report and only showing what would be written."""

    WRITE = "write"
    PREVIEW = "preview"


class CheckReport(Record):
    """A check run, or a commit status where the credentials are no App's. name: None for `labrats/` and the agent."""

    enabled: bool = True
    name: str | None = None


class ReviewReport(Record):
    """A review with the findings of the agent. max_comments: further findings are listed in the review's text."""

    enabled: bool = True
    event: ReviewEvent = ReviewEvent.COMMENT
    max_comments: int = 20


class PullRequestReport(Record):
    """A pull request with the commits of the agent.

    closes: whether it names the issue as fixed.
    branch: with the placeholders `{{agent}}`, `{{number}}` and `{{job}}`.
    follow_ups: whether a reply to it is a follow-up of its job.
    sign_commits: whether GitHub creates and signs the commits. It does so as well where a branch takes no others.
    """

    enabled: bool = True
    draft: bool = True
    title_prefix: str = ""
    labels: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    closes: bool = True
    branch: str = DEFAULT_BRANCH
    follow_ups: bool = True
    sign_commits: bool = False


class StateLabels(Record):
    """The labels of an issue or pull request while its job waits or runs, and after its end. Empty for none."""

    running: str = ""
    failed: str = ""
    done: str = ""


class ProtectedFiles(Record):
    """Files that need a person's eyes. paths: globs; `**` stands for any number of folders."""

    paths: tuple[str, ...] = DEFAULT_PROTECTED_PATHS
    action: ProtectedAction = ProtectedAction.REQUEST_REVIEW


class PublishPolicy(Record):
    """Limits on what an agent may publish.

    max_pull_requests: the number that a job may open, 0 or 1. It may add commits to one that a job has opened.
    max_kib: size of the bundle of commits. former_max_kib: its name in resources of earlier versions; it comes first.
    labels:  globs of the labels that the agent may propose. A label can start other programs, so there are none by
             default.
    """

    max_pull_requests: int = 1
    max_files: int = 100
    max_kib: int = msgspec.field(default=4096, name="maxKiB")
    former_max_kib: int | None = msgspec.field(default=None, name="maxKib")
    protected_files: ProtectedFiles = ProtectedFiles()
    labels: tuple[str, ...] = ()


class ReportTarget(Record):
    """The thread that a job reports to.

    repository:   `owner/name`.
    issue, pull_request: the number; at most one of them is set.
    source:       the WebhookSource with the credentials.
    head_sha:     the commit of the pull request that the event was about.
    comment:      the id of the comment that caused the event.
    repository_id: GitHub's id of the repository, which stays when its name changes. None if the event names none.
    """

    repository: str
    issue: int | None = None
    pull_request: int | None = None
    source: str | None = None
    head_sha: str | None = None
    comment: int | None = None
    repository_id: int | None = None

    @property
    def number(self) -> int | None:
        """The number of the issue or pull request; None without one."""
        return self.issue if self.issue is not None else self.pull_request


class Report(Record):
    """The report of a job. None where a layer sets nothing; a job's own has the target, too.

    reactions: whether the issue or comment that caused the job gets a reaction.
    """

    comment: CommentMode | None = None
    check: CheckReport | None = None
    review: ReviewReport | None = None
    pull_request: PullRequestReport | None = None
    labels: StateLabels | None = None
    reactions: bool | None = None
    policy: PublishPolicy | None = None
    mode: ReportMode | None = None
    target: ReportTarget | None = None

    def over(self, other: "Report | None") -> "Report":
        """Return this report, with the values of `other` for the keys that are not set."""
        return Report(**(other.as_fields() | self.as_fields())) if other else self

    def as_fields(self) -> dict[str, Any]:
        """Return the values that are set, by field."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}

    @property
    def writes_anything(self) -> bool:
        """True if a job with this report has anything to write."""
        switches = (self.check, self.review, self.pull_request)
        has_comment = self.comment not in (None, CommentMode.NONE)
        return has_comment or any(each and each.enabled for each in switches) or bool(self.labels or self.reactions)


class CreatedObject(Record):
    """An object that the engine creates on GitHub.

    created_at: time of the request. id: the number of a pull request; None until GitHub has answered.
    """

    created_at: datetime
    id: int | None = None


class Published(Record):
    """The published parts of a job's report.

    commit:      the last commit of the pull request when the job's were added. GitHub makes new ids when it signs.
    head_sha:    the commit of the pull request that the report is about.
    branch:      the branch that was recorded before it was created; None once the report is complete.
    refused:     reasons why other parts were not published, as sentences.
    commit_tries: number of publishers that were killed while they published the commits.
    attempts, finished_at: those of the job when the report was last complete; see Job.is_settled.
    requested_at: time of the last request to publish again.
    secrets:      those that GitHub has found in the commits of any attempt. Texts of the job are redacted by them.
    objects:     the created objects by name, such as `check run of 0a1b2c`. Lists of GitHub may not show them yet.
    repository_id: of the repository, from the first pass on.
    """

    comment_url: str | None = None
    check_url: str | None = None
    review_url: str | None = None
    pull_request_url: str | None = None
    commit: str | None = None
    head_sha: str | None = None
    branch: str | None = None
    refused: tuple[str, ...] = ()
    commit_tries: int = 0
    attempts: int = 0
    finished_at: datetime | None = None
    requested_at: datetime | None = None
    secrets: tuple[FoundSecret, ...] = ()
    objects: dict[str, CreatedObject] = {}
    repository_id: int | None = None

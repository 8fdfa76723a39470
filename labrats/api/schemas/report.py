"""The report of a job to GitHub, in requests and responses."""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import AliasChoices, Field, StringConstraints, model_validator

from labrats.api.schemas.base import Label, Name, RequestBody, ResponseBody, optional
from labrats.api.schemas.patterns import BRANCH_TEMPLATE, GITHUB_LOGIN, REPOSITORY
from labrats.model.report import DEFAULT_BRANCH, DEFAULT_PROTECTED_PATHS, Report

_GitHubLabel = Annotated[str, StringConstraints(min_length=1, max_length=50)]
_OptionalLabel = Annotated[str, StringConstraints(max_length=50)]
_Login = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=GITHUB_LOGIN)]
_Number = Annotated[int, Field(ge=1, le=2**31)]
_Branch = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=BRANCH_TEMPLATE)]


class CheckReportBody(RequestBody):
    """A check run of a pull request's commit. With a personal token, which may write none, a commit status."""

    enabled: bool = Field(default=True, description="False turns off a check of another layer.")
    name: Label | None = Field(default=None, description="Default: `labrats/` and the agent's `triggerName`.")


class ReviewReportBody(RequestBody):
    """A review of a pull request with the findings of the agent."""

    enabled: bool = Field(default=True, description="False turns off a review of another layer.")
    event: Literal["COMMENT", "REQUEST_CHANGES", "APPROVE"] = Field(
        default="COMMENT", description="The verdict. A review without findings requests no changes."
    )
    max_comments: int = Field(
        default=20, ge=0, le=100, description="Comments on lines. Further findings are listed in the review's text."
    )


class PullRequestReportBody(RequestBody):
    """A pull request with the commits of the agent."""

    enabled: bool = Field(default=True, description="False turns off the pull requests of another layer.")
    draft: bool = True
    title_prefix: Annotated[str, StringConstraints(max_length=100)] = Field(default="", examples=["[ai] "])
    labels: list[_GitHubLabel] = Field(default=[], max_length=20)
    reviewers: list[_Login] = Field(default=[], max_length=15, description="Logins of the people to ask for a review.")
    closes: bool = Field(default=True, description="Merging it closes the issue.")
    branch: _Branch = Field(
        default=DEFAULT_BRANCH, description="The branch. `{{agent}}`, `{{number}}` and `{{job}}` are replaced."
    )
    follow_ups: bool = Field(default=True, description="A reply to it is a follow-up of its job.")
    sign_commits: bool = Field(
        default=False,
        description="GitHub creates the commits, and signs them. It does so as well where a branch takes only verified "
        "commits. A commit with an executable file, a symbolic link or a submodule is pushed as it is.",
    )


class StateLabelsBody(RequestBody):
    """Labels of the issue or pull request by the state of the job; empty for none."""

    running: _OptionalLabel = Field(default="", examples=["ai-working"])
    failed: _OptionalLabel = Field(default="", examples=["ai-failed"])
    done: _OptionalLabel = ""


class ProtectedFilesBody(RequestBody):
    """Files whose changes need a person's eyes."""

    paths: list[Annotated[str, StringConstraints(min_length=1, max_length=200)]] = Field(
        default=list(DEFAULT_PROTECTED_PATHS),
        max_length=100,
        description="Globs; `**` stands for any number of folders.",
    )
    action: Literal["requestReview", "refuse"] = Field(
        default="requestReview",
        description="`requestReview`: the pull request is a draft that names the files. `refuse`: nothing is pushed; "
        "the comment has the patch.",
    )


class PublishPolicyBody(RequestBody):
    """Limits on what an agent may publish. The changes beyond them are a patch in the comment."""

    max_pull_requests: int = Field(
        default=1,
        ge=0,
        le=1,
        description="Pull requests that a job may open. With 0, the comment has the changes as a patch; commits are "
        "still added to a pull request that a job has opened.",
    )
    max_files: int = Field(default=100, ge=1, le=10_000, description="Changed files.")
    max_kib: int = Field(
        default=4096,
        ge=1,
        le=100_000,
        validation_alias=AliasChoices("maxKiB", "maxKib"),  # the second one is of earlier versions
        serialization_alias="maxKiB",
        description="Size of the bundle of commits, in KiB.",
    )
    protected_files: ProtectedFilesBody = ProtectedFilesBody()
    labels: list[_GitHubLabel] = Field(
        default=[],
        max_length=100,
        description="Globs of the labels that the agent may propose, such as `bug`. A label can start other programs.",
    )


class ReportBody(RequestBody):
    """The report of a job to GitHub. Each key comes from the first layer that sets it; nothing is written by default.

    The layers: job, trigger, the webhook source's override for the repository, webhook source, agent.
    """

    comment: Literal["sticky", "perJob", "final", "none"] | None = Field(
        default=None,
        description="`sticky`: one comment for all jobs of the agent on an issue or pull request. `perJob`: one for "
        "each job. `final`: one when the job has ended.",
    )
    check: CheckReportBody | None = None
    review: ReviewReportBody | None = None
    pull_request: PullRequestReportBody | None = None
    labels: StateLabelsBody | None = None
    reactions: bool | None = Field(
        default=None, description="React to the issue or comment that started the job, and again at its end."
    )
    policy: PublishPolicyBody | None = None
    mode: Literal["write", "preview"] | None = Field(
        default=None, description="`preview` writes nothing: `GET /api/jobs/{id}/report` shows what would be written."
    )


class ReportTargetBody(RequestBody):
    """The repository, and the issue or pull request, that the job reports to."""

    repository: Annotated[str, StringConstraints(max_length=200, pattern=REPOSITORY)] = Field(
        examples=["octocat/hello-world"]
    )
    issue: _Number | None = Field(default=None, examples=[17])
    pull_request: _Number | None = None
    source: Name | None = Field(
        default=None,
        description="The WebhookSource whose credentials are used. Default: the only one with credentials.",
    )

    @model_validator(mode="after")
    def _names_one_thing(self) -> "ReportTargetBody":
        if self.issue is not None and self.pull_request is not None:
            raise ValueError("must have an `issue` or a `pullRequest`, not both")
        return self


class SubmittedReportBody(ReportBody):
    """The report of a submitted job to GitHub. Only administrators may request one.

    `repository`, with `issue` or the number of a pull request in `pullRequest`, is short for `target`.
    """

    target: ReportTargetBody

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "repository" not in value or "target" in value:
            return value
        names = {"repository", "issue", "source"} | (
            {"pullRequest"} if isinstance(value.get("pullRequest"), int) else set()
        )
        target = {name: field for name, field in value.items() if name in names}
        return {name: field for name, field in value.items() if name not in names} | {"target": target}


def report_of(body: ReportBody | None) -> Report | None:
    """Return the report in the engine's form."""
    if body is None:
        return None
    return msgspec.convert(body.model_dump(by_alias=True, exclude_unset=True, exclude_none=True), Report)


class ReportView(ResponseBody):
    """The report of a job to GitHub, as it was set. Values that are not set are absent."""

    comment: Literal["sticky", "perJob", "final", "none"] = optional(examples=["sticky"])
    check: dict[str, Any] = optional(examples=[{"name": "labrats/ai-reviewer"}])
    review: dict[str, Any] = optional(examples=[{"event": "COMMENT"}])
    pull_request: dict[str, Any] = optional(examples=[{"draft": False}])
    labels: dict[str, str] = optional(examples=[{"running": "ai-working"}])
    reactions: bool = optional()
    policy: dict[str, Any] = optional(examples=[{"maxFiles": 20}])
    mode: Literal["write", "preview"] = optional(examples=["write"])
    target: dict[str, Any] = optional(examples=[{"repository": "octocat/hello-world", "issue": 17}])


class PublishedView(ResponseBody):
    """The published parts of a job's report."""

    comment_url: str | None = Field(examples=["https://github.com/octocat/hello-world/issues/17#issuecomment-1"])
    check_url: str | None
    review_url: str | None
    pull_request_url: str | None = Field(examples=["https://github.com/octocat/hello-world/pull/18"])
    refused: list[str] = Field(description="Why other parts were not published, as sentences.", examples=[[]])
    is_complete: bool = Field(description="True once the report of the job's end is written.", examples=[True])

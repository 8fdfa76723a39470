"""One pass over the report of a job: each part is looked at, and written if it differs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, Final, Generic, TypeVar

import msgspec

from labrats.github.client.access import Access
from labrats.github.client.pause import LimitReached
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.publisher.checks import write_check
from labrats.github.publisher.comments import Comments
from labrats.github.publisher.creations import LISTED_AFTER, Creations
from labrats.github.publisher.labels import add_proposed_labels, write_labels, write_reaction
from labrats.github.publisher.pull_request import CommitsPublisher, PullRequest, Pushed, RunAgain, read_pull_request
from labrats.github.publisher.reviews import (
    Earlier,
    read_earlier,
    read_lines,
    resolve_outdated_threads,
    write_review,
)
from labrats.github.reports.check import seen_commit
from labrats.github.reports.reported_job import ReportedJob
from labrats.github.reports.review import Lines
from labrats.model.errors import RetryLater
from labrats.model.phases import Phase
from labrats.model.report import (
    CommentMode,
    CreatedObject,
    Published,
    PublishPolicy,
    Report,
    ReportTarget,
    ReviewEvent,
)
from labrats.ports import Clock

T = TypeVar("T")

_NO_BUNDLE: Final = "pull request: there are changes, but no commits that can be pushed; the job's log says why"
MOST_TRIES: Final = 3
"""Number of publishers that may be killed while they publish the commits of a job, by a lack of memory or disk."""

_TAKEN_BACK_SECONDS: Final = 2.0
"""Time to store that a try is not counted. The publisher may have to stop, and another one may begin."""

_CRASHED: Final = (
    f"pull request: the publisher ended {MOST_TRIES} times while it read the commits, so they are not pushed"
)
_OWN: Final = "GitHub accepts no verdict on one's own pull request, so the review is a comment"
_MOVED: Final = "review: the pull request has new commits, which the agent has not seen"
_REVIEWED_AGAIN: Final = f"{_MOVED}, so the job runs once more"


@dataclass(frozen=True)
class Part(Generic[T]):
    """A part of a report whose result has the type T. name: for people."""

    name: str


PULL_REQUEST: Final = Part[PullRequest]("pull request")
COMMITS: Final = Part[Pushed]("commits")
FILES: Final = Part[Lines]("files")
EARLIER_FINDINGS: Final = Part[Earlier]("earlier findings")
THREADS: Final = Part[None]("threads")
FURTHER_RUN: Final = Part[bool]("further run")
REVIEW: Final = Part[str | None]("review")
CHECK: Final = Part[str | None]("check")
CHECK_OF_COMMITS: Final = Part[str | None]("check of the commits")
PROPOSED_LABELS: Final = Part[tuple[str, ...]]("proposed labels")
LABELS: Final = Part[None]("labels")
REACTION: Final = Part[None]("reaction")
COMMENT: Final = Part[str | None]("comment")
ENDING: Final = Part[None]("ending")


class DoneParts:
    """The results of the parts of a report that are complete.

    new_branches: those that were created for the commits, also if the commits are not complete.
    """

    def __init__(self) -> None:
        self._results: dict[Part[Any], Any] = {}
        self.new_branches: set[str] = set()

    def __contains__(self, part: Part[Any]) -> bool:
        return part in self._results

    def result_of(self, part: Part[T]) -> T | None:
        """Return the result of a part; None if it is not complete."""
        return self._results.get(part)

    def add(self, part: Part[T], result: T) -> None:
        self._results[part] = result

    def forget(self, *parts: Part[Any]) -> None:
        """Let these parts be written again."""
        for part in parts:
            self._results.pop(part, None)


@dataclass
class ReportPass:
    """A pass. published: the state before it.

    record:     stores what is published so far.
    patch:      returns the start of the agent's changes as a patch, if it is retained.
    shared:     comments that other jobs of the thread have created, or may have: see Creations.
    run_again:  asks for one more run on the new head of the pull request, and returns whether there will be one.
    others_work: whether other jobs with the same labels have yet to end in the thread, and will write them.
    bundle:     the commits of the agent, if there are any.
    done:       the parts that earlier passes over the same state have completed.
    """

    access: Access
    report: Report
    target: ReportTarget
    reported: ReportedJob
    published: Published
    comments: Comments
    record: Callable[[Published], Awaitable[None]]
    patch: Callable[[], Awaitable[str | None]]
    clock: Clock
    run_again: RunAgain
    listed_after: timedelta = LISTED_AFTER
    shared: Mapping[str, CreatedObject] = field(default_factory=dict)
    others_work: bool = False
    bundle: bytes | None = None
    done: DoneParts = field(default_factory=DoneParts)
    _commit: str | None = None
    _head_sha: str | None = None
    _refused: list[str] = field(default_factory=list)
    _postponed: list[RetryLater] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)
    """The names of the parts that are postponed."""

    async def run(self) -> Published:
        """Write all parts, and return what is published.

        Raises RetryLater if a part cannot be written now, after the others are written and recorded. After a limit of
        GitHub nothing more is sent.
        """
        self._hide_secrets()
        if REVIEW not in self.done:  # a verdict is about the present head
            self.done.forget(PULL_REQUEST, FILES)
        found = await self._pull_request()
        # The commit stays the same for all passes: a check moves to no other commit, and no verdict is about one.
        self._head_sha = self.target.head_sha or self.published.head_sha or (found.head.sha if found else None)
        if self.reported.ignored:
            self._refused.append(f"publish.json: {self.reported.ignored}")
        succeeded = self.reported.job.phase is Phase.SUCCEEDED
        earlier = len(self._postponed)
        if succeeded:
            await self._publish_commits()
            self._hide_secrets()
        knows_commits = len(self._postponed) == earlier  # else the check and the labels, which depend on them, wait too
        review_url = await self._review(found) if succeeded and found else None
        self.reported = replace(self.reported, review_url=review_url or self.published.review_url)
        check_url = await self._check() if knows_commits else None
        if succeeded and knows_commits and not self.reported.pull_request_url:
            await self._add_proposed_labels()
        await self._show_state()
        comment_url = await self._comment()
        published = Published(
            comment_url=comment_url or self.published.comment_url,
            check_url=check_url or self.published.check_url,
            review_url=review_url or self.published.review_url,
            pull_request_url=self.reported.pull_request_url or self.published.pull_request_url,
            commit=self._commit or self.published.commit,
            head_sha=self._head_sha,
            refused=tuple(self._refused),
            secrets=self.published.secrets,
            objects=self.published.objects,
            repository_id=self.access.described.id or self.published.repository_id,
        )
        if self._postponed:
            before = self.published
            await self.record(
                msgspec.structs.replace(published, branch=before.branch, commit_tries=before.commit_tries)
            )
            raise max(self._postponed, key=lambda error: error.delay_seconds)
        return published

    async def _pull_request(self) -> PullRequest | None:
        number, report = self.target.pull_request, self.report
        is_needed = (report.review and report.review.enabled) or (report.check and report.check.enabled)
        if number is None or not is_needed:
            return None
        return await self._try(PULL_REQUEST, lambda: read_pull_request(self.access, number))

    async def _publish_commits(self) -> None:
        rules = self.report.pull_request
        if rules is None or not rules.enabled:
            return
        if self.bundle is None:
            outputs = self.reported.job.status.outputs
            if outputs.files_changed or outputs.commit:
                self._refused.append(_NO_BUNDLE)
                self.reported = replace(self.reported, patch=await self.patch())
            return
        if self.published.commit_tries >= MOST_TRIES:
            self._refused.append(_CRASHED)
            self.reported = replace(self.reported, patch=await self.patch())
            return
        postponed = len(self._postponed)
        branch, record = self.published.branch, self._record_parts
        publisher = CommitsPublisher(
            self.access,
            self.target,
            self.reported,
            rules,
            self._policy,
            branch,
            record,
            self._creations,
            self.done.new_branches,
            self.run_again,
        )
        if pushed := await self._try_commits(partial(publisher.publish, self.bundle)):
            self._refused += pushed.refused
            self._commit = pushed.commit
            url = pushed.url or self.reported.pull_request_url
            self.reported = replace(self.reported, pull_request_url=url, patch=pushed.patch, lost=pushed.lost)
            secrets = tuple(dict.fromkeys((*self.published.secrets, *pushed.secrets)))
            commit = self._commit or self.published.commit
            await self._record_parts(pull_request_url=url, commit=commit, secrets=secrets)
            if pushed.holds_secrets or pushed.lost:
                return
        if len(self._postponed) == postponed and not (self.reported.pull_request_url or self.reported.patch):
            self.reported = replace(self.reported, patch=await self.patch())

    def _hide_secrets(self) -> None:
        self.reported = self.reported.without(self.published.secrets)

    @cached_property
    def _creations(self) -> Creations:
        return Creations(
            self.clock, lambda: self.published.objects, self._record_object, self.shared, self.listed_after
        )

    async def _record_object(self, name: str, created: CreatedObject | None) -> None:
        others = {each: stored for each, stored in self.published.objects.items() if each != name}
        await self._record_parts(objects=others | ({name: created} if created else {}))

    async def _record_parts(self, **parts: Any) -> None:
        """Store parts of the report before the others are written. parts: fields of Published.

        After a kill, the next publisher recognises by them what is the engine's.
        """
        repository_id = self.access.described.id or self.published.repository_id
        published = msgspec.structs.replace(
            self.published, **parts, head_sha=self._head_sha, repository_id=repository_id
        )
        if published != self.published:
            self.published = published
            await self.record(published)

    async def _try_commits(self, publish: Callable[[], Awaitable[Pushed]]) -> Pushed | None:
        """Publish the commits. A try is counted while it lasts, so that only a publisher that is killed leaves it."""
        if COMMITS in self.done or self._is_limited:
            return await self._try(COMMITS, publish)
        tries = self.published.commit_tries
        self.published = msgspec.structs.replace(self.published, commit_tries=tries + 1)
        await self.record(self.published)
        try:
            pushed = await self._try(COMMITS, publish)
        except (asyncio.CancelledError, Exception):
            with suppress(Exception):  # the first error counts
                async with asyncio.timeout(_TAKEN_BACK_SECONDS):
                    await self.record(msgspec.structs.replace(self.published, commit_tries=tries))
            raise
        self.published = msgspec.structs.replace(self.published, commit_tries=0)
        return pushed

    @property
    def _is_limited(self) -> bool:
        """True once a limit of GitHub is used up, so that this pass sends nothing more."""
        return any(isinstance(error, LimitReached) for error in self._postponed)

    async def _review(self, pull_request: PullRequest) -> str | None:
        rules = self.report.review
        if rules is None or not rules.enabled:
            return None
        if (url := self.done.result_of(REVIEW)) is not None:
            return url
        self.done.forget(EARLIER_FINDINGS)  # a review whose answer was lost is among the earlier ones
        head = pull_request.head.sha
        if seen_commit(self.reported.job, self._head_sha or head) != head:
            self._refused.append(_REVIEWED_AGAIN if await self._runs_again(pull_request) else _MOVED)
            return None
        if rules.event is not ReviewEvent.COMMENT and self.access.identity.wrote(pull_request):
            self._refused.append(f"{rules.event}: {_OWN}")
            rules = msgspec.structs.replace(rules, event=ReviewEvent.COMMENT)
        access, reported = self.access, self.reported
        lines = await self._try(FILES, partial(read_lines, access, pull_request))
        earlier = await self._try(EARLIER_FINDINGS, partial(read_earlier, access, pull_request, reported.agent))
        if lines is None or earlier is None:
            return None
        await self._try(THREADS, partial(resolve_outdated_threads, access, reported, lines, earlier))
        return await self._try(
            REVIEW, partial(write_review, access, self._creations, pull_request, reported, rules, lines, earlier)
        )

    async def _runs_again(self, pull_request: PullRequest) -> bool:
        """Return whether the job runs once more. One that has pushed commits would push them again."""
        if self._commit or self.published.commit:
            return False
        return await self._try(FURTHER_RUN, partial(self.run_again, pull_request)) or False

    async def _check(self) -> str | None:
        """Write the check on the commit that the job is about, and on the last one that it has made."""
        rules = self.report.check
        if rules is None or not rules.enabled:
            return None
        own, url = self._commit or self.published.commit, None
        if commit := self._head_sha:
            about = replace(self.reported, head_sha=commit)
            url = await self._try(CHECK, partial(write_check, self.access, self._creations, commit, about))
        if own and own != commit:
            write = partial(write_check, self.access, self._creations, own, self.reported)
            url = await self._try(CHECK_OF_COMMITS, write) or url
        return url

    async def _add_proposed_labels(self) -> None:
        number = self.target.number
        if number is not None and self.report.comment not in (None, CommentMode.NONE):
            add = partial(add_proposed_labels, self.access, self.target, number, self.reported, self._policy)
            if refused := await self._try(PROPOSED_LABELS, add):
                self._refused += refused

    @property
    def _policy(self) -> PublishPolicy:
        return self.report.policy or PublishPolicy()

    async def _show_state(self) -> None:
        if labels := self.report.labels:
            phase = Phase.RUNNING if self.others_work else self.reported.job.phase
            await self._try(LABELS, lambda: write_labels(self.access, self.target, labels, phase))
        if self.report.reactions:
            await self._try(REACTION, lambda: write_reaction(self.access, self.target, self.reported))

    async def _comment(self) -> str | None:
        waiting = tuple(self._waiting) if self.reported.job.ended else ()
        reported = replace(self.reported, refused=tuple(self._refused), waiting=waiting)
        self.done.forget(COMMENT)  # it depends on all other parts
        access, creations, comments = self.access, self._creations, self.comments
        url = await self._try(COMMENT, lambda: comments.write(access, creations, self.target, reported))
        if url and self.reported.job.ended and not self._postponed:
            await self._try(ENDING, lambda: comments.write_ending(access, creations, self.target, reported, url))
        return url

    async def _try(self, part: Part[T], write: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of a part; None if GitHub refuses it or cannot take it now. The others continue."""
        if part in self.done:
            return self.done.result_of(part)
        if self._is_limited:
            self._postpone(part, RetryLater("GitHub has a limit, which is used up"))
            return None
        try:
            result = await write()
        except RefusedByGitHub as error:
            self._refused.append(f"{part.name}: {error}")
        except RetryLater as error:
            self._postpone(part, error)
        else:
            self.done.add(part, result)
            return result
        return None

    def _postpone(self, part: Part[Any], error: RetryLater) -> None:
        self._postponed.append(error)
        self._waiting.append(part.name)

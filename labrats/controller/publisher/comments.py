"""Write the comment of a job: one, however often the engine is killed in between."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import msgspec

from labrats.controller.publisher.access import Access, Authored
from labrats.model.phases import ENDED
from labrats.model.report import CommentMode, ReportTarget
from labrats.net.github_repository import RefusedByGitHub
from labrats.reports.comment import comment_body, comment_key, ending_body, ending_key, marker_of
from labrats.reports.reported_job import ReportedJob

_MOST_KNOWN: Final = 2_000
_GONE: Final = frozenset({404, 410})


class Comment(Authored, frozen=True, kw_only=True):
    """A comment on an issue or pull request."""

    id: int
    html_url: str
    body: str | None = None


@dataclass
class Comments:
    """The comments that this process has read or written, by repository, number and key: the latest ones."""

    _known: OrderedDict[tuple[str, int, str], Comment] = field(default_factory=OrderedDict)

    def forget(self, target: ReportTarget) -> None:
        """Read the comments of a thread again before they are written: a person may have deleted one."""
        for place in [each for each in self._known if each[:2] == (target.repository, target.number)]:
            del self._known[place]

    async def write(self, access: Access, target: ReportTarget, reported: ReportedJob) -> str | None:
        """Bring the comment of the job up to date, and return its URL; None if it has none yet.

        Raises RefusedByGitHub, RetryLater.
        """
        report, number = reported.job.spec.report, target.number
        if number is None or report is None or report.comment in (None, CommentMode.NONE):
            return None
        if report.comment is CommentMode.FINAL and reported.job.phase not in ENDED:
            return None
        key = comment_key(reported)
        place = (target.repository, number, key)
        present = self._known.get(place) or await _find(access, target, number, key)
        try:
            written = await _write(access, target, number, reported, present)
        except RefusedByGitHub as error:
            self._known.pop(place, None)
            if present is None or error.status not in _GONE:
                raise
            if (found := await _find(access, target, number, key)) and found.id == present.id:
                await access.repository.doubt(f"comment {found.id}", access.commenting(target), error)
                raise
            written = await _write(access, target, number, reported, found)  # a person has deleted the comment
        self._known[place] = written
        self._known.move_to_end(place)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return written.html_url

    async def write_ending(self, access: Access, target: ReportTarget, reported: ReportedJob, comment_url: str) -> None:
        """Tell the person whose comment started the job that it has ended: an edit of a comment notifies nobody.

        comment_url: of the sticky comment. Raises RefusedByGitHub, RetryLater.
        """
        report, number = reported.job.spec.report, target.number
        if number is None or target.comment is None or report is None or report.comment is CommentMode.FINAL:
            return
        if await _find(access, target, number, ending_key(reported)) is None:
            body = {"body": ending_body(reported, comment_url)}
            await access.repository.post(f"/issues/{number}/comments", body, Comment, access.commenting(target))


async def _find(access: Access, target: ReportTarget, number: int, key: str) -> Comment | None:
    """Return the comment with the key that our account wrote; None if there is none."""
    permissions = access.commenting(target)
    async for page in access.repository.pages(f"/issues/{number}/comments", list[Comment], permissions):
        for comment in page:
            marker = marker_of(comment.body or "")
            if marker and marker.key == key and access.identity.wrote(comment):
                return comment
    return None


async def _write(
    access: Access, target: ReportTarget, number: int, reported: ReportedJob, present: Comment | None
) -> Comment:
    body = comment_body(reported, (present.body if present else None) or "")
    permissions = access.commenting(target)
    if present is None:
        path = f"/issues/{number}/comments"
        return await access.repository.post(path, {"body": body}, Comment, permissions)
    if body == present.body:
        return present
    path = f"/issues/comments/{present.id}"
    changed = await access.repository.patch(path, {"body": body}, Comment, permissions, absent_is_final=True)
    return msgspec.structs.replace(changed, body=body)

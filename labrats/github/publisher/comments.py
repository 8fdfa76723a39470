"""Write the comment of a job: one, however often the engine is killed in between."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import msgspec

from labrats.github.client.access import Access, Authored
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.publisher.creations import Creations
from labrats.github.reports.comment import comment_body, comment_key, ending_body, ending_key, marker_of
from labrats.github.reports.reported_job import ReportedJob
from labrats.model.phases import ENDED
from labrats.model.report import CommentMode, ReportTarget

COMMENT_NAME: Final = "comment of "
"""The start of the names of comments among the created objects."""

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

    async def write(
        self, access: Access, creations: Creations, target: ReportTarget, reported: ReportedJob
    ) -> str | None:
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
        present = self._known.get(place) or await _present(access, creations, target, number, key)
        try:
            written = await _write(access, creations, target, number, reported, present)
        except RefusedByGitHub as error:
            self._known.pop(place, None)
            if present is None or error.status not in _GONE:
                raise
            creations.require_certainty(name_of(key))
            if (found := await _find(access, target, number, key)) and found.id == present.id:
                await access.repository.doubt(f"comment {found.id}", access.commenting(target), error)
                raise
            written = await _write(
                access, creations, target, number, reported, found
            )  # a person has deleted the comment
        self._known[place] = written
        self._known.move_to_end(place)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return written.html_url

    async def write_ending(
        self, access: Access, creations: Creations, target: ReportTarget, reported: ReportedJob, comment_url: str
    ) -> None:
        """Tell the person whose comment started the job that it has ended: an edit of a comment notifies nobody.

        comment_url: of the sticky comment. Raises RefusedByGitHub, RetryLater.
        """
        report, number = reported.job.spec.report, target.number
        if number is None or target.comment is None or report is None or report.comment is CommentMode.FINAL:
            return
        key = ending_key(reported)
        if creations.id_of(name_of(key)) is None and await _find(access, target, number, key) is None:
            await _create(access, creations, target, number, key, ending_body(reported, comment_url))


def name_of(key: str) -> str:
    """Return the name of a comment with this key among the created objects."""
    return f"{COMMENT_NAME}{key}"


async def _present(access: Access, creations: Creations, target: ReportTarget, number: int, key: str) -> Comment | None:
    """Return the comment with the stored id, or with the key; None if there is none."""
    if (comment_id := creations.id_of(name_of(key))) is not None:
        path, permissions = f"/issues/comments/{comment_id}", access.commenting(target)
        try:
            return await access.repository.get(path, Comment, permissions, absent_is_final=True)
        except RefusedByGitHub as error:
            if error.status not in _GONE:
                raise
            creations.require_certainty(name_of(key))
    return await _find(access, target, number, key)  # without the stored one, a person has deleted it


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
    access: Access,
    creations: Creations,
    target: ReportTarget,
    number: int,
    reported: ReportedJob,
    present: Comment | None,
) -> Comment:
    body = comment_body(reported, (present.body if present else None) or "")
    permissions = access.commenting(target)
    if present is None:
        return await _create(access, creations, target, number, comment_key(reported), body)
    if body == present.body:
        return present
    path = f"/issues/comments/{present.id}"
    changed = await access.repository.patch(path, {"body": body}, Comment, permissions, absent_is_final=True)
    return msgspec.structs.replace(changed, body=body)


async def _create(
    access: Access, creations: Creations, target: ReportTarget, number: int, key: str, body: str
) -> Comment:
    path, permissions, post = f"/issues/{number}/comments", access.commenting(target), access.repository.post
    return await creations.create(
        name_of(key), lambda: post(path, {"body": body}, Comment, permissions), lambda comment: comment.id
    )

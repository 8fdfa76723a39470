"""Requests that come from a thread on GitHub, an issue or pull request, instead of from a caller of the API."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from labrats.model.record import Record
from labrats.model.report import ReportTarget

MOST_OPEN: Final = 100
"""Requests of one source that may be open at a time."""

MOST_UNTRUSTED: Final = 50
MOST_UNTRUSTED_OF_THREAD: Final = 10
"""Open requests of external contributors, in all and in one thread. A reply waits while a job of its thread runs."""

ANSWERED_KEPT: Final = 200
"""Ids of answered requests that a source keeps, so that a redelivered comment is not carried out again."""

REQUEST_ANNOTATION: Final = "labrats.work/thread-request"
"""Annotation on a job that a request has started: the uid of the source, and the id of the request."""


class ThreadAction(StrEnum):
    """The wish of a request. HELP asks for the list of commands, REPLY for a follow-up, REPAIR for checks.

    MENTION asks for a follow-up where a job made the pull request, and for an agent elsewhere.
    RERUN is a wish of the publisher: one more run of a job on the new head of its pull request.
    """

    CANCEL = "cancel"
    RETRY = "retry"
    PUBLISH = "publish"
    RUN = "run"
    HELP = "help"
    REPLY = "reply"
    MENTION = "mention"
    REPAIR = "repair"
    RERUN = "rerun"


class ThreadAnswer(Record):
    """The answer to a request: a reaction by GitHub's name of it, the text of a comment, a label, or nothing.

    key: the key by which the comment is found again, so that requests with one key have one comment. By default, the id
         of the request.
    attempted_at: time of the latest attempt to write the comment, which GitHub's lists may not show yet.
    """

    reaction: str | None = None
    text: str | None = None
    label: str | None = None
    key: str | None = None
    attempted_at: datetime | None = None


NOTHING: Final = ThreadAnswer()
"""The answer to a request that does not concern the engine."""


class ThreadRequest(Record):
    """A request from a thread.

    id:        of the request, from the id of its comment.
    event:     name of the event that brought it.
    target:    the thread, with the comment. url: of the thread's page.
    review:    id of the review on GitHub that is the reply.
    agent:     `triggerName` of the agent that is named, if any. model: that is named, if any.
    untrusted: true if an external contributor asks. It concerns only jobs of external contributors.
    job:       id of the one job that it names, if any.
    jobs:      ids of the jobs that it concerns, stored before any of them changes. attempts: of the one to retry.
    answer:    set once the request is carried out.
    """

    id: str
    action: ThreadAction
    event: str
    target: ReportTarget
    received_at: datetime
    url: str | None = None
    agent: str | None = None
    model: str | None = None
    review: int | None = None
    untrusted: bool = False
    job: str | None = None
    jobs: tuple[str, ...] = ()
    attempts: int = 0
    answer: ThreadAnswer | None = None

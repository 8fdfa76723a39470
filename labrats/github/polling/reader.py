"""Reading the events of one repository.

One conditional request asks whether an issue or pull request has changed: comments, labels, reviews and pushes all
change the time of its last update. The other lists are read only then. Checks change nothing, so they are read for the
open pull requests of the engine alone, and only for agents that listen to checks.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from labrats.github.client.repository import Permissions, Repository
from labrats.github.polling.events import (
    ACTIONS,
    Json,
    PolledEvent,
    changed,
    check_ended,
    commented,
    opened,
    pushed,
    review_commented,
    reviewed,
    time_of,
)

READ: Final[Permissions] = {"issues": "read", "pull_requests": "read"}
READ_CHECKS: Final[Permissions] = {"checks": "read"}
READ_CONTENTS: Final[Permissions] = {"contents": "read"}

OVERLAP: Final = timedelta(minutes=2)
"""Time for which an event is looked for again: GitHub's lists show what has happened with a delay."""

LONGEST_STOP: Final = timedelta(hours=24)
"""Age up to which events are read after a stop."""

_CHECKS: Final = frozenset({"check_run", "check_suite", "workflow_run"})


@dataclass(frozen=True)
class Reading:
    """The events since `start`, in order. at: the time of the reading, by GitHub's clock. skipped: too old ones.

    remaining: requests that are left in this hour; None if GitHub does not say. wait_seconds: least time to the next.
    """

    at: datetime
    start: datetime
    events: list[PolledEvent] = field(default_factory=list)
    skipped: int = 0
    remaining: int | None = None
    wait_seconds: float = 0


@dataclass
class RepositoryReader:
    """Reads one repository. Validators (ETags) are kept in memory: after a restart each list is read once."""

    repository: Repository
    _etags: dict[str, str] = field(default_factory=dict)
    _pulls: list[Json] = field(default_factory=list)

    async def read(self, since: datetime | None, age: timedelta, wanted: Collection[str], login: str | None) -> Reading:
        """Return the events since a time by GitHub's clock. Raises RefusedByGitHub, RetryLater.

        since:  None for the first reading, which begins at the creation of the source, `age` ago.
        wanted: names of GitHub's events to which agents listen. login: of the engine, for checks.
        """
        first = await self.repository.read_changed(
            "/issues", READ, self._etags.get(""), state="all", sort="updated", direction="desc", per_page=100
        )
        start = since or first.at - age
        limit = first.at - LONGEST_STOP
        found: list[PolledEvent] = []
        if first.items is not None:
            items = [each async for each in self._recent(first.items, "/issues", "updated_at", start, state="all",
                                                         sort="updated", direction="desc")]  # fmt: skip
            if items:
                found += await self._events_of(items, start, wanted)
            newest = time_of(items[0], "updated_at") if items else None
            is_settled = newest is None or newest < first.at - OVERLAP
            self._etags[""] = first.etag if is_settled else ""
        if not _CHECKS.isdisjoint(wanted) and login:
            found += await self._checks(start, login)
        events = sorted(found, key=lambda each: each.at)
        kept = [each for each in events if each.at >= limit]
        return Reading(first.at, start, kept, len(events) - len(kept), first.remaining, first.wait_seconds)

    async def _recent(
        self, page: Sequence[Json], path: str, time: str, start: datetime, **query: str
    ) -> AsyncIterator[Json]:
        """Yield the objects of a list since a time, newest first. page: the first one, which was read already."""
        number = 1
        while True:
            for item in page:
                at = time_of(item, time)
                if at is not None and at < start:
                    return
                yield item
            if len(page) < 100 or number == 30:
                return
            number += 1
            page = await self._page(path, READ, page=number, **query)

    async def _list(self, path: str, time: str, start: datetime, **query: str) -> list[Json]:
        """Return the objects of a list, newest first, since a time."""
        first = await self._page(path, READ, **query)
        return [each async for each in self._recent(first, path, time, start, **query)]

    async def _page(self, path: str, permissions: Permissions, **query: str | int) -> Sequence[Json]:
        kind = list[dict[str, Any]]
        return await self.repository.get(path, kind, permissions, absent_is_final=False, per_page=100, **query)

    async def _object(self, path: str) -> Json:
        return await self.repository.get(path, dict[str, Any], READ)

    async def _events_of(self, items: list[Json], start: datetime, wanted: Collection[str]) -> list[PolledEvent]:
        """Return the events of the issues and pull requests that have changed since `start`."""
        repository = await self._object("")
        issues = {each["number"]: each for each in items}
        pulls = {n: await self._object(f"/pulls/{n}") for n, each in issues.items() if each.get("pull_request")}
        found: list[PolledEvent] = []
        for number, issue in issues.items():
            subject, kind = (pulls[number], "pull_request") if number in pulls else (issue, "issue")
            if (at := time_of(subject, "created_at")) and at >= start:
                found.append(PolledEvent(at, opened(repository, subject, kind)))
        found += await self._actions(repository, issues, pulls, start)
        found += await self._comments(repository, issues, start)
        found += await self._reviews(repository, pulls, start)
        if "pull_request_review_comment" in wanted and pulls:
            found += await self._review_comments(repository, pulls, start)
        if "pull_request" in wanted:
            found += await self._pushes(repository, pulls, start)
        return found

    async def _actions(
        self, repository: Json, issues: dict[int, Json], pulls: dict[int, Json], start: datetime
    ) -> list[PolledEvent]:
        """Return labels, closes and other actions. One without an actor, whose account was deleted, is left out."""
        found = []
        for each in await self._list("/issues/events", "created_at", start):
            at, issue = time_of(each, "created_at"), each.get("issue")
            if at is None or issue is None or each.get("event") not in ACTIONS or not each.get("actor"):
                continue
            number = issue["number"]
            if issue.get("pull_request"):
                pull = pulls.get(number) or await self._object(f"/pulls/{number}")
                found.append(PolledEvent(at, changed(repository, pull, "pull_request", each), each["id"]))
            else:
                subject: Json = issues.get(number) or issue
                found.append(PolledEvent(at, changed(repository, subject, "issue", each), each["id"]))
        return found

    async def _comments(self, repository: Json, issues: dict[int, Json], start: datetime) -> list[PolledEvent]:
        found = []
        for comment in await self._list("/issues/comments", "created_at", start, sort="created", direction="desc"):
            number = _number_in(comment.get("issue_url"))
            if (at := time_of(comment, "created_at")) is None or number is None:
                continue
            issue = issues.get(number) or await self._object(f"/issues/{number}")
            found.append(PolledEvent(at, commented(repository, issue, comment)))
        return found

    async def _reviews(self, repository: Json, pulls: dict[int, Json], start: datetime) -> list[PolledEvent]:
        found = []
        for number, pull in pulls.items():
            async for page in self.repository.pages(f"/pulls/{number}/reviews", list[dict[str, Any]], READ):
                found += [
                    PolledEvent(at, reviewed(repository, pull, review))
                    for review in page
                    if (at := time_of(review, "submitted_at")) and at >= start
                ]
        return found

    async def _review_comments(self, repository: Json, pulls: dict[int, Json], start: datetime) -> list[PolledEvent]:
        found = []
        for comment in await self._list("/pulls/comments", "created_at", start, sort="created", direction="desc"):
            number = _number_in(comment.get("pull_request_url"))
            if (at := time_of(comment, "created_at")) and number is not None:
                pull = pulls.get(number) or await self._object(f"/pulls/{number}")
                found.append(PolledEvent(at, review_commented(repository, pull, comment)))
        return found

    async def _pushes(self, repository: Json, pulls: dict[int, Json], start: datetime) -> list[PolledEvent]:
        """Return the pushes to open pull requests, whose branches are in the repository itself.

        GitHub does not say who has pushed to a fork.
        """
        own = {
            f"refs/heads/{pull['head']['ref']}": pull
            for pull in pulls.values()
            if pull.get("state") == "open" and (pull["head"].get("repo") or {}).get("id") == repository.get("id")
        }
        if not own:
            return []
        found = []
        for each in await self._page("/activity", READ_CONTENTS, time_period="day"):
            at, pull = time_of(each, "timestamp"), own.get(each.get("ref", ""))
            is_push = each.get("activity_type") in ("push", "force_push")
            if at is not None and at >= start and is_push and pull and each.get("actor"):
                found.append(PolledEvent(at, pushed(repository, pull, each)))
        return found

    async def _checks(self, start: datetime, login: str) -> list[PolledEvent]:
        """Return the checks that have ended for the heads of the engine's open pull requests."""
        pulls = await self.repository.read_changed(
            "/pulls", READ, self._etags.get("/pulls"), state="open", sort="updated", direction="desc", per_page=100
        )
        if pulls.items is not None:
            self._pulls = [each for each in pulls.items if _login(each) == login.lower()]
            self._etags["/pulls"] = pulls.etag
        found: list[PolledEvent] = []
        repository: Json | None = None
        heads = set()
        for pull in self._pulls:
            path = f"/commits/{pull['head']['sha']}/check-runs"
            heads.add(path)
            runs = await self.repository.read_changed(
                path, READ_CHECKS, self._etags.get(path), "check_runs", status="completed", per_page=100
            )
            for run in runs.items or ():
                if (at := time_of(run, "completed_at")) and at >= start:
                    repository = repository or await self._object("")
                    found.append(PolledEvent(at, check_ended(repository, pull, run)))
            if runs.items is not None:
                self._etags[path] = runs.etag
        self._etags = {path: etag for path, etag in self._etags.items() if path in {"", "/pulls", *heads}}
        return found


def _login(item: Json) -> str:
    return str((item.get("user") or {}).get("login", "")).lower()


def _number_in(url: Any) -> int | None:
    """Return the number at the end of the address of an issue or pull request."""
    number = str(url).rpartition("/")[2]
    return int(number) if number.isdecimal() else None

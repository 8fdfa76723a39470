"""The table of operations, and what their handlers have in common."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from tests.support.github.access import Access
from tests.support.github.calls import Call, Json
from tests.support.github.errors import ApiError, not_found
from tests.support.github.hook import Hook
from tests.support.github.state import Issue, Pull, Repository

Answer = tuple[int, Any]


@dataclass
class World:
    """Everything that the API shows. url: of the stand-in. signs_commits: of the commits that the API creates.

    moved:       ids of renamed repositories by their former names.
    lag_seconds: age below which lists lack a check run, comment, review or pull request.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    access: Access = field(default_factory=Access)
    hook: Hook = field(default_factory=Hook)
    last_id: int = 5000
    signs_commits: bool = True
    moved: dict[str, int] = field(default_factory=dict)
    lag_seconds: float = 0
    _created: dict[int, float] = field(default_factory=dict)

    def new_id(self) -> int:
        self.last_id += 1
        self._created[self.last_id] = time.monotonic()
        return self.last_id

    def with_id(self, repository_id: int) -> Repository | None:
        return next((each for each in self.repositories.values() if each.id == repository_id), None)

    def now_at(self, name: str) -> Repository | None:
        """Return the repository that had this name, unless another one has it now."""
        return None if name in self.repositories else self.with_id(self.moved.get(name, 0))

    def listed(self, objects: Iterable[Json]) -> list[Json]:
        """Return the objects that lists show by now."""
        return [each for each in objects if self.is_old(self._created.get(each["id"], 0))]

    def is_old(self, created: float) -> bool:
        """Return whether lists show an object. created: monotonic, in seconds."""
        return time.monotonic() - created >= self.lag_seconds

    def repository_of(self, call: Call) -> Repository:
        """Return the repository in a path, if the caller may know of it."""
        repository = self.repositories.get(call.repository)
        if repository is None or not (
            call.actor.reaches(repository.name) or (call.actor.kind == "nobody" and not repository.private)
        ):
            raise not_found()
        return repository

    def issue_of(self, call: Call, parameter: str = "issue_number") -> Issue:
        repository = self.repository_of(call)
        issue = repository.issues.get(int(call.values[parameter]))
        if issue is None:
            raise not_found()
        if issue.deleted:
            raise ApiError(410, "This issue was deleted")
        if not repository.has_issues and not issue.pull:
            raise ApiError(410, "Issues are disabled for this repo")
        return issue

    def pull_of(self, call: Call) -> tuple[Issue, Pull]:
        issue = self.issue_of(call, "pull_number")
        if (pull := issue.repository.refresh(issue)) is None:
            raise not_found()
        return issue, pull


Handler = Callable[[World, Call], Answer]


@dataclass(frozen=True)
class Route:
    """A handler and the permissions of which a caller must have one. actors: kinds of callers that may call it."""

    handler: Handler
    permissions: Sequence[str]
    actors: Sequence[str]

    def answer(self, world: World, call: Call) -> Answer:
        if call.actor.kind not in self.actors:
            raise _refusal(call, self.actors)
        if self.permissions and not any(call.actor.may(each) for each in self.permissions):
            world.repository_of(call)
            raise forbidden(call)
        return self.handler(world, call)


ROUTES: Final[dict[str, Route]] = {}


def route(
    operation: str, *permissions: str, actors: Sequence[str] = ("installation", "person")
) -> Callable[[Handler], Handler]:
    """Register the handler of an operation. permissions: such as `issues:write`; one of them is enough."""

    def register(handler: Handler) -> Handler:
        ROUTES[operation] = Route(handler, permissions, actors)
        return handler

    return register


def _refusal(call: Call, actors: Sequence[str]) -> ApiError:
    if call.actor.kind == "nobody":
        return not_found() if call.repository else ApiError(401, "Requires authentication")
    if tuple(actors) == ("app",):
        return ApiError(401, "A JSON web token could not be decoded")
    if call.actor.kind == "person":
        return ApiError(403, "You must authenticate via a GitHub App.")
    return forbidden(call)


def forbidden(call: Call) -> ApiError:
    kind = "personal access token" if call.actor.kind == "person" else "integration"
    return ApiError(403, f"Resource not accessible by {kind}")


def page(call: Call, items: Sequence[Any], wrapped_in: str = "") -> Answer:
    """Answer one page of a list, with the links to the others. wrapped_in: the field of an object that has the list."""
    size, number = int(call.query.get("per_page", 30)), int(call.query.get("page", 1))
    if size > 100:
        size = 100
    last = max(1, -(-len(items) // size))
    others = {"next": number + 1, "last": last} if number < last else {}
    others |= {"prev": number - 1, "first": 1} if number > 1 else {}
    if others:
        call.headers["Link"] = ", ".join(f'<{_link(call, other)}>; rel="{name}"' for name, other in others.items())
    shown = list(items[(number - 1) * size : number * size])
    return 200, {"total_count": len(items), wrapped_in: shown} if wrapped_in else shown


def _link(call: Call, number: int) -> str:
    return f"{call.base_url}{call.path}?{urlencode({**call.query, 'page': number})}"


def updated(item: Json, body: Json, *fields: str) -> Json:
    item.update({name: body[name] for name in fields if name in body})
    return item

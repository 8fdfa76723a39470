"""Repositories, issues and pull requests of the stand-in, and their form in answers."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.support.github.access import APP
from tests.support.github.calls import Actor, Json
from tests.support.github.errors import ApiError
from tests.support.github.git import BareRepository

OCTO = Actor("person", "octo", 1)
"""The owner of everything that no request has created."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Pull:
    """The part of an issue that only a pull request has.

    head, base: names of branches.   source: the repository that has the head.
    resolved:   who has resolved threads, by the id of their first comment.
    """

    head: str
    base: str
    source: "Repository"
    draft: bool = False
    head_sha: str = ""
    merged: bool = False
    reviews: list[Json] = field(default_factory=list)
    comments: list[Json] = field(default_factory=list)
    reviewers: list[str] = field(default_factory=list)
    resolved: dict[int, Json] = field(default_factory=dict)


@dataclass
class Issue:
    """An issue, or with `pull` a pull request.

    locked:  refuses comments and reactions.   deleted: answers 410, as an issue that its repository's admin deleted.
    created: monotonic, in seconds.
    """

    repository: "Repository"
    number: int
    title: str
    body: str | None = None
    user: Json = field(default_factory=lambda: OCTO.user)
    state: str = "open"
    locked: bool = False
    deleted: bool = False
    pull: Pull | None = None
    labels: list[str] = field(default_factory=list)
    reactions: list[Json] = field(default_factory=list)
    comments: list[Json] = field(default_factory=list)
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)
    created: float = field(default_factory=time.monotonic)

    @property
    def url(self) -> str:
        return f"{self.repository.url}/{'pull' if self.pull else 'issues'}/{self.number}"

    @property
    def id(self) -> int:
        return 1000 + self.number

    def touch(self, at: str | None = None) -> None:
        """Show a change of the issue, as each comment, label, review and push does."""
        self.updated_at = max(self.updated_at, at or now())

    def happen(self, event: str, user: Actor = OCTO, **details: Any) -> Json:
        """Record an event of the issue, and return it."""
        self.touch()
        item: Json = {"id": self.repository.new_id(), "event": event, "actor": user.user, "created_at": now()}
        self.repository.events.append(item | {"issue": self.as_json(), **details})
        return self.repository.events[-1]

    def add_label(self, name: str, user: Actor = OCTO) -> None:
        if name not in self.labels:
            self.labels.append(name)
            self.happen("labeled", user, label={"name": name, "color": "ededed"})

    def remove_label(self, name: str, user: Actor = OCTO) -> None:
        self.labels.remove(name)
        self.happen("unlabeled", user, label={"name": name, "color": "ededed"})

    def refuse_when_locked(self) -> None:
        if self.locked:
            raise ApiError(403, "Unable to create comment because issue is locked.")

    def as_json(self) -> Json:
        shown = self._common()
        if self.pull:
            shown["pull_request"] = {"html_url": self.url}
        return shown | {"comments": len(self.comments), "labels": [self.repository.label(name) for name in self.labels]}

    def pull_json(self, pull: Pull) -> Json:
        return self._common() | {
            "draft": pull.draft,
            "merged": pull.merged,
            "merged_at": now() if pull.merged else None,
            "labels": [self.repository.label(name) for name in self.labels],
            "requested_reviewers": [{"login": login} for login in pull.reviewers],
            "head": pull.source.end(pull.head, pull.head_sha),
            "base": self.repository.end(pull.base, self.repository.git.resolve(f"refs/heads/{pull.base}") or ""),
        }

    def _common(self) -> Json:
        return {
            "id": self.id,
            "node_id": f"{'PR' if self.pull else 'I'}_{self.repository.id}_{self.number}",
            "number": self.number,
            "title": self.title,
            "body": self.body,
            "state": self.state,
            "locked": self.locked,
            "user": self.user,
            "author_association": "OWNER" if self.user.get("id") == OCTO.user_id else "NONE",
            "html_url": self.url,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }


@dataclass
class Repository:
    """A repository with its issues, checks and git data.

    url:            of its page.   new_id: returns an id that nothing has.
    collaborators:  logins that may be asked for a review.
    events:         of issues.   activity: pushes, as `push` records them.
    logs:           of the jobs of GitHub Actions, by the id of their check run.
    has_issues:     False: its issues are turned off.
    scopes:         of the classic tokens that ask for it; None: they are fine-grained.
    """

    id: int
    name: str
    url: str
    git: BareRepository
    new_id: Callable[[], int]
    private: bool = True
    fork_of: "Repository | None" = None
    has_issues: bool = True
    homepage: str | None = None
    archived: bool = False
    scopes: str | None = None
    collaborators: set[str] = field(default_factory=lambda: {"octo", "reviewer"})
    labels: dict[str, Json] = field(default_factory=dict)
    issues: dict[int, Issue] = field(default_factory=dict)
    check_runs: dict[int, Json] = field(default_factory=dict)
    check_suites: dict[int, Json] = field(default_factory=dict)
    annotations: dict[int, list[Json]] = field(default_factory=dict)
    statuses: dict[str, list[Json]] = field(default_factory=dict)
    logs: dict[int, str] = field(default_factory=dict)
    comment_reactions: dict[int, list[Json]] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    activity: list[Json] = field(default_factory=list)

    @property
    def owner(self) -> str:
        return self.name.partition("/")[0]

    @property
    def clone_url(self) -> str:
        return f"{self.url}.git"

    def rename_branch(self, old: str, new: str) -> None:
        """Rename a branch, which stays the default one if it was. Pull requests follow."""
        self.git.git("branch", "-m", old, new)
        for issue in self.issues.values():
            if issue.pull and issue.pull.base == old:
                issue.pull.base = new

    def open_issue(self, title: str = "It crashes", body: str | None = "When I start it.", user: Actor = OCTO) -> Issue:
        issue = Issue(self, max(self.issues, default=0) + 1, title, body, user.user)
        self.issues[issue.number] = issue
        return issue

    def open_pull(
        self,
        head: str,
        base: str = "main",
        title: str = "Fix it",
        user: Actor = OCTO,
        source: "Repository | None" = None,
        draft: bool = False,
    ) -> Issue:
        """Open a pull request. source: the fork that has its head."""
        issue = self.open_issue(title, "It was broken.", user)
        issue.pull = Pull(head, base, source or self, draft)
        self.refresh(issue)
        return issue

    def refresh(self, issue: Issue) -> Pull | None:
        """Return the pull request of an issue with the current commit of its head, which this repository then has."""
        pull = issue.pull
        if pull and (head := pull.source.git.resolve(f"refs/heads/{pull.head}")) not in (None, pull.head_sha):
            pull.head_sha = str(head)
            ref = f"refs/pull/{issue.number}/head"
            self.git.git("fetch", "-q", "--no-tags", str(pull.source.git.folder), f"+refs/heads/{pull.head}:{ref}")
        return pull

    def comment(self, issue: Issue, body: str, user: Actor = OCTO) -> Json:
        """Add a comment to an issue and return it."""
        comment_id = self.new_id()
        comment: Json = {
            "id": comment_id,
            "node_id": f"IC_{comment_id}",
            "body": body,
            "user": user.user,
            "html_url": f"{issue.url}#issuecomment-{comment_id}",
            "issue_url": f"{issue.url}",
            "performed_via_github_app": app_of(user),
            "author_association": "NONE" if user.kind == "installation" else "OWNER",
            "created_at": now(),
            "updated_at": now(),
        }
        issue.comments.append(comment)
        issue.touch()
        return comment

    def push(self, issue: Issue, user: Actor = OCTO) -> None:
        """Record a push to the branch of a pull request, whose new commit is there already."""
        before = issue.pull.head_sha if issue.pull else ""
        pull = self.refresh(issue)
        assert pull
        item: Json = {"id": self.new_id(), "before": before, "after": pull.head_sha, "activity_type": "push"}
        self.activity.append(item | {"ref": f"refs/heads/{pull.head}", "timestamp": now(), "actor": user.user})
        issue.touch()

    def reactions_to(self, comment: Json) -> list[Json]:
        """Return the list of reactions to a comment, of an issue or a review."""
        return self.comment_reactions.setdefault(comment["id"], [])

    def end_check(
        self, sha: str, name: str = "tests", conclusion: str = "failure", log: str = "", of_fork: bool = False
    ) -> Json:
        """Add a check run of GitHub Actions that has ended, with its log. of_fork: for a pull request from a fork."""
        run: Json = {"id": self.new_id(), "head_sha": sha, "name": name, "status": "completed", "external_id": ""}
        run |= {"conclusion": conclusion, "app": {"id": 15368, "slug": "github-actions"}, "started_at": now()}
        run |= {"completed_at": now(), "html_url": f"{self.url}/runs/{run['id']}"}
        run["output"] = {"title": None, "summary": None, "text": None, "annotations_count": 0}
        run["pull_requests"] = []
        run["check_suite"] = self.suite_of(sha, run["app"], None if of_fork else self.branch_of(sha))
        self.check_runs[run["id"]], self.logs[run["id"]] = run, log
        return run

    def suite_of(self, sha: str, app: Json, branch: str | None) -> Json:
        """Return the reference of a run to the suite of its commit, App and branch; add the suite if it is missing."""
        wanted = {"head_sha": sha, "app": app, "head_branch": branch}
        for suite in self.check_suites.values():
            if wanted.items() <= suite.items():
                return {"id": suite["id"]}
        suite_id = self.new_id()
        self.check_suites[suite_id] = {"id": suite_id, "status": "completed", "conclusion": None, **wanted}
        return {"id": suite_id}

    def branch_of(self, sha: str) -> str | None:
        """Return a branch with this head; None for the commit of a fork."""
        names = self.git.git("for-each-ref", "--points-at", sha, "--format=%(refname:lstrip=2)", "refs/heads")
        return next(iter(names.splitlines()), None)

    def label(self, name: str) -> Json:
        return self.labels.setdefault(name, {"id": self.new_id(), "name": name, "color": "ededed", "description": None})

    def end(self, branch: str, sha: str) -> Json:
        """Return one end of a pull request."""
        return {
            "ref": branch,
            "sha": sha,
            "label": f"{self.owner}:{branch}",
            "repo": self.as_json(),
            "user": {"login": self.owner},
        }

    def as_json(self) -> Json:
        shown: Json = {
            "id": self.id,
            "name": self.name.partition("/")[2],
            "full_name": self.name,
            "owner": {"login": self.owner, "id": 1, "type": "User"},
            "private": self.private,
            "fork": self.fork_of is not None,
            "html_url": self.url,
            "clone_url": self.clone_url,
            "default_branch": self.git.git("symbolic-ref", "--short", "HEAD"),
            "has_issues": self.has_issues,
            "homepage": self.homepage,
            "archived": self.archived,
        }
        return shown | ({"parent": {"full_name": self.fork_of.name, "id": self.fork_of.id}} if self.fork_of else {})


def app_of(user: Actor) -> Json | None:
    return APP if user.kind == "installation" else None


def reaction(new_id: int, user: Actor, content: str) -> Json:
    return {"id": new_id, "user": user.user, "content": content, "created_at": now()}


def find(items: list[Json], item_id: Any) -> Json | None:
    return next((item for item in items if item["id"] == int(item_id)), None)

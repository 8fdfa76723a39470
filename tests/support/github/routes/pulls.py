"""Pull requests with their files, reviews, review comments and reviewers."""

from tests.support.github.calls import Call, Json
from tests.support.github.errors import ApiError, custom, invalid, not_found, unprocessable
from tests.support.github.git import ChangedFile
from tests.support.github.routes.repositories import file_json
from tests.support.github.routing import Answer, World, page, route
from tests.support.github.state import Issue, Pull, Repository, app_of, find, now

READ, WRITE = "pull_requests:read", "pull_requests:write"
STATES = {"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED", None: "PENDING"}


@route("GET /repos/{owner}/{repo}/pulls", READ)
def list_pulls(world: World, call: Call) -> Answer:
    repository, wanted = world.repository_of(call), call.query
    found = []
    for issue in reversed(repository.issues.values()):
        pull = repository.refresh(issue)
        if pull is None or not world.is_old(issue.created) or wanted.get("state", "open") not in ("all", issue.state):
            continue
        if wanted.get("base") in (None, pull.base) and wanted.get("head") in (None, f"{pull.source.owner}:{pull.head}"):
            found.append(issue.pull_json(pull))
    return page(call, found)


@route("POST /repos/{owner}/{repo}/pulls", WRITE)
def create_pull(world: World, call: Call) -> Answer:
    repository, body = world.repository_of(call), call.body
    owner, _, head = body["head"].rpartition(":")
    source = repository
    if owner not in ("", repository.owner):
        forks = (each for each in world.repositories.values() if each.owner == owner and each.fork_of is repository)
        source = next(forks, repository)
    commit, base = source.git.resolve(f"refs/heads/{head}"), repository.git.resolve(f"refs/heads/{body['base']}")
    if commit is None or (owner not in ("", repository.owner) and source is repository):
        raise invalid("PullRequest", "head")
    if base is None:
        raise invalid("PullRequest", "base")
    for issue in repository.issues.values():
        if (
            issue.pull
            and issue.state == "open"
            and (issue.pull.source, issue.pull.head, issue.pull.base) == (source, head, body["base"])
        ):
            raise custom("PullRequest", f"A pull request already exists for {source.owner}:{head}.")
    if source is repository and not repository.git.commits(base, commit):
        raise custom("PullRequest", f"No commits between {body['base']} and {head}")
    issue = repository.open_pull(head, body["base"], body["title"], call.actor, source, bool(body.get("draft")))
    issue.body = body.get("body")
    return 201, _full(issue)


@route("GET /repos/{owner}/{repo}/pulls/comments", READ)
def list_all_review_comments(world: World, call: Call) -> Answer:
    issues = world.repository_of(call).issues.values()
    found = [each | {"pull_request_url": issue.url} for issue in issues if issue.pull for each in issue.pull.comments]
    return page(call, sorted(found, key=lambda each: each["id"], reverse=call.query.get("direction") == "desc"))


@route("GET /repos/{owner}/{repo}/pulls/{pull_number}", READ)
def get_pull(world: World, call: Call) -> Answer:
    return 200, _full(world.pull_of(call)[0])


@route("PATCH /repos/{owner}/{repo}/pulls/{pull_number}", WRITE)
def update_pull(world: World, call: Call) -> Answer:
    issue, pull = world.pull_of(call)
    for name in ("title", "body", "state"):
        if name in call.body:
            setattr(issue, name, call.body[name])
    pull.base = call.body.get("base", pull.base)
    issue.updated_at = now()
    return 200, _full(issue)


@route("GET /repos/{owner}/{repo}/pulls/{pull_number}/files", READ)
def list_files(world: World, call: Call) -> Answer:
    issue, pull = world.pull_of(call)
    return page(call, [file_json(issue.repository, file, pull.head_sha) for file in _files(issue, pull, pull.head_sha)])


@route("GET /repos/{owner}/{repo}/pulls/{pull_number}/requested_reviewers", READ)
def list_reviewers(world: World, call: Call) -> Answer:
    return 200, {"users": [{"login": login} for login in world.pull_of(call)[1].reviewers], "teams": []}


@route("POST /repos/{owner}/{repo}/pulls/{pull_number}/requested_reviewers", WRITE)
def request_reviewers(world: World, call: Call) -> Answer:
    issue, pull = world.pull_of(call)
    logins = call.body.get("reviewers", [])
    if issue.user["login"] in logins:
        raise ApiError(422, "Review cannot be requested from pull request author.")
    if not issue.repository.collaborators.issuperset(logins) or call.body.get("team_reviewers"):
        text = "Reviews may only be requested from collaborators. One or more of the users or teams you specified"
        raise ApiError(422, f"{text} is not a collaborator of the {issue.repository.name} repository.")
    pull.reviewers += [login for login in logins if login not in pull.reviewers]
    return 201, _full(issue)


@route("GET /repos/{owner}/{repo}/pulls/{pull_number}/reviews", READ)
def list_reviews(world: World, call: Call) -> Answer:
    reviews = world.listed(world.pull_of(call)[1].reviews)
    return page(call, [each for each in reviews if each["state"] != "PENDING" or each["user"] == call.actor.user])


@route("POST /repos/{owner}/{repo}/pulls/{pull_number}/reviews", WRITE)
def create_review(world: World, call: Call) -> Answer:
    """Create a review with all its comments, or nothing: one bad anchor refuses the whole."""
    issue, pull = world.pull_of(call)
    body, event = call.body or {}, (call.body or {}).get("event")
    issue.refuse_when_locked()
    commit = body.get("commit_id", pull.head_sha)
    if issue.repository.git.resolve(commit) != commit or not issue.repository.git.is_ancestor(commit, pull.head_sha):
        raise unprocessable("The commit_id is not part of the pull request")
    if event in ("APPROVE", "REQUEST_CHANGES") and issue.user == call.actor.user:
        verb = "approve" if event == "APPROVE" else "request changes on"
        raise unprocessable(f"Review Can not {verb} your own pull request")
    if event in ("COMMENT", "REQUEST_CHANGES") and not body.get("body") and not body.get("comments"):
        raise unprocessable("Review Body can't be blank")
    if event is None and any((each["state"], each["user"]) == ("PENDING", call.actor.user) for each in pull.reviews):
        raise unprocessable("User can only have one pending review per pull request")
    files = {file.path: file for file in _files(issue, pull, commit)}
    for comment in body.get("comments", []):
        _check_anchor(files, comment)
    review = _review(world, call, issue, commit, body)
    pull.reviews.append(review)
    pull.comments += [_comment(world, call, issue, review, each) for each in body.get("comments", [])]
    return 200, review


def _check_anchor(files: dict[str, ChangedFile], comment: Json) -> None:
    """Raise the error of GitHub for a comment on something that the diff does not show."""
    if (file := files.get(comment["path"])) is None:
        raise unprocessable("Path could not be resolved")
    side: str = comment.get("side", "RIGHT")
    line = comment.get("line")
    if line is None or (hunk := file.hunk_of(side, line)) is None:
        raise unprocessable("Line could not be resolved")
    if (start := comment.get("start_line")) is None:
        return
    start_side: str = comment.get("start_side", side)
    if file.hunk_of(start_side, start) != hunk:
        raise unprocessable("Pull request review thread start line must be part of the same hunk as the line.")
    if start_side == side and start >= line:
        raise unprocessable("Pull request review thread start line must precede the end line.")


def _review(world: World, call: Call, issue: Issue, commit: str, body: Json) -> Json:
    review_id = world.new_id()
    return {
        "id": review_id,
        "node_id": f"PRR_{review_id}",
        "user": call.actor.user,
        "body": body.get("body", ""),
        "state": STATES[body.get("event")],
        "commit_id": commit,
        "html_url": f"{issue.url}#pullrequestreview-{review_id}",
        "submitted_at": now(),
        "performed_via_github_app": app_of(call.actor),
    }


def _comment(world: World, call: Call, issue: Issue, review: Json, anchor: Json, answered: int | None = None) -> Json:
    comment_id = world.new_id()
    comment: Json = {
        "id": comment_id,
        "node_id": f"PRRC_{comment_id}",
        "pull_request_review_id": review["id"],
        "path": anchor["path"],
        "body": anchor["body"],
        "side": anchor.get("side", "RIGHT"),
        "original_line": anchor["line"],
        "original_start_line": anchor.get("start_line"),
        "start_side": anchor.get("start_side"),
        "original_commit_id": review["commit_id"],
        "user": call.actor.user,
        "performed_via_github_app": app_of(call.actor),
        "html_url": f"{issue.url}#discussion_r{comment_id}",
        "created_at": now(),
        "updated_at": now(),
    }
    return comment | ({"in_reply_to_id": answered} if answered else {})


@route("GET /repos/{owner}/{repo}/pulls/{pull_number}/reviews/{review_id}", READ)
def get_review(world: World, call: Call) -> Answer:
    if (review := find(world.pull_of(call)[1].reviews, call.values["review_id"])) is None:
        raise not_found()
    return 200, review


@route("GET /repos/{owner}/{repo}/pulls/{pull_number}/reviews/{review_id}/comments", READ)
def list_comments_of_review(world: World, call: Call) -> Answer:
    issue, pull = world.pull_of(call)
    if find(pull.reviews, call.values["review_id"]) is None:
        raise not_found()
    shown = [each for each in pull.comments if each["pull_request_review_id"] == int(call.values["review_id"])]
    return page(call, [current(issue, pull, each) for each in shown])


@route("GET /repos/{owner}/{repo}/pulls/{pull_number}/comments", READ)
def list_review_comments(world: World, call: Call) -> Answer:
    issue, pull = world.pull_of(call)
    return page(call, [current(issue, pull, each) for each in world.listed(pull.comments)])


@route("POST /repos/{owner}/{repo}/pulls/{pull_number}/comments/{comment_id}/replies", WRITE)
def reply(world: World, call: Call) -> Answer:
    issue, pull = world.pull_of(call)
    issue.refuse_when_locked()
    if (answered := find(pull.comments, call.values["comment_id"])) is None or "in_reply_to_id" in answered:
        raise not_found()
    review = find(pull.reviews, answered["pull_request_review_id"])
    anchor = {"path": answered["path"], "line": answered["original_line"], "side": answered["side"]}
    assert review
    comment = _comment(world, call, issue, review, anchor | {"body": call.body["body"]}, answered["id"])
    pull.comments.append(comment)
    return 201, current(issue, pull, comment)


def current(issue: Issue, pull: Pull, comment: Json) -> Json:
    """Return a review comment with its line in the head of today: None when the line has changed since."""
    return comment | {
        "commit_id": pull.head_sha,
        "line": _line(issue.repository, pull, comment, comment["original_line"]),
        "start_line": comment["original_start_line"]
        and _line(issue.repository, pull, comment, comment["original_start_line"]),
    }


def _line(repository: Repository, pull: Pull, comment: Json, line: int) -> int | None:
    if comment["side"] == "LEFT":
        return line
    return repository.git.moved_line(comment["path"], line, comment["original_commit_id"], pull.head_sha)


def _files(issue: Issue, pull: Pull, head: str) -> tuple[ChangedFile, ...]:
    base = issue.repository.git.resolve(f"refs/heads/{pull.base}")
    return issue.repository.git.changed_files(base or pull.base, head)


def _full(issue: Issue) -> Json:
    """Return a pull request as its own page shows it."""
    pull = issue.repository.refresh(issue)
    assert pull
    files = _files(issue, pull, pull.head_sha)
    return issue.pull_json(pull) | {
        "changed_files": len(files),
        "additions": sum(file.additions for file in files),
        "deletions": sum(file.deletions for file in files),
        "maintainer_can_modify": False,
        "comments": len(issue.comments),
        "review_comments": len(pull.comments),
    }

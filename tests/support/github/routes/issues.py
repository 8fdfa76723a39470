"""Issues with their comments, reactions and labels."""

from collections.abc import Iterator

from tests.support.github.calls import Call, Json
from tests.support.github.errors import ApiError, invalid, not_found
from tests.support.github.routing import Answer, World, forbidden, page, route, updated
from tests.support.github.state import Issue, find, now, reaction

READ = ("issues:read", "pull_requests:read")
WRITE = ("issues:write", "pull_requests:write")
"""The right to pull requests counts for those alone; `_require` checks it."""

MAX_BODY = 65_536


def _require(call: Call, issue: Issue, level: str) -> Issue:
    if not call.actor.may(f"issues:{level}") and not (issue.pull and call.actor.may(f"pull_requests:{level}")):
        raise forbidden(call)
    return issue


def _issue(world: World, call: Call, level: str) -> Issue:
    return _require(call, world.issue_of(call), level)


@route("GET /repos/{owner}/{repo}/issues", *READ)
def list_issues(world: World, call: Call) -> Answer:
    """List issues and pull requests, as GitHub does, the last one to change first."""
    issues = [each for each in world.repository_of(call).issues.values() if not each.deleted]
    wanted = [each.as_json() for each in issues if call.query.get("state", "open") in ("all", each.state)]
    return page(call, sorted(wanted, key=lambda each: each["updated_at"], reverse=True))


@route("GET /repos/{owner}/{repo}/issues/events", *READ)
def list_events(world: World, call: Call) -> Answer:
    return page(call, world.repository_of(call).events[::-1])


@route("GET /repos/{owner}/{repo}/issues/comments", *READ)
def list_all_comments(world: World, call: Call) -> Answer:
    comments = [each for issue in world.repository_of(call).issues.values() for each in issue.comments]
    return page(call, sorted(comments, key=lambda each: each["id"], reverse=call.query.get("direction") == "desc"))


@route("GET /repos/{owner}/{repo}/issues/{issue_number}", *READ)
def get_issue(world: World, call: Call) -> Answer:
    return 200, _issue(world, call, "read").as_json()


@route("GET /repos/{owner}/{repo}/issues/{issue_number}/comments", *READ)
def list_comments(world: World, call: Call) -> Answer:
    since = call.query.get("since", "")
    comments = world.listed(_issue(world, call, "read").comments)
    return page(call, [each for each in comments if each["updated_at"] >= since])


@route("POST /repos/{owner}/{repo}/issues/{issue_number}/comments", *WRITE)
def create_comment(world: World, call: Call) -> Answer:
    issue = _issue(world, call, "write")
    issue.refuse_when_locked()
    return 201, issue.repository.comment(issue, _body(call), call.actor)


@route("GET /repos/{owner}/{repo}/issues/comments/{comment_id}", *READ)
def get_comment(world: World, call: Call) -> Answer:
    return 200, _comment(world, call, "read")[1]


@route("PATCH /repos/{owner}/{repo}/issues/comments/{comment_id}", *WRITE)
def update_comment(world: World, call: Call) -> Answer:
    comment = _comment(world, call, "write")[1]
    return 200, updated(comment, {"body": _body(call), "updated_at": now()}, "body", "updated_at")


@route("DELETE /repos/{owner}/{repo}/issues/comments/{comment_id}", *WRITE)
def delete_comment(world: World, call: Call) -> Answer:
    issue, comment = _comment(world, call, "write")
    issue.comments.remove(comment)
    return 204, None


def _comment(world: World, call: Call, level: str) -> tuple[Issue, Json]:
    for issue in world.repository_of(call).issues.values():
        if not issue.deleted and (comment := find(issue.comments, call.values["comment_id"])):
            return _require(call, issue, level), comment
    raise not_found()


def _body(call: Call) -> str:
    text: str = call.body["body"]
    if not text.strip():
        raise invalid("IssueComment", "body", "missing_field")
    if len(text) > MAX_BODY:
        raise invalid("IssueComment", "data", "unprocessable", f"Body is too long (maximum is {MAX_BODY} characters)")
    return text


def _reactions(world: World, call: Call, level: str) -> list[Json]:
    """Return the reactions to the issue or comment in a path."""
    if "issue_number" in call.values:
        issue = _issue(world, call, level)
        reactions = issue.reactions
    elif "/pulls/comments/" in call.path:
        issue, comment = _review_comment(world, call)
        reactions = issue.repository.reactions_to(comment)
    else:
        issue, comment = _comment(world, call, level)
        reactions = issue.repository.reactions_to(comment)
    if level == "write":
        issue.refuse_when_locked()
    return reactions


def _review_comment(world: World, call: Call) -> tuple[Issue, Json]:
    for issue, comments in _review_comments(world, call):
        if comment := find(comments, call.values["comment_id"]):
            return issue, comment
    raise not_found()


def _review_comments(world: World, call: Call) -> Iterator[tuple[Issue, list[Json]]]:
    for issue in world.repository_of(call).issues.values():
        if issue.pull:
            yield issue, issue.pull.comments


@route("GET /repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions", "pull_requests:read")
@route("GET /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions", *READ)
@route("GET /repos/{owner}/{repo}/issues/{issue_number}/reactions", *READ)
def list_reactions(world: World, call: Call) -> Answer:
    content = call.query.get("content")
    return page(call, [each for each in _reactions(world, call, "read") if content in (None, each["content"])])


@route("POST /repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions", "pull_requests:write")
@route("POST /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions", *WRITE)
@route("POST /repos/{owner}/{repo}/issues/{issue_number}/reactions", *WRITE)
def create_reaction(world: World, call: Call) -> Answer:
    reactions, content = _reactions(world, call, "write"), call.body["content"]
    for each in reactions:
        if (each["user"]["login"], each["content"]) == (call.actor.login, content):
            return 200, each
    reactions.append(reaction(world.new_id(), call.actor, content))
    return 201, reactions[-1]


@route("DELETE /repos/{owner}/{repo}/pulls/comments/{comment_id}/reactions/{reaction_id}", "pull_requests:write")
@route("DELETE /repos/{owner}/{repo}/issues/comments/{comment_id}/reactions/{reaction_id}", *WRITE)
@route("DELETE /repos/{owner}/{repo}/issues/{issue_number}/reactions/{reaction_id}", *WRITE)
def delete_reaction(world: World, call: Call) -> Answer:
    reactions = _reactions(world, call, "write")
    if (found := find(reactions, call.values["reaction_id"])) is None:
        raise not_found()
    reactions.remove(found)
    return 204, None


@route("GET /repos/{owner}/{repo}/issues/{issue_number}/labels", *READ)
def list_labels(world: World, call: Call) -> Answer:
    issue = _issue(world, call, "read")
    return page(call, [issue.repository.label(name) for name in issue.labels])


@route("POST /repos/{owner}/{repo}/issues/{issue_number}/labels", *WRITE)
def add_labels(world: World, call: Call) -> Answer:
    issue = _issue(world, call, "write")
    for each in call.body["labels"]:
        name = each if isinstance(each, str) else each["name"]
        issue.add_label(name, call.actor)
    return 200, [issue.repository.label(name) for name in issue.labels]


@route("DELETE /repos/{owner}/{repo}/issues/{issue_number}/labels/{name}", *WRITE)
def remove_label(world: World, call: Call) -> Answer:
    issue, name = _issue(world, call, "write"), call.values["name"]
    if name not in issue.labels:
        raise ApiError(404, "Label does not exist")
    issue.remove_label(name, call.actor)
    return 200, [issue.repository.label(each) for each in issue.labels]


@route("GET /repos/{owner}/{repo}/labels", *READ)
def list_repository_labels(world: World, call: Call) -> Answer:
    return page(call, list(world.repository_of(call).labels.values()))


@route("POST /repos/{owner}/{repo}/labels", *WRITE)
def create_label(world: World, call: Call) -> Answer:
    repository, name = world.repository_of(call), call.body["name"]
    if name in repository.labels:
        raise invalid("Label", "name", "already_exists")
    return 201, updated(repository.label(name), call.body, "color", "description")

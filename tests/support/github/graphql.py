"""The GraphQL API, executed against GitHub's schema: review threads, drafts of pull requests, and commits.

The objects are dictionaries whose functions take a field's arguments. A field of the schema that is in no dictionary is
null.
"""

import base64
from collections.abc import Callable, Sequence
from typing import Any

from graphql import GraphQLError, graphql_sync, parse, validate

from tests.support.github.calls import Actor, Call, Json
from tests.support.github.contract import graphql_schema
from tests.support.github.errors import not_found
from tests.support.github.git import GitError
from tests.support.github.routes.pulls import current
from tests.support.github.routing import World
from tests.support.github.state import Issue, Pull, Repository

Field = Callable[..., Any]


def violations(body: Any) -> list[str]:
    """Return a sentence for each way in which a request differs from GitHub's schema."""
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("query"), str)
        or not body.keys() <= {"query", "variables", "operationName"}
    ):
        return ["the body must be an object with a query, its variables, and nothing else"]
    try:
        return [error.message for error in validate(graphql_schema(), parse(body["query"]))]
    except GraphQLError as error:
        return [error.message]


def answer(world: World, call: Call) -> tuple[int, Json]:
    """Execute a query or a mutation. As GitHub does, answer 200 also when it is forbidden."""
    result = graphql_sync(
        graphql_schema(),
        call.body["query"],
        _Root(world, call.actor).fields(),
        variable_values=call.body.get("variables"),
    )
    shown: Json = {"data": result.data}
    if result.errors:
        shown["errors"] = [_error(error) for error in result.errors]
    return 200, shown


def _error(error: GraphQLError) -> Json:
    return {"type": (error.extensions or {}).get("type", "INTERNAL"), "path": error.path, "message": error.message}


def _forbidden() -> GraphQLError:
    return GraphQLError("Resource not accessible by integration", extensions={"type": "FORBIDDEN"})


def _stale(head: str) -> GraphQLError:
    text = f'Expected branch to point to "{head}" but it did not.  Pull and try again.'
    return GraphQLError(text, extensions={"type": "STALE_DATA"})


def _unprocessable(text: str) -> GraphQLError:
    return GraphQLError(text, extensions={"type": "UNPROCESSABLE"})


def _missing(text: str) -> GraphQLError:
    return GraphQLError(f"Could not resolve to a node with {text}.", extensions={"type": "NOT_FOUND"})


class _Root:
    """The fields of queries and mutations, for one actor."""

    def __init__(self, world: World, actor: Actor) -> None:
        if actor.kind not in ("installation", "person"):
            raise not_found()
        self._world, self._actor = world, actor

    def fields(self) -> dict[str, Field]:
        return {
            "repository": self._repository,
            "node": lambda _info, **arguments: self._node(arguments["id"]),
            "resolveReviewThread": lambda _info, **arguments: self._resolve(arguments["input"], resolved=True),
            "unresolveReviewThread": lambda _info, **arguments: self._resolve(arguments["input"], resolved=False),
            "createCommitOnBranch": lambda _info, **arguments: self._commit(arguments["input"]),
            "convertPullRequestToDraft": lambda _info, **arguments: self._draft(arguments["input"], draft=True),
            "markPullRequestReadyForReview": lambda _info, **arguments: self._draft(arguments["input"], draft=False),
        }

    def _node(self, node_id: str) -> Json:
        return self._thread_json(node_id) if node_id.startswith("PRRT_") else self._pull_json(node_id)

    def _repository(self, _info: Any, owner: str, name: str, **_: Any) -> Json:
        repository = self._world.repositories.get(f"{owner}/{name}")
        if repository is None or not self._actor.reaches(repository.name):
            raise _missing(f"the name '{owner}/{name}'")
        return {
            "nameWithOwner": repository.name,
            "pullRequest": lambda _info, number: self._pull_json(f"PR_{repository.id}_{number}"),
        }

    def _draft(self, arguments: Json, *, draft: bool) -> Json:
        issue, pull = self._pull(arguments["pullRequestId"])
        self._require("pull_requests:write")
        pull.draft = draft
        return {"pullRequest": self._pull_json(issue.as_json()["node_id"])}

    def _resolve(self, arguments: Json, *, resolved: bool) -> Json:
        """Resolve a thread. GitHub requires the right to write contents for it as well."""
        _, pull, first = self._thread(arguments["threadId"])
        self._require("pull_requests:write", "contents:write")
        if resolved:
            pull.resolved[first["id"]] = self._actor.user
        else:
            pull.resolved.pop(first["id"], None)
        return {"thread": self._thread_json(arguments["threadId"])}

    def _commit(self, arguments: Json) -> Json:
        """Create a commit as the actor. GitHub signs it, and refuses it on a protected branch."""
        name, branch = arguments["branch"]["repositoryNameWithOwner"], arguments["branch"]["branchName"]
        repository = self._world.repositories.get(name)
        if repository is None or not self._actor.reaches(name):
            raise _missing(f"the name '{name}'")
        self._require("contents:write")
        git, parent = repository.git, arguments["expectedHeadOid"]
        head = git.resolve(f"refs/heads/{branch}")
        if head is None:
            raise _missing(f"the branch '{branch}'")
        if head != parent:
            raise _stale(parent)
        changes, message = arguments.get("fileChanges") or {}, arguments["message"]
        additions = {each["path"]: base64.b64decode(each["contents"]) for each in changes.get("additions", ())}
        deletions = [each["path"] for each in changes.get("deletions", ())]
        if f"refs/heads/{branch}" in git.protected:
            raise _unprocessable("Cannot update this protected ref.")
        if git.finds_secrets(additions.values()):
            raise _unprocessable("Repository rule violations found\n\nSecret detected in content\n\n")
        workflows = [path for path in (*additions, *deletions) if path.startswith(".github/workflows/")]
        if workflows and not self._actor.may("workflows:write"):
            raise _forbidden()
        text = "\n\n".join(part for part in (message["headline"], message.get("body")) if part)
        try:
            commit = git.commit_by_github(branch, parent, additions, deletions, text, self._actor.login)
        except GitError as error:
            raise _unprocessable(f"A path was requested for deletion which does not exist: {error}") from None
        if commit is None:
            raise _stale(parent)
        signature = {"__typename": "GpgSignature", "isValid": True} if self._world.signs_commits else None
        tree = {"__typename": "Tree", "oid": git.git("rev-parse", f"{commit}^{{tree}}")}
        return {"commit": {"__typename": "Commit", "oid": commit, "tree": tree, "signature": signature}}

    def _require(self, *permissions: str) -> None:
        if not all(self._actor.may(each) for each in permissions):
            raise _forbidden()

    def _reached(self) -> list[Repository]:
        self._require("pull_requests:read")
        return [each for each in self._world.repositories.values() if self._actor.reaches(each.name)]

    def _pull(self, node_id: str) -> tuple[Issue, Pull]:
        for repository in self._reached():
            for issue in repository.issues.values():
                if issue.as_json()["node_id"] == node_id and (pull := repository.refresh(issue)):
                    return issue, pull
        raise _missing(f"the global id of '{node_id}'")

    def _thread(self, node_id: str) -> tuple[Issue, Pull, Json]:
        for repository in self._reached():
            for issue in repository.issues.values():
                for comment in issue.pull.comments if issue.pull else ():
                    if _thread_id(comment) == node_id and (pull := repository.refresh(issue)):
                        return issue, pull, comment
        raise _missing(f"the global id of '{node_id}'")

    def _pull_json(self, node_id: str) -> Json:
        issue, pull = self._pull(node_id)
        threads = [_thread_id(each) for each in pull.comments if "in_reply_to_id" not in each]
        return {
            "__typename": "PullRequest",
            "id": node_id,
            "number": issue.number,
            "title": issue.title,
            "state": "MERGED" if pull.merged else issue.state.upper(),
            "isDraft": pull.draft,
            "headRefOid": pull.head_sha,
            "headRefName": pull.head,
            "baseRefName": pull.base,
            "url": issue.url,
            "reviewThreads": lambda _info, **span: _connection([self._thread_json(each) for each in threads], span),
        }

    def _thread_json(self, node_id: str) -> Json:
        issue, pull, first = self._thread(node_id)
        replies = [each for each in pull.comments if each.get("in_reply_to_id") == first["id"]]
        comments = [_comment_json(each) for each in (first, *replies)]
        shown = current(issue, pull, first)
        return {
            "__typename": "PullRequestReviewThread",
            "id": node_id,
            "isResolved": first["id"] in pull.resolved,
            "resolvedBy": _resolver_json(pull.resolved.get(first["id"])),
            "isOutdated": shown["line"] is None,
            "path": first["path"],
            "line": shown["line"],
            "originalLine": first["original_line"],
            "diffSide": first["side"],
            "comments": lambda _info, **span: _connection(comments, span),
        }


def _thread_id(first_comment: Json) -> str:
    return f"PRRT_{first_comment['id']}"


def _resolver_json(user: Json | None) -> Json | None:
    """Return who has resolved a thread. The type there is a person's, so no App is named."""
    return {"__typename": "User", "login": user["login"]} if user and user["type"] == "User" else None


def _comment_json(comment: Json) -> Json:
    is_bot = comment["user"]["type"] == "Bot"
    login = comment["user"]["login"].removesuffix("[bot]")
    return {
        "id": comment["node_id"],
        "databaseId": comment["id"],
        "fullDatabaseId": str(comment["id"]),
        "body": comment["body"],
        "path": comment["path"],
        "url": comment["html_url"],
        "createdAt": comment["created_at"],
        "author": {"__typename": "Bot" if is_bot else "User", "login": login, "databaseId": comment["user"]["id"]},
    }


def _connection(items: Sequence[Json], span: Json) -> Json:
    """Return the items after a cursor, which is the number of items before them."""
    start = int(span.get("after") or 0)
    end = start + (span.get("first") or len(items))
    return {
        "totalCount": len(items),
        "nodes": items[start:end],
        "edges": [{"cursor": str(start + n + 1), "node": item} for n, item in enumerate(items[start:end])],
        "pageInfo": {
            "hasNextPage": end < len(items),
            "endCursor": str(min(end, len(items))),
            "hasPreviousPage": start > 0,
        },
    }

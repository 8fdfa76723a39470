"""Repositories, references, branches and comparisons."""

from tests.support.github.calls import Call, Json
from tests.support.github.errors import ApiError, not_found
from tests.support.github.git import ChangedFile, GitError
from tests.support.github.routing import Answer, World, page, route
from tests.support.github.state import Repository


@route("GET /repos/{owner}/{repo}", "metadata:read")
def get_repository(world: World, call: Call) -> Answer:
    rights = {"pull": call.actor.may("contents:read"), "push": call.actor.may("contents:write"), "admin": False}
    repository = world.repository_of(call)
    if repository.scopes is not None:
        call.headers["X-OAuth-Scopes"] = repository.scopes
    return 200, repository.as_json() | {"permissions": rights}


@route("GET /repos/{owner}/{repo}/activity", "contents:read")
def list_activity(world: World, call: Call) -> Answer:
    return page(call, world.repository_of(call).activity[::-1])


@route("GET /repos/{owner}/{repo}/git/ref/{ref}", "contents:read")
def get_ref(world: World, call: Call) -> Answer:
    repository = world.repository_of(call)
    if (sha := repository.git.resolve(f"refs/{call.values['ref']}")) is None:
        raise not_found()
    return 200, _ref(f"refs/{call.values['ref']}", sha)


@route("POST /repos/{owner}/{repo}/git/refs", "contents:write")
def create_ref(world: World, call: Call) -> Answer:
    repository, ref, sha = world.repository_of(call), call.body["ref"], call.body["sha"]
    if not ref.startswith("refs/") or ref.count("/") < 2:
        raise ApiError(422, "Reference name must start with 'refs/' and contain at least one slash.")
    if repository.git.resolve(ref):
        raise ApiError(422, "Reference already exists")
    _set(repository, ref, sha)
    return 201, _ref(ref, sha)


@route("PATCH /repos/{owner}/{repo}/git/refs/{ref}", "contents:write")
def update_ref(world: World, call: Call) -> Answer:
    repository, ref, sha = world.repository_of(call), f"refs/{call.values['ref']}", call.body["sha"]
    if (old := repository.git.resolve(ref)) is None:
        raise ApiError(422, "Reference does not exist")
    if repository.git.resolve(sha) and not call.body.get("force") and not repository.git.is_ancestor(old, sha):
        raise ApiError(422, "Update is not a fast forward")
    _set(repository, ref, sha)
    return 200, _ref(ref, sha)


@route("DELETE /repos/{owner}/{repo}/git/refs/{ref}", "contents:write")
def delete_ref(world: World, call: Call) -> Answer:
    repository, ref = world.repository_of(call), f"refs/{call.values['ref']}"
    if repository.git.resolve(ref) is None:
        raise ApiError(422, "Reference does not exist")
    _refuse_protected(repository, ref)
    repository.git.git("update-ref", "-d", ref)
    return 204, None


def _set(repository: Repository, ref: str, sha: str) -> None:
    _refuse_protected(repository, ref)
    if repository.git.resolve(sha) != sha:
        raise ApiError(422, "Object does not exist")
    try:
        repository.git.git("update-ref", ref, sha)
    except GitError as error:
        raise ApiError(422, f"Reference update failed: {error}") from error


def _refuse_protected(repository: Repository, ref: str) -> None:
    if ref in repository.git.protected:
        raise ApiError(422, "Protected branch update failed")


def _ref(ref: str, sha: str) -> Json:
    return {"ref": ref, "object": {"type": "commit", "sha": sha}}


@route("GET /repos/{owner}/{repo}/branches/{branch}", "contents:read")
def get_branch(world: World, call: Call) -> Answer:
    repository, name = world.repository_of(call), call.values["branch"]
    if (sha := repository.git.resolve(f"refs/heads/{name}")) is None:
        raise ApiError(404, "Branch not found")
    return 200, {"name": name, "commit": {"sha": sha}, "protected": f"refs/heads/{name}" in repository.git.protected}


@route("GET /repos/{owner}/{repo}/commits/{ref}", "contents:read")
def get_commit(world: World, call: Call) -> Answer:
    repository = world.repository_of(call)
    if (sha := repository.git.resolve(call.values["ref"])) is None:
        raise ApiError(422, f"No commit found for SHA: {call.values['ref']}")
    verified = repository.git.verified(sha)
    is_signed = "gpgsig" in repository.git.git("cat-file", "commit", sha)
    reason = "valid" if verified else "unknown_key" if is_signed else "unsigned"
    return 200, {"sha": sha, "commit": {"verification": {"verified": verified, "reason": reason}}}


@route("GET /repos/{owner}/{repo}/compare/{basehead}", "contents:read")
def compare(world: World, call: Call) -> Answer:
    repository = world.repository_of(call)
    base, head = [repository.git.resolve(each) for each in call.values["basehead"].partition("...")[::2]]
    if base is None or head is None:
        raise not_found()
    try:
        merge_base = repository.git.git("merge-base", base, head)
    except GitError as error:
        raise ApiError(404, f"No common ancestor between {base} and {head}.") from error
    ahead, behind = repository.git.commits(base, head), repository.git.commits(head, base)
    status = {(True, True): "diverged", (True, False): "ahead", (False, True): "behind"}.get(
        (bool(ahead), bool(behind)), "identical"
    )
    compared: Json = {
        "status": status,
        "ahead_by": len(ahead),
        "behind_by": len(behind),
        "total_commits": len(ahead),
        "commits": [{"sha": sha} for sha in ahead],
        "merge_base_commit": {"sha": merge_base},
    }
    if call.query.get("page", "1") == "1":  # the other pages have no files
        compared["files"] = [file_json(repository, each, head) for each in repository.git.changed_files(base, head)]
    return 200, compared


def file_json(repository: Repository, file: ChangedFile, sha: str) -> Json:
    """Return a changed file of a comparison or a pull request. A binary file has no patch."""
    shown: Json = {
        "sha": sha,
        "filename": file.path,
        "status": file.status,
        "additions": file.additions,
        "deletions": file.deletions,
        "changes": file.additions + file.deletions,
        "blob_url": f"{repository.url}/blob/{sha}/{file.path}",
        "raw_url": f"{repository.url}/raw/{sha}/{file.path}",
    }
    shown |= {"patch": file.patch} if file.patch else {}
    return shown | ({"previous_filename": file.previous} if file.previous else {})

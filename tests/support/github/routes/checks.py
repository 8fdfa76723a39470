"""Check runs, which only an App may write, and commit statuses."""

from tests.support.github.calls import Call, Json
from tests.support.github.errors import ApiError, not_found
from tests.support.github.routing import Answer, World, page, route, updated
from tests.support.github.state import Repository, app_of, now

STORE = "/-/store/"
FIELDS = ("name", "details_url", "external_id", "status", "started_at", "conclusion", "completed_at", "actions")


@route("POST /repos/{owner}/{repo}/check-runs", "checks:write", actors=("installation",))
def create_check_run(world: World, call: Call) -> Answer:
    repository, sha = world.repository_of(call), call.body["head_sha"]
    if repository.git.resolve(sha) != sha:
        raise ApiError(422, f"No commit found for SHA: {sha}")
    run: Json = {"id": world.new_id(), "head_sha": sha, "status": "queued", "conclusion": None, "external_id": ""}
    run |= {"app": app_of(call.actor), "started_at": now(), "completed_at": None, "output": _no_output()}
    run["html_url"] = f"{repository.url}/runs/{run['id']}"
    run["check_suite"] = repository.suite_of(sha, run["app"], repository.branch_of(sha))
    repository.check_runs[run["id"]] = run
    return 201, _apply(repository, run, call.body)


@route("PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}", "checks:write", actors=("installation",))
def update_check_run(world: World, call: Call) -> Answer:
    return 200, _apply(world.repository_of(call), _run(world, call), call.body)


@route("GET /repos/{owner}/{repo}/check-runs/{check_run_id}", "checks:read")
def get_check_run(world: World, call: Call) -> Answer:
    return 200, _run(world, call)


@route("GET /repos/{owner}/{repo}/check-runs/{check_run_id}/annotations", "checks:read")
def list_annotations(world: World, call: Call) -> Answer:
    return page(call, world.repository_of(call).annotations.get(_run(world, call)["id"], []))


@route("GET /repos/{owner}/{repo}/commits/{ref}/check-runs", "checks:read")
def list_check_runs(world: World, call: Call) -> Answer:
    repository = world.repository_of(call)
    sha, wanted = _commit(repository, call), call.query
    runs = [run for run in world.listed(repository.check_runs.values()) if run["head_sha"] == sha]
    if wanted.get("filter", "latest") == "latest":
        runs = list({(run["check_suite"]["id"], run["name"]): run for run in runs}.values())
    chosen = [
        run
        for run in reversed(runs)
        if wanted.get("check_name") in (None, run["name"])
        and wanted.get("status") in (None, run["status"])
        and wanted.get("app_id") in (None, str(run["app"]["id"]))
    ]
    return page(call, chosen, "check_runs")


@route("GET /repos/{owner}/{repo}/commits/{ref}/check-suites", "checks:read")
def list_check_suites(world: World, call: Call) -> Answer:
    repository = world.repository_of(call)
    sha = _commit(repository, call)
    suites = [suite for suite in repository.check_suites.values() if suite["head_sha"] == sha]
    return page(call, suites, "check_suites")


@route("GET /repos/{owner}/{repo}/actions/jobs/{job_id}/logs", "actions:read")
def download_log(world: World, call: Call) -> Answer:
    """Redirect to the store with the log, which takes no token."""
    job_id = int(call.values["job_id"])
    if job_id not in world.repository_of(call).logs:
        raise not_found()
    call.headers["Location"] = f"{call.base_url}{STORE}{call.repository}/{job_id}?signature=test"
    return 302, None


def stored_log(world: World, path: str, authorization: str) -> tuple[int, bytes]:
    """Answer a request to the store, which refuses other credentials than those in the address, as GitHub's does."""
    repository, _, job_id = path.removeprefix(STORE).rpartition("/")
    if authorization:
        return 400, b"Authentication information is not given in the correct format."
    return 200, world.repositories[repository].logs[int(job_id)].encode()


def _run(world: World, call: Call) -> Json:
    run = world.repository_of(call).check_runs.get(int(call.values["check_run_id"]))
    if run is None:
        raise not_found()
    return run


def _apply(repository: Repository, run: Json, body: Json) -> Json:
    """Change a run. Annotations are added to the earlier ones."""
    updated(run, body, *FIELDS)
    if run.get("conclusion") or run.get("completed_at"):
        run["status"] = "completed"
    if run["status"] == "completed":
        run["completed_at"] = run["completed_at"] or now()
    elif run["status"] in ("queued", "in_progress"):
        run["conclusion"] = run["completed_at"] = None
    if output := body.get("output"):
        updated(run["output"], output, "title", "summary", "text")
        annotations = repository.annotations.setdefault(run["id"], [])
        annotations.extend(output.get("annotations", []))
        run["output"]["annotations_count"] = len(annotations)
    return run


def _no_output() -> Json:
    return {"title": None, "summary": None, "text": None, "annotations_count": 0}


def _commit(repository: Repository, call: Call) -> str:
    ref = call.values["ref"]
    sha = repository.git.resolve(ref) or repository.git.resolve(f"refs/{ref}")
    if sha is None:
        raise ApiError(422, f"No commit found for SHA: {ref}")
    return sha


@route("POST /repos/{owner}/{repo}/statuses/{sha}", "statuses:write")
def create_status(world: World, call: Call) -> Answer:
    repository, sha = world.repository_of(call), call.values["sha"]
    if repository.git.resolve(sha) != sha:
        raise ApiError(422, f"No commit found for SHA: {sha}")
    status: Json = {"id": world.new_id(), "context": "default", "description": None, "target_url": None}
    status |= {"created_at": now(), "creator": call.actor.user}
    updated(status, call.body, "state", "context", "description", "target_url")
    repository.statuses.setdefault(sha, []).insert(0, status)
    return 201, status


@route("GET /repos/{owner}/{repo}/commits/{ref}/statuses", "statuses:read")
def list_statuses(world: World, call: Call) -> Answer:
    repository = world.repository_of(call)
    return page(call, repository.statuses.get(_commit(repository, call), []))

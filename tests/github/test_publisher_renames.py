"""Reports follow a repository or default branch that is renamed while a job works."""

import httpx2
import pytest
from msgspec.structs import replace

from labrats.model.job import DEFAULT_BRANCH_ANNOTATION, Job, WorkspaceSetup
from labrats.model.phases import Phase
from labrats.model.report import ReportTarget
from tests.github.conftest import Client
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    World,
    a_bundle,
    a_pull_request,
    a_world,
    anyio_backend,
    check_written_once,
)
from tests.github.test_publisher_waits import published_by, publishing, until
from tests.support.github import GitHubStandIn, Issue, Repository

NEW_NAME = "octo/renamed"


async def start(world: World, repository_id: int | None) -> Job:
    """Let the job run until it has a comment, and return it as it is once it has ended."""
    ended = await world.store.get(Job, world.job_id)
    assert ended.spec.report
    assert ended.spec.report.target
    target = replace(ended.spec.report.target, repository_id=repository_id)
    spec = replace(ended.spec, report=replace(ended.spec.report, target=target))
    running = replace(ended.status, phase=Phase.RUNNING, finished_at=None)
    await world.store.update(replace(ended, spec=spec, status=running))
    async with publishing(world):
        await until(world, lambda job: bool(job.status.published and job.status.published.comment_url))
    stored = await world.store.get(Job, world.job_id)
    return replace(stored, status=replace(ended.status, published=stored.status.published))


def writes_nothing_to(repository: Repository) -> bool:
    branches = repository.git.git("branch", "--format=%(refname:short)").split()
    return not (repository.issues or repository.check_runs) and branches == ["main"]


async def end_after_rename(github: GitHubStandIn, world: World, issue: Issue, ended: Job) -> None:
    github.rename(github.demo, NEW_NAME)
    issue.reactions.clear()
    await world.store.update(ended)
    await world.publish()
    check_written_once(github, issue)
    published = await published_by(world)
    assert published.refused == ()
    assert NEW_NAME in (published.pull_request_url or "")


@pytest.mark.parametrize("repository_id", [100, None], ids=["of an event", "of a submission"])
async def test_report_follows_a_renamed_repository(github: GitHubStandIn, repository_id: int | None) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    await end_after_rename(github, world, issue, await start(world, repository_id))


@pytest.mark.parametrize("is_installed", [True, False], ids=["with the App", "without the App"])
async def test_nothing_is_written_to_a_new_repository_with_the_former_name(
    github: GitHubStandIn, is_installed: bool
) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    ended = await start(world, github.demo.id)
    if not is_installed:
        github.access.installed = {"octo/demo"}
    github.rename(github.demo, NEW_NAME)
    other = github.add_repository("octo/demo")
    issue.reactions.clear()
    await world.store.update(ended)
    await world.publish()
    check_written_once(github, issue)
    assert writes_nothing_to(other)


@pytest.mark.parametrize("place", ["/pulls", "/git-receive-pack"])
async def test_rename_between_two_requests_loses_no_part(github: GitHubStandIn, place: str) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    demo = github.demo

    def rename(number: int) -> None:
        call = github.calls[number - 1]
        if call.method == "POST" and call.path.endswith(place) and demo.name != NEW_NAME:
            github.rename(demo, NEW_NAME)

    github.before_call = rename
    await world.publish()
    assert demo.name == NEW_NAME
    check_written_once(github, issue)
    assert (await published_by(world)).refused == ()


async def test_pull_request_targets_the_renamed_default_branch(github: GitHubStandIn) -> None:
    a_pull_request(github)
    issue = github.demo.open_issue()
    world = await a_world(github, github.demo.open_pull("fix"), bundle=a_bundle(github, "main"))
    job = await world.store.get(Job, world.job_id)
    assert job.spec.report
    target = ReportTarget(repository="octo/demo", issue=issue.number, source="github", repository_id=100)
    setup = WorkspaceSetup(git_repo=github.demo.clone_url, git_ref="main")
    spec = replace(job.spec, workspace_setup=setup, report=replace(job.spec.report, target=target))
    metadata = replace(job.metadata, annotations={DEFAULT_BRANCH_ANNOTATION: "main"})
    await world.store.update(replace(job, metadata=metadata, spec=spec))
    github.demo.rename_branch("main", "trunk")
    await world.publish()
    (pull_request,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
    assert pull_request.pull
    assert pull_request.pull.base == "trunk"
    assert (await published_by(world)).refused == ()


def test_renamed_repository_is_redirected_to_its_id(github: GitHubStandIn, bot: httpx2.Client, client: Client) -> None:
    demo = github.demo
    demo.open_issue()
    github.rename(demo, NEW_NAME)
    answer = bot.get("/repos/octo/demo/issues/1")
    assert (answer.status_code, answer.headers["Location"]) == (301, f"{github.url}/repositories/100/issues/1")
    assert bot.post("/repos/octo/demo/issues/1/comments", json={"body": "Hi"}).status_code == 307
    assert bot.get("/repositories/100").json()["full_name"] == NEW_NAME
    moved = bot.get("/octo/demo.git/info/refs?service=git-upload-pack")
    assert moved.headers["Location"] == f"{github.url}/{NEW_NAME}.git/info/refs?service=git-upload-pack"
    github.add_repository("octo/demo")
    assert bot.get("/repos/octo/demo").status_code == 404
    github.access.add_person("test-token", "octo")
    assert client(token="test-token").get("/repos/octo/demo").json()["id"] == 101

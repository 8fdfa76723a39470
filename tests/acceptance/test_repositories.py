"""Jobs with a repository, on one machine and on a cluster: bundles of their commits, cached folders, the disk."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import ON_A_CLUSTER
from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, Engine, LocalEngine, User
from tests.acceptance.git_server import git, make_repository, serve_git
from tests.chart.engine import InstalledEngine
from tests.chart.installation import Installation
from tests.cluster.cluster import GATEWAY, Cluster

PASSWORD = "test-password-0123456789"


@pytest.fixture(scope="module", params=["local", pytest.param("installed", marks=ON_A_CLUSTER)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose jobs may clone from the tests' git server."""
    if request.param == "installed":
        installation: Installation = request.getfixturevalue("installation")
        with installation.service() as url:
            yield InstalledEngine(installation, url)
    else:
        settings = {"OUTBOUND_ALLOWED_CIDRS": "127.0.0.0/8", "LABRATS_WORKSPACE_GIB": "0.05", "LABRATS_CACHE_GIB": "1"}
        with LocalEngine(tmp_path_factory.mktemp("engine"), **settings) as engine:
            yield engine


@dataclass(frozen=True)
class Origin:
    """A repository. url: the address from which jobs clone it."""

    path: Path
    url: str


@pytest.fixture
def origin(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Iterator[Origin]:
    repository = make_repository(tmp_path / "hello.git")
    cluster: Cluster | None = request.getfixturevalue("cluster") if isinstance(engine, InstalledEngine) else None
    with serve_git(tmp_path, "octocat", PASSWORD, cluster.listen() if cluster else None) as server:
        host = GATEWAY if cluster else "127.0.0.1"
        yield Origin(repository, f"http://octocat:{PASSWORD}@{host}:{server.port}/hello.git")


@pytest.mark.parametrize("end", [{"result": "done"}, {"fail": "no"}], ids=["success", "failure"])
async def test_changes_of_a_job_can_be_fetched_from_its_bundle(
    user: User, origin: Origin, tmp_path: Path, end: dict[str, str]
) -> None:
    steps = [
        {"write": {"path": "README.md", "text": "mine\n"}},
        {"write": {"path": ".labrats/publish.json", "text": '{"title": "Mine"}'}},
    ]
    detail = await user.run(*steps, end, workspaceSetup={"gitRepo": origin.url, "gitDepth": 1})

    answer = await user.get(f"/api/jobs/{detail['id']}/bundle")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-git-bundle"), answer.text
    assert detail["outputs"]["bundleBytes"] == len(answer.content)
    bundle = tmp_path / "job.bundle"
    bundle.write_bytes(answer.content)
    git(origin.path, "fetch", "-q", str(bundle), "labrats:fetched")
    assert git(origin.path, "log", "--format=%an: %s", "main..fetched") == "Labrats: Add uncommitted changes"
    assert git(origin.path, "diff", "--name-only", "main", "fetched") == "README.md"


async def test_patch_of_a_running_job_has_the_changes_so_far(user: User, engine: Engine, origin: Origin) -> None:
    steps = [
        {"log": "begun"},
        {"sleepMs": 1000},
        {"write": {"path": "README.md", "text": f"mine {PASSWORD}\n"}},
        {"log": "README.md is written"},
        {"sleepMs": 3000},
        {"write": {"path": "more.txt", "text": "more\n"}},
        {"log": "more.txt is written"},
        {"hang": True},
    ]
    job = await user.submit(*steps, workspaceSetup={"gitRepo": origin.url, "gitDepth": 1})
    await user.wait(job, "active")
    answers = [await user.get(f"/api/jobs/{job}/patch")]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "more.txt" not in answers[-1].text:
            await asyncio.sleep(POLL_SECONDS)
            answers.append(await user.get(f"/api/jobs/{job}/patch"))

    assert {(each.status_code, each.headers["content-type"]) for each in answers} <= {
        (200, "text/x-diff; charset=utf-8"),
        (404, "application/json"),
    }
    await user.cancel(job)
    await user.wait(job)
    final = await user.get(f"/api/jobs/{job}/patch")
    assert answers[-1].text == final.text
    # In a pod, only the step that clones knows the password, which the agent cannot read there.
    assert ("+mine [redacted" in final.text) == isinstance(engine, LocalEngine)


async def test_running_job_without_changes_has_no_patch_and_no_bundle_so_far(user: User, origin: Origin) -> None:
    job = await user.submit({"log": "begun"}, {"hang": True}, workspaceSetup={"gitRepo": origin.url})
    await user.wait(job, "active")
    for kind, reason in (("patch", "has changed no file so far"), ("bundle", "is available once it has ended")):
        answer = await user.get(f"/api/jobs/{job}/{kind}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert reason in answer.json()["error"]


async def test_job_without_changes_has_no_bundle(user: User, origin: Origin) -> None:
    detail = await user.run({"result": "done"}, workspaceSetup={"gitRepo": origin.url})
    answer = await user.get(f"/api/jobs/{detail['id']}/bundle")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "left no bundle" in answer.json()["error"]
    assert detail["outputs"]["bundleBytes"] is None


async def test_job_that_fills_the_disk_is_ended_and_not_repeated(user: User, origin: Origin) -> None:
    fill = "head -c 80000000 /dev/zero > large; sleep 60"
    setup = {"gitRepo": origin.url, "setup": [["sh", "-c", fill]]}
    detail = await user.run(workspaceSetup=setup, config={"maxAttempts": 2})
    assert (detail["failedCode"], detail["attempts"]) == ("disk_limit", 1)
    assert "over LABRATS_WORKSPACE_GIB (51.2 MiB): raise the limit" in detail["failedReason"]


FILL = "test -e libraries/one || { mkdir -p libraries; echo made by a command > libraries/one; echo filled; }"


async def set_up(user: User, origin: Origin, *steps: object) -> list[str]:
    """Run a job with a cached folder. Return its log."""
    commands = [["sh", "-c", FILL], ["cat", "libraries/one"]]
    setup = {"setup": commands, "cache": [{"key": "README.md", "path": "libraries"}]}
    detail = await user.run(*steps, workspaceSetup={"gitRepo": origin.url, **setup})
    assert detail["status"] == "completed", detail["failedReason"]
    return await user.log_lines(detail["id"])


async def test_jobs_of_one_owner_share_what_their_commands_made(engine: Engine, user: User, origin: Origin) -> None:
    spoilt = {"write": {"path": "libraries/one", "text": "spoilt by the agent"}}
    first = await set_up(user, origin, spoilt, {"result": "done"})
    async with engine.user() as other:
        second, third = await asyncio.gather(set_up(user, origin), set_up(other, origin))

    assert {"filled", "[cache: libraries stored for later jobs]"} <= set(first)
    assert {"made by a command", "[cache: libraries restored]"} <= set(second)
    assert not {"filled", "spoilt by the agent"} & set(second)
    assert "filled" in third

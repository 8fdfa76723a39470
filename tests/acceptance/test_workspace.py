"""Workspaces: the repository and files in them, patches of their changes, and the secrecy of git tokens."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User, a_submission
from tests.acceptance.git_server import GitServer, git, make_repository, serve_git

TOKEN = "test-token-0123456789abcdef"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository `hello.git` and `outside`, a symbolic link to a repository elsewhere."""
    folder = tmp_path_factory.mktemp("repositories")
    make_repository(folder / "hello.git")
    (folder / "outside").symlink_to(make_repository(tmp_path_factory.mktemp("elsewhere") / "other"))
    return folder


@pytest.fixture(scope="module")
def git_server(repositories: Path) -> Iterator[GitServer]:
    with serve_git(repositories, "octocat", TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, repositories: Path) -> Iterator[LocalEngine]:
    """A local engine that may clone from `repositories` and from loopback.

    These tests do not run on a cluster: they look into workspaces, which are deleted with the pods there.
    """
    environment = {"LOCAL_REPO_ROOTS": str(repositories), "OUTBOUND_ALLOWED_CIDRS": "127.0.0.0/8"}
    with LocalEngine(tmp_path_factory.mktemp("engine"), **environment) as engine:
        yield engine


def a_file(name: str, content: bytes) -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(content).decode()}


class TestFiles:
    async def test_files_reach_the_workspace_byte_for_byte(self, engine: LocalEngine, user: User) -> None:
        files = {"notes/todo.txt": b"one\r\ntwo", "all bytes.bin": bytes(range(256)), "empty": b"", "ü/📄.md": b"x"}

        detail = await user.run(workspaceFiles=[a_file(name, content) for name, content in files.items()])

        assert detail["status"] == "completed"
        workspace = engine.workspace(detail["id"])
        found = {str(path.relative_to(workspace)): path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
        assert found == files
        assert {file["name"]: file["size"] for file in detail["workspaceFiles"]} == {
            name: len(content) for name, content in files.items()
        }

    async def test_each_attempt_gets_a_fresh_workspace_with_all_files(self, engine: LocalEngine, user: User) -> None:
        steps = [{"onAttempt": 1, "steps": [{"write": {"path": "a.txt", "text": "spoilt"}}, {"fail": "no"}]}]

        detail = await user.run(*steps, config={"maxAttempts": 2}, workspaceFiles=[a_file("a.txt", b"fresh")])

        assert detail["attempts"] == 2
        assert (engine.workspace(detail["id"], 2) / "a.txt").read_bytes() == b"fresh"

    async def test_refused_submission_leaves_no_file_behind(self, engine: LocalEngine, user: User) -> None:
        content = "left nowhere 7d1c"

        answer = await user.post(
            "/api/jobs/submit", a_submission(prompt="", workspaceFiles=[a_file("a", content.encode())])
        )

        assert answer.status_code == 422
        assert engine.files_with(content) == []


class TestSetup:
    FILL = (
        "test -e libraries/one || { mkdir -p libraries; head -c 8 /dev/urandom | od -x > libraries/one; echo filled; }"
    )
    CACHE = (("key", "README.md"), ("path", "libraries"))

    async def run(self, user: User, repositories: Path, *steps: object) -> tuple[str, list[str]]:
        """Run a job with a cached folder. Return its id and its log."""
        setup = {"setup": [["sh", "-c", self.FILL]], "cache": [dict(self.CACHE)]}
        detail = await user.run(*steps, workspaceSetup={"gitRepo": str(repositories / "hello.git"), **setup})
        assert detail["status"] == "completed", detail["failedReason"]
        return detail["id"], await user.log_lines(detail["id"])

    async def test_jobs_of_one_owner_share_what_the_commands_made(
        self, engine: LocalEngine, user: User, repositories: Path
    ) -> None:
        spoilt = {"write": {"path": "libraries/one", "text": "spoilt by the agent"}}
        first, log = await self.run(user, repositories, spoilt, {"result": "done"})
        second, later_log = await self.run(user, repositories)
        async with engine.user() as other:
            third, other_log = await self.run(other, repositories)

        assert "filled" in log
        assert "[cache: libraries restored]" in later_log
        assert "filled" in other_log
        contents = [(engine.workspace(job) / "libraries" / "one").read_text() for job in (first, second, third)]
        assert contents[0] == "spoilt by the agent"
        assert contents[1] not in (contents[0], contents[2])

    async def test_failed_command_fails_the_job(self, user: User, repositories: Path) -> None:
        setup = {"gitRepo": str(repositories / "hello.git"), "setup": [["sh", "-c", "echo no such package; exit 3"]]}
        detail = await user.run({"log": "the agent"}, {"result": "done"}, workspaceSetup=setup)
        assert (detail["status"], detail["failedCode"]) == ("failed", "setup")
        assert detail["failedReason"].endswith("exited with code 3: no such package")
        assert "the agent" not in await user.log_lines(detail["id"])


class TestLocalRepository:
    async def test_repository_below_an_allowed_root_is_cloned(
        self, engine: LocalEngine, user: User, repositories: Path
    ) -> None:
        setup = {"gitRepo": str(repositories / "hello.git"), "gitRef": "feature"}

        detail = await user.run(workspaceSetup=setup)

        assert detail["status"] == "completed", detail["failedReason"]
        workspace = engine.workspace(detail["id"])
        assert (workspace / "feature.txt").read_text() == "new\n"
        assert git(workspace, "rev-parse", "--abbrev-ref", "HEAD") == "feature"
        assert detail["workspaceSetup"] == setup | {"gitDepth": None, "hasCredential": False}

    async def test_git_ref_may_be_a_commit(self, engine: LocalEngine, user: User, repositories: Path) -> None:
        commit = git(repositories / "hello.git", "rev-parse", "main")

        detail = await user.run(workspaceSetup={"gitRepo": str(repositories / "hello.git"), "gitRef": commit})

        assert detail["status"] == "completed", detail["failedReason"]
        assert git(engine.workspace(detail["id"]), "rev-parse", "HEAD") == commit

    async def test_workspace_files_overwrite_files_of_the_repository(
        self, engine: LocalEngine, user: User, repositories: Path
    ) -> None:
        detail = await user.run(
            workspaceSetup={"gitRepo": str(repositories / "hello.git")},
            workspaceFiles=[a_file("README.md", b"mine"), a_file("docs/more.md", b"more")],
        )

        workspace = engine.workspace(detail["id"])
        assert (workspace / "README.md").read_bytes() == b"mine"
        assert git(workspace, "status", "--porcelain").split() == ["M", "README.md", "??", "docs/"]

    @pytest.mark.parametrize("path", ["/etc", "/", "{root}/../..", "{root}/outside", "{root}-other/hello.git"])
    async def test_path_that_leads_out_of_the_allowed_roots_is_refused(
        self, user: User, repositories: Path, path: str
    ) -> None:
        setup = {"gitRepo": path.format(root=repositories)}

        answer = await user.post("/api/jobs/submit", a_submission(workspaceSetup=setup))

        assert answer.status_code == 422
        assert answer.json()["details"][0]["field"] == "workspaceSetup.gitRepo"
        assert "LOCAL_REPO_ROOTS" in answer.json()["error"]

    async def test_unknown_git_ref_fails_the_job_and_is_named(self, user: User, repositories: Path) -> None:
        setup = {"gitRepo": str(repositories / "hello.git"), "gitRef": "no-such-branch"}

        detail = await user.run(workspaceSetup=setup)

        assert (detail["status"], detail["failedCode"]) == ("failed", "git_clone")
        assert "no-such-branch" in detail["failedReason"]


class TestPatch:
    @pytest.mark.parametrize("end", [{"result": "done"}, {"fail": "no"}], ids=["success", "failure"])
    async def test_patch_of_a_job_applies_to_another_clone(
        self, user: User, repositories: Path, tmp_path: Path, end: dict[str, str]
    ) -> None:
        steps = [{"write": {"path": "README.md", "text": "mine\n"}}, {"write": {"path": "new.txt", "text": "new\n"}}]

        detail = await user.run(*steps, end, workspaceSetup={"gitRepo": str(repositories / "hello.git")})
        answer = await user.get(f"/api/jobs/{detail['id']}/patch")

        assert detail["outputs"]["filesChanged"] == 2
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/x-diff; charset=utf-8")
        (tmp_path / "changes.patch").write_bytes(answer.content)
        git(tmp_path, "clone", "-q", str(repositories / "hello.git"), "elsewhere")
        git(tmp_path / "elsewhere", "apply", str(tmp_path / "changes.patch"))
        assert git(tmp_path / "elsewhere", "status", "--porcelain").split() == ["M", "README.md", "??", "new.txt"]

    async def test_patch_of_a_job_without_changes_is_answered_with_404(self, user: User) -> None:
        detail = await user.run({"result": "done"})
        answer = await user.get(f"/api/jobs/{detail['id']}/patch")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "left no patch" in answer.json()["error"]

    async def test_patch_of_an_unfinished_job_is_answered_with_404(self, admin: User) -> None:
        model = {"name": "patch-waiting", "provider": "mock", "model": "patch-waiting", "slots": 0}
        await admin.post("/api/ai-models", model)
        waiting = await admin.submit(config={"model": "patch-waiting"})
        running = await admin.submit({"hang": True})
        await admin.wait(running, "active")

        answers = [await admin.get(f"/api/jobs/{each}/patch") for each in (waiting, running)]

        assert [answer.status_code for answer in answers] == [404, 404]
        assert "has not run" in answers[0].json()["error"]
        assert "has changed no file so far" in answers[1].json()["error"]


class TestTokens:
    async def test_token_in_a_repository_url_is_used_and_shown_nowhere(
        self, engine: LocalEngine, user: User, git_server: GitServer
    ) -> None:
        setup = {"gitRepo": git_server.url(f"octocat:{TOKEN}"), "gitDepth": 1}

        answer = await user.post("/api/jobs/submit", a_submission(workspaceSetup=setup))
        detail = await user.wait(answer.json()["jobId"])

        assert detail["status"] == "completed", detail["failedReason"]
        workspace = engine.workspace(detail["id"])
        assert (workspace / "README.md").read_text() == "# Hello\n"
        assert detail["workspaceSetup"] == {
            "gitRepo": git_server.url(), "gitRef": None, "gitDepth": 1, "hasCredential": True,
        }  # fmt: skip
        listed, log = await user.get("/api/jobs"), await user.full_log(detail["id"])
        for shown in (answer.text, str(detail), listed.text, str(log), engine.log):
            assert TOKEN not in shown
        for file in workspace.rglob("*"):
            assert not file.is_file() or TOKEN.encode() not in file.read_bytes()

    async def test_token_is_stored_only_in_the_jobs_git_secret(
        self, engine: LocalEngine, user: User, git_server: GitServer
    ) -> None:
        setup = {"gitRepo": git_server.url(f"octocat:{TOKEN}")}
        job_id = await user.submit({"log": "on"}, {"hang": True}, workspaceSetup=setup)
        async with asyncio.timeout(PATIENCE_SECONDS), user.log_stream(job_id) as events:
            await anext(events)

        assert engine.files_with(TOKEN) == []
        assert [name for name in engine.resources_with(TOKEN) if job_id in name] == [f"Secret {job_id}-git"]

    async def test_error_about_a_wrong_token_does_not_repeat_it(
        self, engine: LocalEngine, user: User, git_server: GitServer
    ) -> None:
        wrong = "test-token-that-is-wrong"

        detail = await user.run(workspaceSetup={"gitRepo": git_server.url(f"octocat:{wrong}")})

        assert (detail["status"], detail["failedCode"]) == ("failed", "git_clone")
        assert "access was denied" in detail["failedReason"]
        assert wrong not in str(detail) + str(await user.full_log(detail["id"])) + engine.log

    async def test_token_printed_by_the_agent_is_redacted(self, user: User, git_server: GitServer) -> None:
        detail = await user.run(
            {"log": f"my token is {TOKEN}, my address {git_server.url(f'octocat:{TOKEN}')}"},
            {"result": {"token": TOKEN}},
            workspaceSetup={"gitRepo": git_server.url(f"octocat:{TOKEN}")},
        )

        assert detail["status"] == "completed"
        assert TOKEN not in str(detail["logs"]) + str(detail["result"])
        assert "[redacted]" in detail["logs"][0]

    async def test_error_about_a_refused_url_does_not_repeat_its_token(self, engine: LocalEngine, user: User) -> None:
        for address in (
            f"https://octocat:{TOKEN}@10.0.0.1/a/b.git", f"ftp://octocat:{TOKEN}@example.com/a/b.git",
            f"https://octocat:{TOKEN}@[::1/a/b.git", f"ssh://octocat:{TOKEN}@example.com/a/b.git",
        ):  # fmt: skip
            answer = await user.post("/api/jobs/submit", a_submission(workspaceSetup={"gitRepo": address}))
            assert answer.status_code == 422
            assert TOKEN not in answer.text
        assert TOKEN not in engine.log

    async def test_clone_of_a_private_repository_without_a_token_fails(self, user: User, git_server: GitServer) -> None:
        detail = await user.run(workspaceSetup={"gitRepo": git_server.url()})

        assert (detail["status"], detail["failedCode"]) == ("failed", "git_clone")


async def test_repository_on_loopback_is_refused_unless_allowed(
    start_engine: EngineFactory, git_server: GitServer
) -> None:
    engine = start_engine()
    async with engine.user() as user:
        for address in (git_server.url(), git_server.url().replace("127.0.0.1", "localhost")):
            answer = await user.post("/api/jobs/submit", a_submission(workspaceSetup={"gitRepo": address}))
            assert answer.status_code == 422
            assert "OUTBOUND_ALLOWED_CIDRS" in answer.json()["error"]

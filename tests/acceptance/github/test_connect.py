"""`labrats connect github`: from credentials to the first comment on GitHub, without a public address."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine
from tests.acceptance.github.reporting import published, start_connectable
from tests.acceptance.github.test_comment_commands import until_jobs
from tests.acceptance.github.test_polling import until_read
from tests.support.github import GitHubStandIn

TOKEN = "ghp_a-token-of-a-test"


@pytest.fixture
def engine(start_engine: EngineFactory, github: GitHubStandIn) -> LocalEngine:
    return start_connectable(start_engine, github)


def connect(engine: LocalEngine, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `labrats connect github` against the engine, away from a terminal."""
    return subprocess.run(
        [Path(sys.executable).parent / "labrats", "connect", "github", *arguments, "--data-dir", engine.data_dir],
        env={"PATH": os.environ["PATH"], **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


async def comment_on_label(engine: LocalEngine, github: GitHubStandIn) -> None:
    """Label an old issue, and wait for the comment of the job that the label starts."""
    issue = github.demo.open_issue()
    issue.created_at = "2020-01-01T12:00:00Z"
    async with engine.admin() as admin:
        await admin.http.put("/api/config/defaults", json={"provider": "mock", "model": "mock"})
        await until_read(admin)
        issue.add_label("ai-implement")
        (job,) = await until_jobs(admin, 1)
        await published(admin, job["id"])
    assert len(github.comments_of(issue)) == 1


async def test_token_leads_to_the_first_comment(engine: LocalEngine, github: GitHubStandIn, tmp_path: Path) -> None:
    missing = connect(engine, "--repository", "octo/demo")
    assert (missing.returncode, "--token-file FILE --repository OWNER/NAME" in missing.stderr) == (2, True)

    refused = connect(engine, "--repository", "octo/demo", GITHUB_TOKEN="ghp_wrong")
    assert (refused.returncode, "create another one at" in refused.stderr) == (2, True), refused.stderr

    github.access.add_person(TOKEN, "octo")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    unnamed = connect(engine, "--token-file", str(tmp_path / "token"))
    assert (unnamed.returncode, "name the repository of the token" in unnamed.stderr) == (2, True)

    done = connect(engine, "--token-file", str(tmp_path / "token"), "--repository", "octo/demo")
    assert done.returncode == 0, done.stderr
    assert "4 agents added" in done.stderr
    assert "reads octo/demo once a minute, as octo" in done.stderr
    assert "unlike a GitHub App" in done.stderr
    assert "next: labrats connect claude" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    await comment_on_label(engine, github)

    again = connect(engine, "--repository", "octo/demo", ANTHROPIC_API_KEY="unused", GITHUB_TOKEN=TOKEN)
    assert (again.returncode, "agents added" in again.stderr) == (0, False), again.stderr

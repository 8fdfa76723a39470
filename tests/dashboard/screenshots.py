"""`python -m tests.dashboard.screenshots`: take the screenshots of the documentation from an engine with some jobs.

One of them is a run of the real Claude Code with a scripted model.
"""

import asyncio
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from playwright.async_api import ViewportSize

from tests.acceptance.browser import a_browser
from tests.acceptance.engine import LocalEngine, User
from tests.agents.claude import CLAUDE
from tests.support.scripted_model import Says

FOLDER: Final = Path(__file__).parents[2] / "docs" / "images"
SIZE: Final[ViewportSize] = {"width": 1280, "height": 720}
SETTLE_MS: Final = 1500
"""Time for the data of a page to arrive."""

FILES: Final = {
    "login.ts": """export async function signIn(request: Request, sessions: Sessions): Promise<Response> {
  const user = await verify(request);
  const answer = redirect('/jobs');
  setTimeout(() => sessions.save(user, answer));
  return answer;
}
""",
    "test.sh": """name="1 - a new session is saved before the redirect"
grep -q 'await sessions.save' login.ts || { echo "not ok $name"; exit 1; }
echo "ok $name"
""",
}
MEND: Final = "sed -i -e 's/setTimeout(() => sessions.save(user, answer))/await sessions.save(user, answer)/' login.ts"
RESULT: Final = """The session was saved after the redirect had been sent.
A quick browser asked for the next page before its session existed.

signIn waits for the session now, and the test passes.
"""
RUN: Final = (
    CLAUDE.shell("sh test.sh", text="I run the failing test first.", input_tokens=11_400, output_tokens=210),
    CLAUDE.shell(
        "cat login.ts",
        text="The session seems to be saved too late. I read where that happens.",
        input_tokens=12_100,
        output_tokens=160,
    ),
    CLAUDE.shell(
        MEND,
        text="signIn returns before the session is saved. It should wait for it.",
        input_tokens=12_600,
        output_tokens=340,
    ),
    CLAUDE.shell("sh test.sh", input_tokens=13_000, output_tokens=90),
    Says(RESULT, input_tokens=13_200, output_tokens=420),
)
"""Texts and calls of the scripted model, in turn."""

USAGE: Final = {"usage": {"inputTokens": 48_200, "outputTokens": 3_150, "costUsd": 0.42, "turns": 14}}
WORK: Final = [USAGE, {"write": {"path": "notes.md", "text": "Done.\n"}}, {"result": "Done."}]
JOBS: Final = (
    ("Review pull request 81", "code-review", "octocat/hello-world", WORK),
    ("Find the cause of the timeouts", "error-reporting", "octocat/spoon-knife", [{"fail": "the tests are red"}]),
    ("Label the new issues", "triage", "octocat/spoon-knife", WORK),
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        CLAUDE.serve(*RUN) as server,
        LocalEngine(Path(folder), **CLAUDE.environment, ANTHROPIC_BASE_URL=server.url) as engine,
    ):
        asyncio.run(take_all(engine))


async def take_all(engine: LocalEngine) -> None:
    async with engine.admin() as admin, a_browser() as browser:
        ended = await add_jobs(admin)
        page = await browser.new_page()
        await page.set_viewport_size(SIZE)
        await page.goto(await engine.login_link())
        await page.wait_for_url(f"{engine.url}/")
        for name, path in (
            ("overview", "/"),
            ("jobs", "/jobs"),
            ("job", f"/jobs/{ended}/activity"),
            ("models", "/models"),
        ):
            await page.goto(engine.url + path)
            await page.wait_for_timeout(SETTLE_MS)
            await page.screenshot(path=FOLDER / f"{name}.png")
        await admin.end_jobs()


async def add_jobs(admin: User) -> str:
    """Run some jobs, of which some still run or wait. Return the id of one that has completed."""
    for name, provider, model, slots in (("claude-sonnet", "claude", "sonnet", 4), ("small", "mock", "small", 1)):
        await admin.post("/api/ai-models", {"name": name, "provider": provider, "model": model, "slots": slots})
    mended = await admin.submit(
        prompt="Fix the flaky test of the login",
        type="implement-issue",
        config={"provider": "claude", "model": "sonnet"},
        metadata={"repo": "octocat/hello-world"},
        workspaceFiles=[
            {"name": name, "data": b64encode(content.encode()).decode()} for name, content in FILES.items()
        ],
    )
    await admin.wait(mended, "completed")
    for prompt, kind, repo, steps in JOBS:
        await admin.run(prompt=prompt, type=kind, metadata=metadata(repo, steps))
    working = [{"log": "running the tests, {n}", "times": 500, "everyMs": 200}]
    for prompt in ("Add a --version flag", "Update the dependencies", "Describe the new endpoints"):
        await admin.submit(prompt=prompt, config={"model": "small"}, metadata=metadata("octocat/hello-world", working))
    return mended


def metadata(repo: str, steps: Any) -> dict[str, Any]:
    return {"repo": repo, "mock": {"steps": list(steps)}}


if __name__ == "__main__":
    main()

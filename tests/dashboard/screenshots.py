"""`python -m tests.dashboard.screenshots`: take the screenshots of the documentation from an engine with some jobs."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.async_api import ViewportSize

from tests.acceptance.browser import a_browser
from tests.acceptance.engine import LocalEngine, User

FOLDER: Final = Path(__file__).parents[2] / "docs" / "images"
SIZE: Final[ViewportSize] = {"width": 1280, "height": 720}
SETTLE_MS: Final = 1500
"""Time for the data of a page to arrive."""

WORK: Final = [
    {"log": "I read the failing test first."},
    {"log": "The session cookie is set after the redirect."},
    {"usage": {"inputTokens": 48_200, "outputTokens": 3_150, "costUsd": 0.42, "turns": 14}},
    {"write": {"path": "login.ts", "text": "export const lifetime = 12;\n"}},
    {"result": "Fixed: the cookie is now set **before** the redirect."},
]
JOBS: Final = (
    ("Fix the flaky test of the login", "implement-issue", "octocat/hello-world", WORK),
    ("Review pull request 81", "code-review", "octocat/hello-world", WORK),
    ("Find the cause of the timeouts", "error-reporting", "octocat/spoon-knife", [{"fail": "the tests are red"}]),
    ("Label the new issues", "triage", "octocat/spoon-knife", WORK),
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, LocalEngine(Path(folder)) as engine:
        asyncio.run(take_all(engine))


async def take_all(engine: LocalEngine) -> None:
    async with engine.admin() as admin, a_browser() as browser:
        ended = await add_jobs(admin)
        page = await browser.new_page()
        await page.set_viewport_size(SIZE)
        await page.goto(await engine.login_link())
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
    for name, provider, model, slots in (("claude-opus", "claude", "opus", 4), ("small", "mock", "small", 1)):
        await admin.post("/api/ai-models", {"name": name, "provider": provider, "model": model, "slots": slots})
    ended = [
        await admin.run(prompt=prompt, type=kind, metadata=metadata(repo, steps)) for prompt, kind, repo, steps in JOBS
    ]
    working = [{"log": "running the tests, {n}", "times": 500, "everyMs": 200}]
    for prompt in ("Add a --version flag", "Update the dependencies", "Describe the new endpoints"):
        await admin.submit(prompt=prompt, config={"model": "small"}, metadata=metadata("octocat/hello-world", working))
    return str(ended[0]["id"])


def metadata(repo: str, steps: Any) -> dict[str, Any]:
    return {"repo": repo, "mock": {"steps": list(steps)}}


if __name__ == "__main__":
    main()

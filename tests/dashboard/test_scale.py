"""The dashboard with very much of everything. Counts are asserted; times depend on the machine and are only printed.

docs/benchmarks.md has the figures. Measure again with `make test-slow`, or `pytest tests/dashboard/test_scale.py`.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from benchmarks.finished_jobs import create_finished_jobs
from labrats.model.protocol import PATCH_FILE
from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.dashboard.measure import Clock, OpenStreams, longest_task, measured, observe, seen, watch_traffic

pytestmark = pytest.mark.slow

Figure = Callable[[str, float, str, float], None]
FIRST_ROW: Final = "table[aria-label=Jobs] tbody td a"
MEBIBYTE: Final = 2**20


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """A function that records a figure beside its budget for the summary."""

    def note(name: str, value: float, unit: str, budget: float) -> None:
        record_property("figure", f"{name}: {value:,.3g} {unit} (budget {budget:,g})")

    return note


@pytest.fixture
def busy_engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine with 100,000 finished jobs."""
    asyncio.run(create_finished_jobs(tmp_path / "data", 100_000))
    with LocalEngine(tmp_path) as engine:
        yield engine


async def test_list_of_100000_jobs_opens_with_few_small_requests(
    browser: BrowserContext, busy_engine: LocalEngine, figure: Figure
) -> None:
    page, engine = await browser.new_page(), busy_engine
    await sign_in(page, engine, "/jobs")
    await expect(page.get_by_role("button", name="Completed 90,000")).to_be_visible(timeout=120_000)
    await page.goto("about:blank")
    await observe(page)
    traffic, complete = watch_traffic(page)

    await page.goto(f"{engine.url}/jobs", wait_until="commit")
    took = await seen(page, FIRST_ROW)
    await page.wait_for_timeout(2_000)
    await complete()

    of_the_frame = ["GET /api/auth/me", "GET /api/pause", "GET /api/system"]
    assert sorted(traffic.requests) == sorted(["GET /api/jobs", "GET /api/jobs/facets", *of_the_frame])
    assert traffic.json_bytes <= 60_000
    figure("100,000 jobs, JSON", traffic.json_bytes / 1000, "KB", 60)
    figure("100,000 jobs, until the first row", took, "ms", 800)
    assert await page.locator("tbody tr").count() < 60

    await page.get_by_role("searchbox").fill("repository-49")
    start = time.monotonic()
    await expect(page.get_by_role("button", name="Completed 2,000")).to_be_visible(timeout=30_000)
    figure("100,000 jobs, until a search has its count", (time.monotonic() - start) * 1000, "ms", 1500)
    await page.get_by_role("searchbox").fill("")
    await expect(page.get_by_role("button", name="Completed 90,000")).to_be_visible()
    for _ in range(8):  # pages follow while the user scrolls
        await page.keyboard.press("End")
        await page.wait_for_timeout(150)
    assert await page.locator("tbody tr").count() < 60
    figure("100,000 jobs, longest task of the main thread", await longest_task(page), "ms", 100)


async def test_patch_of_64_mebibytes_stays_in_the_worker(
    browser: BrowserContext, engine: LocalEngine, admin: User, figure: Figure
) -> None:
    job = await admin.run({"write": {"path": "a.txt", "text": "one\n"}}, {"result": 1})
    (patch,) = engine.data_dir.rglob(f"{job['id']}-1/{PATCH_FILE}")
    patch.write_text(a_large_patch(64 * MEBIBYTE))
    page = await browser.new_page()
    await page.set_viewport_size({"width": 1280, "height": 800})
    await sign_in(page, engine, f"/jobs/{job['id']}/details")
    await expect(page.get_by_role("heading", name="Times")).to_be_visible()
    await observe(page)
    await page.reload()
    await expect(page.get_by_role("link", name="Changes")).to_be_visible()
    await page.wait_for_timeout(1_000)
    await page.evaluate("measured.longTasks.length = 0")

    start = time.monotonic()
    await page.get_by_role("link", name="Changes").click()
    await expect(page.get_by_role("navigation", name="Changed files")).to_contain_text("module-20.ts")
    figure("patch of 64 MiB, until the tree", (time.monotonic() - start) * 1000, "ms", 2000)
    await expect(page.get_by_role("region", name="Changes of src/0/module-0.ts")).to_contain_text("value = 1;")
    for _ in range(10):
        await page.mouse.wheel(0, 3_000)
        await page.wait_for_timeout(100)
    await page.locator("nav[aria-label='Changed files']").evaluate("tree => tree.scrollTo(0, tree.scrollHeight)")
    await page.get_by_role("button", name="huge.txt").click()
    huge = page.get_by_role("region", name="src/huge.txt", exact=True)
    await huge.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("region", name="Changes of src/huge.txt")).to_contain_text("line 20")

    figure("patch of 64 MiB, longest task of the main thread", await longest_task(page), "ms", 50)
    nodes = await page.evaluate("document.querySelectorAll('*').length")
    assert nodes < 20_000, "lines far from the window are drawn"


def a_large_patch(size: int) -> str:
    """Return a patch of at most `size` bytes: 2,000 files, and one that has half of the bytes."""

    def changed(path: str, lines: int) -> str:
        pairs = "".join(f"-const value = {n};\n+const value = {n + 1}; // line {n}\n" for n in range(lines // 2))
        head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
        return f"{head}@@ -1,{lines // 2} +1,{lines // 2} @@\n{pairs}"

    small = [changed(f"src/{number % 20}/module-{number}.ts", 600) for number in range(2_000)]
    left = size - sum(map(len, small))
    lines = [f"+line {number} of a generated file\n" for number in range(left // 40)]
    huge = "diff --git a/src/huge.txt b/src/huge.txt\nnew file mode 100644\n--- /dev/null\n+++ b/src/huge.txt\n"
    patch = "".join(small) + huge + f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(lines)
    assert size * 0.8 < len(patch) <= size
    return patch


async def test_log_of_a_million_lines_opens_at_any_line(
    browser: BrowserContext, own_engine: LocalEngine, own_admin: User, figure: Figure
) -> None:
    steps = [{"log": "PASS tests/case-{n}.ts in 12 ms", "times": 999_000}, {"log": "FAIL tests/login.ts"}]
    job = await own_admin.submit(*steps, {"log": "PASS tests/more-{n}.ts", "times": 998}, {"result": 1})
    async with asyncio.timeout(280):
        while (await own_admin.job(job))["status"] != "completed":
            await asyncio.sleep(1)
    page = await browser.new_page()
    await page.set_viewport_size({"width": 1280, "height": 800})
    await sign_in(page, own_engine)
    await observe(page)
    await page.goto(f"{own_engine.url}/jobs/{job}/log", wait_until="commit")
    figure("1,000,000 lines, until the end is shown", await seen(page, "[data-kind=result]"), "ms", 500)
    await page.wait_for_timeout(1_000)
    await page.evaluate("measured.longTasks.length = 0")
    times = []
    for line in (10, 500_000, 250_001, 999_001):
        start = time.monotonic()
        await page.get_by_role("spinbutton").fill(str(line))
        await page.keyboard.press("Enter")
        await expect(page.locator("[data-chosen]")).to_contain_text(re.compile(f"^{line:,}.*tests/"))
        times.append((time.monotonic() - start) * 1000)
    figure("1,000,000 lines, slowest jump to a line", max(times), "ms", 200)
    start = time.monotonic()
    await page.get_by_role("searchbox").fill("FAIL")
    await page.keyboard.press("Enter")  # before the number of hits is known
    await expect(page.locator("[data-chosen]")).to_contain_text("FAIL tests/login.ts", timeout=30_000)
    figure("1,000,000 lines, first hit of a search", (time.monotonic() - start) * 1000, "ms", 1000)
    await page.get_by_role("searchbox").fill("")
    frames = await page.evaluate(SCROLL, "[role=region][aria-label^=Log]")
    figure("1,000,000 lines, median frame while scrolling", frames[len(frames) // 2], "ms", 17)
    figure("1,000,000 lines, longest frame while scrolling", frames[-1], "ms", 50)
    assert await page.locator("[data-kind]").count() < 200
    figure("1,000,000 lines, longest task of the main thread", await longest_task(page), "ms", 50)
    clock = await Clock.start(browser, page)
    figure("1,000,000 lines, heap", await clock.heap_bytes() / MEBIBYTE, "MiB", 80)


SCROLL: Final = """selector => new Promise(done => {
    const [element, times] = [document.querySelector(selector), []];
    let last = performance.now();
    const step = now => {
        times.push(now - last);
        last = now;
        element.scrollTop -= 300;
        if (times.length < 180) requestAnimationFrame(step);
        else done(times.toSorted((a, b) => a - b));
    };
    requestAnimationFrame(step);
})"""
"""Scrolls an element in 180 frames, and returns their times in milliseconds, shortest first."""


@pytest.mark.timeout(900)  # a busy machine opens fifty tabs slowly
async def test_50_tabs_share_four_streams(chromium: Browser, engine: LocalEngine, admin: User, figure: Figure) -> None:
    context = await chromium.new_context()
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    streams = OpenStreams(context)
    running = await admin.submit({"log": "at work"}, {"hang": True}, config={"model": "tabs"})
    first = await context.new_page()
    await sign_in(first, engine, "/jobs?model=tabs")
    paths = [f"/jobs/{running}/activity", f"/jobs/{running}/log", "/jobs?model=tabs"]
    tabs = [first]
    for number in range(49):
        tabs.append(await context.new_page())
        start = time.monotonic()
        await tabs[-1].goto(engine.url + paths[number % 3])
        await expect(tabs[-1].get_by_text("Live", exact=True)).to_be_visible()
        await expect(tabs[-1].get_by_text("at work" if number % 3 < 2 else "Running").first).to_be_visible()
    figure("50 tabs, until the last has opened", (time.monotonic() - start) * 1000, "ms", 1000)
    await asyncio.sleep(12)  # streams of hidden tabs close after 10 seconds
    open_streams = len(streams)
    figure("50 tabs, streams", open_streams, "", 4)

    lists = [first, *tabs[3::3]]
    start = time.monotonic()
    await admin.cancel(running)
    await asyncio.gather(*(expect(tab.get_by_role("cell", name="Cancelled")).to_be_visible() for tab in lists))
    figure("50 tabs, until all show a change", (time.monotonic() - start) * 1000, "ms", 1000)
    await context.close()
    assert open_streams <= 4


COUNT_RENDERS: Final = """
    window.renders = 0;
    const note = list => { if (list.some(each => each.type === 'childList')) renders++; };
    new MutationObserver(note).observe(document.querySelector('tbody'), {subtree: true, childList: true});
"""
"""Counts the changes of the list's rows. The clocks in them change text only."""


async def test_200_changes_a_second_cost_few_renders(
    browser: BrowserContext, engine: LocalEngine, admin: User, figure: Figure
) -> None:
    seconds, rate = 20, 200
    await admin.post("/api/ai-models", {"name": "flood", "provider": "mock", "model": "flood", "slots": 0})
    page = await browser.new_page()
    await page.set_viewport_size({"width": 1280, "height": 800})
    await sign_in(page, engine, "/jobs")
    await change_jobs(admin, 200, rate)
    await expect(page.locator(FIRST_ROW).first).to_be_visible()
    await page.evaluate(COUNT_RENDERS)
    clock = await Clock.start(browser, page)
    heap = await clock.heap_bytes()
    clock = await Clock.start(browser, page)

    took = await change_jobs(admin, seconds * rate, rate)

    share = await clock.share()
    renders = await page.evaluate("renders") / took
    figure("200 changes a second, renders of the list", renders, "/s", 4)
    figure("200 changes a second, main thread", share * 100, "% of a core", 10)
    figure("4,000 changes, growth of the heap", (await clock.heap_bytes() - heap) / MEBIBYTE, "MiB", 20)
    assert renders <= 5
    newest = (await admin.get("/api/jobs", limit=1)).json()["jobs"][0]["id"]
    await expect(page.locator(FIRST_ROW).first).to_have_attribute("href", f"/jobs/{newest}/activity")


async def change_jobs(admin: User, changes: int, rate: int) -> float:
    """Submit jobs and cancel them: two changes each, at a rate per second. Returns the seconds that it took."""
    start = time.monotonic()
    for number in range(changes // 2):
        job = await admin.submit(config={"model": "flood"}, metadata={"title": f"change {number}"})
        await admin.post(f"/api/jobs/{job}/cancel")
        await asyncio.sleep(start + 2 * (number + 1) / rate - time.monotonic())
    return time.monotonic() - start


async def test_first_load_on_a_slow_processor(
    browser: BrowserContext, engine: LocalEngine, admin: User, figure: Figure
) -> None:
    for _ in range(30):
        await admin.run({"usage": {"inputTokens": 9, "costUsd": 0.1}}, {"result": 1})
    page = await browser.new_page()
    await page.set_viewport_size({"width": 1280, "height": 800})
    await sign_in(page, engine)
    for path in ("/jobs", "/"):
        context_page = await browser.new_page()
        await context_page.set_viewport_size({"width": 1280, "height": 800})
        await observe(context_page)
        session = await browser.new_cdp_session(context_page)
        await session.send("Network.enable")
        await session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        await session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        await context_page.goto(engine.url + path)
        await context_page.wait_for_timeout(4_000)
        found = await measured(context_page)
        blocked = sum(max(0, duration - 50) for _, duration in found["longTasks"])
        figure(f"4x slowed, {path}: largest contentful paint", max(found["paints"]), "ms", 1200)
        figure(f"4x slowed, {path}: total blocking time", blocked, "ms", 150)
        figure(f"4x slowed, {path}: cumulative layout shift", found["shifts"], "", 0.02)
        assert found["shifts"] <= 0.02
        await interact(context_page)
        found = await measured(context_page)
        figure(f"4x slowed, {path}: interaction to next paint", max(found["interactions"], default=0), "ms", 100)
        await context_page.close()


async def interact(page: Page) -> None:
    """Use the page as a person would: menu, keys, search."""
    await page.get_by_role("button", name="Account").click()
    await page.wait_for_timeout(300)
    await page.keyboard.press("Escape")
    for key in ("j", "j", "x", "k", "Escape", "?"):
        await page.keyboard.press(key)
        await page.wait_for_timeout(300)
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Search or jump to").click()
    await page.keyboard.type("job", delay=80)
    await page.wait_for_timeout(500)

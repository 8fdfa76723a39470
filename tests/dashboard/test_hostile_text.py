"""Text from agents and callers is shown as text: no script runs, no request leaves, no policy is violated."""

import re

import pytest
from playwright.async_api import Page, Request, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in

SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>"
LINKS = (
    "[run](javascript:alert(3)) [data](data:text/html,<script>alert(4)</script>) ![pixel](https://evil.example/pixel)"
    " [https](https://evil.example/login) <iframe src=https://evil.example></iframe>"
)
DIRECTION = "user\u202egnp.exe"


async def test_table_in_a_result_is_a_table_of_text(page: Page, engine: LocalEngine, admin: User) -> None:
    rows = (
        f"| Check | Time |\n|---|---:|\n| `a \\| b` | 3 s |\n| {SCRIPT} | {LINKS} |\n| {'wide' * 100} | {DIRECTION} |\n"
    )
    result = f"Two checks:\n\n{rows}\nwww.evil.example https://evil.example/bare\n"
    job = await admin.run({"result": result})
    await page.set_viewport_size({"width": 390, "height": 844})
    await sign_in(page, engine, f"/jobs/{job['id']}/result")
    table = page.get_by_role("main").get_by_role("table")
    await expect(table.get_by_role("columnheader")).to_have_text(["Check", "Time"])
    await expect(table.get_by_role("cell").nth(0)).to_have_text("a | b")
    await expect(table.get_by_role("cell").nth(1)).to_have_css("text-align", "right")
    await expect(table.get_by_role("cell").nth(2)).to_have_text(SCRIPT)
    links = await page.locator("main p a[href], main td a[href]").evaluate_all("links => links.map(link => link.href)")
    assert links == ["https://evil.example/login"]
    assert await page.locator("main :is(img, iframe, script)").count() == 0
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_no_entity_in_a_result_disguises_the_host_of_a_link(page: Page, engine: LocalEngine, admin: User) -> None:
    """Markdown turns entities into the characters that they name."""
    job = await admin.run({"result": "Read [the &#x202e;moc.buhtig&#x202c; page](https://evil.example/login)."})
    await sign_in(page, engine, f"/jobs/{job['id']}/result")
    link = page.get_by_role("main").get_by_role("link", name="evil.example")
    await expect(link).to_have_text("the ⟨U+202E⟩moc.buhtig⟨U+202C⟩ page (evil.example)")
    assert await link.locator("bdi").inner_text() == "(evil.example)"


@pytest.mark.core
async def test_hostile_text_is_shown_as_text_everywhere(page: Page, engine: LocalEngine, admin: User) -> None:
    steps = [
        {"log": SCRIPT},
        {"log": f"\x1b[31m{DIRECTION}\x1b]0;title\x07\x1b[2J"},
        {"log": "x" * 16_000},
        {"write": {"path": "<b>a.html", "text": f"{SCRIPT}\n{DIRECTION}\n"}},
        {"result": f"{SCRIPT}\n\n{LINKS}"},
    ]
    await admin.run(
        metadata={"title": SCRIPT, "repo": DIRECTION, "mock": {"steps": steps}},
        type=f"a{SCRIPT}{DIRECTION}",
        config={"model": DIRECTION},
    )
    foreign: list[str] = []

    def note_foreign(request: Request) -> None:
        if not request.url.startswith((engine.url, "data:")):
            foreign.append(request.url)

    page.on("request", note_foreign)
    page.on("dialog", lambda dialog: foreign.append(dialog.message))
    await sign_in(page, engine, "/jobs")
    await expect(page.get_by_role("link", name=SCRIPT)).to_be_visible()
    titles = await page.locator("main [title]").evaluate_all("elements => elements.map(element => element.title)")
    assert DIRECTION not in "".join((await page.inner_text("main"), *titles))
    await page.get_by_role("link", name=SCRIPT).click()
    await expect(page.get_by_role("heading", name=SCRIPT)).to_be_visible()
    await expect(page.get_by_text("user⟨U+202E⟩gnp.exe").first).to_be_visible()
    assert DIRECTION not in await page.inner_text("main")
    await page.get_by_role("link", name="Log", exact=True).click()
    await expect(page.get_by_text(SCRIPT).nth(1)).to_be_visible()
    await page.get_by_role("link", name=re.compile("Changes")).click()
    await expect(page.get_by_role("cell", name=SCRIPT)).to_be_visible()
    await page.get_by_role("link", name="Input").click()
    await expect(page.get_by_text(SCRIPT).nth(1)).to_be_visible()
    await page.get_by_role("link", name="Result").click()
    await expect(page.get_by_text("https (evil.example)")).to_be_visible()
    links = await page.locator("main a[href]").evaluate_all("links => links.map(link => [link.protocol, link.rel])")
    assert {protocol for protocol, _ in links} == {"http:", "https:"}
    assert [rel for protocol, rel in links if protocol == "https:"] == ["noopener noreferrer"]
    assert await page.locator("main :is(img, iframe, script)").count() == 0
    await page.get_by_role("link", name="Details").click()
    for path, heading in (("/", "Overview"), ("/models", "Models"), ("/stats?by=type", "Stats")):
        await page.goto(engine.url + path)
        await expect(page.get_by_role("heading", name=heading, exact=True).first).to_be_visible()
        await page.wait_for_function("() => !document.querySelector('[aria-label=Loading]')")
        assert DIRECTION not in await page.inner_text("main"), path
    await expect(page.get_by_role("main")).to_contain_text("⟨U+202E⟩")
    assert foreign == []

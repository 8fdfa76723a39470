"""The documentation builds as a site, without a broken link and without an address of another host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"""<(?:script|img|iframe|link rel="?stylesheet"?)\b[^>]*?(?:src|href)="?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_site_has_each_page_and_the_samples(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} | {"index", "changelog", "404"}
    assert {page.stem for page in site.glob("*.html")} == pages
    assert {sample.name for sample in (site / "deploy").iterdir()} == {
        each.name for each in (ROOT / "deploy").iterdir()
    }
    assert 'href="start-laptop.html"' in (site / "index.html").read_text()


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    """Diagrams are the exception: the theme loads the program that draws them when a page has one."""
    assert LOADED.search('<script src="https://example.org/a.js">')
    assert [page.name for page in site.glob("*.html") if LOADED.search(page.read_text())] == []

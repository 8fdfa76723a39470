"""Hooks of MkDocs: the files outside docs/ that its pages link to are part of the site.

README.md is its first page, CHANGELOG.md is a page, and the samples of deploy/ are files.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""The pages outside docs/, by their name there, with their name on the site."""

OUTSIDE = re.compile(r"\]\((?:\.\./)?(README\.md|CHANGELOG\.md)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=on_page_markdown((ROOT / name).read_text(encoding="utf-8"))))
    for file in (ROOT / "LICENSE", *sorted((ROOT / "deploy").iterdir())):
        files.append(File.generated(config, str(file.relative_to(ROOT)), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, **_context: object) -> str:
    """Return a page with the links that it has on the site."""
    for before, after in (("](docs/", "]("), ("](../deploy/", "](deploy/")):
        markdown = markdown.replace(before, after)
    return OUTSIDE.sub(lambda link: f"]({PAGES[link[1]]}", markdown)

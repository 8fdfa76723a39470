"""The pages for a first hour are short, and each leads to its first job in few commands, without building anything."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.unit.cli.test_documented_commands import shell_lines

ROOT: Final = Path(__file__).parents[2]
START_PAGES: Final = sorted(f"docs/{page.name}" for page in ROOT.glob("docs/start-*.md"))
CHART: Final = "oci://ghcr.io/labrats-work/apps.ai-agents/charts/labrats"


@pytest.mark.parametrize(("page", "most_lines"), [("README.md", 120), *((page, 60) for page in START_PAGES)])
def test_page_is_short(page: str, most_lines: int) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= most_lines


def test_there_is_a_page_for_each_kind_of_newcomer() -> None:
    assert START_PAGES == ["docs/start-kubernetes.md", "docs/start-laptop.md", "docs/start-team.md"]


@pytest.mark.parametrize("page", START_PAGES)
def test_page_ends_with_links_to_what_comes_next(page: str) -> None:
    assert re.search(r"\n## What next\n\n(- \[.+\n)+\Z", (ROOT / page).read_text())


@pytest.mark.parametrize(
    ("page", "last", "most"),
    [
        ("docs/start-laptop.md", "labrats connect claude", 5),
        ("docs/start-laptop.md", "labrats connect github", 12),
        ("docs/start-kubernetes.md", "labrats submit", 6),
    ],
)
def test_page_leads_there_in_few_commands(page: str, last: str, most: int) -> None:
    commands = [" ".join(words) for words in shell_lines(page) if words]
    (first, *_) = [at for at, command in enumerate(commands, start=1) if command.startswith(last)]
    assert first <= most


def test_cluster_is_installed_from_the_chart_and_the_images_of_a_release() -> None:
    commands = [" ".join(words) for words in shell_lines("docs/start-kubernetes.md")]
    assert any(command.startswith(f"helm install labrats {CHART} ") for command in commands)
    assert not any(word in command for command in commands for word in ("docker", "gather"))
    values = yaml.safe_load((ROOT / "charts/labrats/values.yaml").read_text())
    registry = CHART.removeprefix("oci://").removesuffix("/charts/labrats")
    assert (values["image"]["repository"], values["executor"]["image"]["repository"]) == (
        f"{registry}/engine",
        f"{registry}/executor",
    )

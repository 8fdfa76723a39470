"""The hosts to which texts of agents may link."""

import pytest

from labrats.github.reports.reported_job import known_hosts
from labrats.settings import EngineSettings

GITHUB = {"github.com", "docs.github.com", "user-images.githubusercontent.com"}


@pytest.mark.parametrize(
    ("homepage", "host"),
    [
        ("https://Demo.example.org/start", {"demo.example.org"}),
        ("demo.example.org/start", {"demo.example.org"}),
        ("", set()),
        (None, set()),
        ("http://[", set()),
    ],
)
def test_the_host_of_the_homepage_is_known(homepage: str | None, host: set[str]) -> None:
    assert known_hosts(EngineSettings(), homepage) == GITHUB | host


def test_the_engine_and_the_hosts_of_the_setting_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRATS_LINK_HOSTS", "Docs.example.com, ci.example.com")
    monkeypatch.setenv("LABRATS_PUBLIC_URL", "https://labrats.example.com")
    expected = {"docs.example.com", "ci.example.com", "labrats.example.com"}
    assert known_hosts(EngineSettings()) == GITHUB | expected
    monkeypatch.setenv("LABRATS_GITHUB_API_URL", "https://ghe.example.com/api/v3")
    assert known_hosts(EngineSettings()) == {"ghe.example.com"} | expected

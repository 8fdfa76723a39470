"""`labrats connect github`: the next step after each mistake, and the choice of repositories."""

from pathlib import Path
from typing import Any

import pytest

from labrats.cli.errors import CommandError
from labrats.cli.github_app import choose_repositories, code_in
from tests.unit.cli.engines import Labrats, ScriptedEngine

UNCONNECTED: dict[str, Any] = {
    "url": "https://github.com", "hasApp": False, "sources": [], "summary": "", "problem": "no repository is connected",
    "command": "labrats connect github",
}  # fmt: skip
INSTALL = "https://github.com/apps/labrats-1/installations/new"
APP: dict[str, Any] = {
    "secret": "github-app", "login": "labrats-1[bot]", "installUrl": INSTALL, "repositories": [], "suspended": [],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_browser_and_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def script(engine: ScriptedEngine, app: dict[str, Any] | None = None) -> None:
    engine.answers("GET /api/system", {"github": UNCONNECTED | {"hasApp": app is not None}, "providers": []})
    engine.answers("GET /api/github/app", app)
    form = {"address": "https://github.com/settings/apps/new?state=s", "manifest": {}, "state": "s", "mode": "poll"}
    engine.answers("POST /api/github/app/form", form)
    connection = {
        "source": "github", "secret": "github-app", "login": "labrats-1[bot]", "repositories": ["octo/demo"],
        "mode": "webhook", "seeded": 0, "drawback": None,
    }  # fmt: skip
    engine.answers("POST /api/github/connection", connection)
    engine.answers("GET /api/agents", {"agents": []})


@pytest.mark.parametrize(
    ("arguments", "app", "sentence"),
    [
        ([], None, "run it in a terminal, or use a personal token: labrats connect github --token-file FILE"),
        ([], APP, f"install the App labrats-1[bot] on a repository: {INSTALL} and then: labrats connect github"),
        (["--repository", "octo/b"], APP | {"repositories": ["octo/a"]}, "on octo/b: https://github.com/apps/"),
        ([], APP | {"repositories": ["o/a", "o/b"]}, "choose: labrats connect github --repository o/a\n  1. o/a"),
        ([], APP | {"suspended": ["octo"]}, "unsuspend it in the settings of octo on GitHub"),
        (["--token-file", "{file}"], None, "labrats connect github --token-file FILE --repository OWNER/NAME"),
        (["--token-file", "{file}", "--organization", "octo"], None, "is for a GitHub App: leave it out, or the token"),
        (
            ["--host", "ghe.example.com"],
            None,
            "LABRATS_GITHUB_API_URL=https://ghe.example.com/api/v3, then labrats connect github --host ghe.example.com",
        ),
        (["--host", "https://octo.ghe.com/"], None, "LABRATS_GITHUB_API_URL=https://api.octo.ghe.com,"),
    ],
)
def test_mistake_is_answered_with_the_next_step(
    labrats: Labrats,
    engine: ScriptedEngine,
    tmp_path: Path,
    arguments: list[str],
    app: dict[str, Any] | None,
    sentence: str,
) -> None:
    script(engine, app)
    (tmp_path / "token").write_text("ghp_a-token-of-a-test")
    ended = labrats("connect", "github", *(each.format(file=tmp_path / "token") for each in arguments))
    assert (ended.code, sentence in ended.err) == (2, True), ended.err
    assert {each.path for each in engine.requests if each.method == "POST"} <= {"/api/github/app/form"}


def test_only_repository_of_the_app_needs_no_choice(labrats: Labrats, engine: ScriptedEngine) -> None:
    script(engine, APP | {"repositories": ["octo/demo"]})
    ended = labrats("connect", "github", "--host", "GitHub.com", "--mode", "webhook")
    assert engine.requests[2].json == {"repositories": ["octo/demo"], "mode": "webhook"}
    assert "source github: gets the events of octo/demo, as labrats-1[bot]" in ended.err


def test_overview_shows_the_connection_or_the_command_that_creates_it(labrats: Labrats, engine: ScriptedEngine) -> None:
    script(engine)
    assert "github      no repository is connected  labrats connect github" in labrats("connect").out
    state = UNCONNECTED | {"summary": "the source github reads octo/a", "problem": None, "command": None}
    engine.answers("GET /api/system", {"github": state, "providers": []})
    assert "github      the source github reads octo/a" in labrats("connect").out


def test_code_is_taken_from_the_address_of_this_attempt_alone() -> None:
    assert code_in("http://127.0.0.1:1/?code=a-code&state=s", "s") == "a-code"
    assert code_in("a-code-by-itself", "s") == "a-code-by-itself"
    for text in ("http://127.0.0.1:1/?code=a-code&state=other", "http://127.0.0.1:1/?code=a-code"):
        with pytest.raises(CommandError, match="belongs to another attempt"):
            code_in(text, "s")
    with pytest.raises(CommandError, match="paste the whole address"):
        code_in("https://github.com/settings/apps", "s")


def test_connected_repositories_are_offered_only_if_there_are_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_repositories(["o/a", "o/b"], ["O/A"], None, INSTALL) == ["o/b"]
    assert choose_repositories(["o/a"], ["o/a"], None, INSTALL) == ["o/a"]
    assert f"it gets others at {INSTALL}" in capsys.readouterr().err

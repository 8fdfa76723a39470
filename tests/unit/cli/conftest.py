"""Fixtures: the command line, and the engines that it calls."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labrats.cli.app import build_app, run
from tests.support.loopback import QuietHandler, served_by
from tests.unit.cli.engines import Ended, Labrats, OwnEngine, Request, ScriptedEngine


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    """Yield a scripted engine that listens on loopback."""

    class Handler(QuietHandler):
        def _reply(self) -> None:
            answer = scripted.answer(Request(self.command, self.path, dict(self.headers), self.body()))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body) + answer.cut))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _reply

    with served_by(Handler) as port:
        scripted = ScriptedEngine(f"http://127.0.0.1:{port}")
        yield scripted


@pytest.fixture
def own_engine(tmp_path: Path) -> OwnEngine:
    """Return an engine whose data folder has a database."""
    engine = OwnEngine(tmp_path / "own")
    engine.data_dir.mkdir()
    (engine.data_dir / "labrats.db").touch(0o600)
    return engine


@pytest.fixture
def labrats(
    capsys: pytest.CaptureFixture[str], own_engine: OwnEngine, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> Labrats:
    """Return a function that runs a `labrats` command against the scripted engine. Its streams are not terminals."""
    monkeypatch.setenv("LABRATS_URL", engine.url)

    def run_command(*arguments: str) -> Ended:
        code = run(build_app(own_engine), arguments)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run_command


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes stdout a terminal."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    return lambda: monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the engine, API key and terminal settings of the user who runs the tests."""
    for name in (
        "LABRATS_URL",
        "LABRATS_API_KEY",
        "LABRATS_DATA_DIR",
        "LABRATS_HOST",
        "PORT",
        "FORCE_COLOR",
        "NO_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))

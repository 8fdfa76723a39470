"""The command line on a system other than Linux."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.engines import Labrats


@pytest.mark.parametrize("command", ["serve", "doctor", "secret list", "login-link"])
def test_command_of_the_engine_names_linux_in_one_sentence(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    result = labrats(*command.split())
    assert result.code == 2
    name = command.removesuffix(" list")
    assert f"labrats {name} needs Linux, and this is Darwin: run the engine on Linux" in result.err
    assert len(result.err.strip().splitlines()) <= 3


WITHOUT_MODULES_OF_LINUX = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop"}:
            raise ImportError(f"Windows has no {name}")

sys.meta_path.insert(0, Missing())
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules.pop(name, None)
from labrats.main import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--version", 0),
        ("submit -p x", 3),
        ("jobs", 3),
        ("logs -f ir-1", 3),
        ("wait ir-1", 3),
        ("model list", 3),
        ("connect", 3),
        ("connect github", 3),
        ("apply -f -", 0),
        ("completion bash", 0),
        ("manifests", 0),
    ],
)
def test_commands_of_a_client_need_no_modules_that_windows_lacks(tmp_path: Path, arguments: str, code: int) -> None:
    environment = {"LABRATS_URL": "http://127.0.0.1:9", "LABRATS_DATA_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_MODULES_OF_LINUX, *arguments.split()],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr

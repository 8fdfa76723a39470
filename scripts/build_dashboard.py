"""Build the dashboard into labrats/dashboard, with the Node of this environment, which is installed if it is missing.

`make run` calls this beside the engine, which serves a page about the build until the dashboard is there. A failure is
reported and leaves the engine without a dashboard, or with the one built before.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "dashboard"
OUTPUT = ROOT / "labrats" / "dashboard"
INDEX = OUTPUT / "index.html"
MARKER = OUTPUT / ".building"
INSTALLED = SOURCES / "node_modules" / ".installed"
BIN = Path(sys.executable).parent


def main(arguments: list[str]) -> int:
    """Build unless the build is current. Return 1 after a failure.

    `--force` builds in any case. `--node-on-path` uses the Node on PATH, where a build hook has it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts background processes with SIGINT ignored
    if "--force" not in arguments and is_current():
        return 0
    OUTPUT.mkdir(exist_ok=True)
    MARKER.touch()
    try:
        build(has_own_node="--node-on-path" not in arguments)
    except (subprocess.CalledProcessError, OSError) as error:
        output = getattr(error, "stdout", None) or error
        print(f"{output}\nThe dashboard was not built; the engine runs without it. `make dashboard` tries again.")
        return 1
    finally:
        MARKER.unlink(missing_ok=True)
    print("The dashboard is built.")
    return 0


def is_current() -> bool:
    """Return whether the build is newer than all its sources."""
    if not INDEX.exists():
        return False
    built = INDEX.stat().st_mtime
    return all(path.stat().st_mtime <= built for path in sources())


def sources() -> Iterator[Path]:
    """Yield the files that the build depends on."""
    yield from (path for path in SOURCES.iterdir() if path.is_file())
    for folder in ("src", "public", "scripts"):
        yield from (path for path in (SOURCES / folder).rglob("*") if path.is_file())


def build(*, has_own_node: bool) -> None:
    """Install what is missing, and build. Raises CalledProcessError with the output of the failed command.

    has_own_node: use the Node of this environment, and install it if it is missing; otherwise use the one on PATH.
    """
    path = os.environ["PATH"]
    if has_own_node:
        path = f"{BIN}:{path}"
        if not (BIN / "npm").exists():
            pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check")
            run(path, *pip, "--require-hashes", "-r", str(SOURCES / "requirements.txt"))
    lock = SOURCES / "package-lock.json"
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        run(path, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        INSTALLED.touch()
    run(path, "npm", "run", "-s", "build")


def run(path: str, *command: str) -> None:
    """Run a command in the folder of the sources. path: the folders in which programs are found."""
    environment = os.environ | {"PATH": path}
    subprocess.run(
        command, cwd=SOURCES, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

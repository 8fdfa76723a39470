"""Running other programs, and what is said when one of them fails."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

PATIENCE_SECONDS: Final = 120.0
"""How long anything may take to come up before it is given up."""


class Failed(Exception):
    """A cluster cannot be had, for the reason given."""


def progress(message: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"cluster: {message}\n")
    sys.stderr.flush()


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """What the command printed. Raises Failed with what it complained of."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failed(f"there is no {command[0]}") from error
    if done.returncode != 0:
        raise Failed(f"`{' '.join(map(str, command))}` exited with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def until(what: str, holds: Callable[[], bool]) -> None:
    """Wait for it. Raises Failed, naming it, when it never comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"gave up waiting for {what}")
        time.sleep(0.05)


def succeeds(*command: str | Path) -> bool:
    """Whether the command exits with 0."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0

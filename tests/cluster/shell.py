"""Helpers to run other programs and to wait for them."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

PATIENCE_SECONDS: Final = 120.0
"""Timeout for a program to start or stop."""


class Failed(Exception):
    """A step of starting or using a cluster failed. The message says why."""


def progress(message: str) -> None:
    """Print a message about progress to stderr."""
    sys.stderr.write(f"cluster: {message}\n")
    sys.stderr.flush()


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> str:
    """Run a command and return its standard output. Raises Failed with its standard error."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failed(f"program not found: {command[0]}") from error
    if done.returncode != 0:
        raise Failed(f"`{' '.join(map(str, command))}` exited with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def until(what: str, holds: Callable[[], bool]) -> None:
    """Wait until `holds` is true. Raises Failed after PATIENCE_SECONDS. what: names the condition in the error."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"timed out waiting for {what}")
        time.sleep(0.05)


def succeeds(*command: str | Path) -> bool:
    """Run a command and return whether its exit code is 0."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0

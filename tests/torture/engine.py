"""An engine process that the test kills and starts again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.loopback import free_port
from tests.torture.witnesses import record_versions

SETTINGS = {"LABRATS_STOP_GRACE_SECONDS": "1", "LABRATS_RETRY_BACKOFF_SECONDS": "0.2", "LABRATS_LOG_FORMAT": "json"}


class EngineProcess:
    """`labrats serve` on a fresh data folder. All its processes have `mark` in their PATH."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.mark = str(folder / "mark")
        self.port = free_port()
        self._log = folder / "engine.log"
        self._process: subprocess.Popen[bytes] | None = None
        record_versions(self.database)

    @property
    def database(self) -> Path:
        return self.data_dir / "labrats.db"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def admin_key(self) -> str:
        """Return the admin key. Raises FileNotFoundError until the engine has created it."""
        return (self.data_dir / "admin.key").read_text().strip()

    def start(self) -> None:
        program = Path(sys.executable).parent / "labrats"
        path = f"{self.mark}:{os.environ['PATH']}"
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", "--port", str(self.port), "--data-dir", self.data_dir],
                stderr=log,
                env={"PATH": path} | SETTINGS,
            )

    def kill(self) -> None:
        """Kill the engine with SIGKILL."""
        assert self._process
        self._process.kill()
        self._process.wait()

    async def watch(self) -> None:
        """Watch the engine until cancelled. Raises RuntimeError if it exits by itself."""
        while self._process is None or (exit_code := self._process.poll()) is None:
            await asyncio.sleep(0.05)
        raise RuntimeError(f"the engine exited by itself with code {exit_code}: {self._log.read_text()[-1000:]}")

    def stop(self) -> int:
        """Stop the engine as Ctrl-C does, and return its exit code."""
        assert self._process
        self._process.send_signal(signal.SIGINT)
        return self._process.wait()

    def errors(self) -> list[str]:
        """Return the errors and tracebacks in the log of all its lives, without those about the launcher."""
        return [line for line in self._log.read_text().splitlines() if _is_error(line)]


def _is_error(line: str) -> bool:
    """Return whether the line is an error, or not a log line of the engine at all."""
    if not line.startswith("{"):
        return bool(line)
    entry = json.loads(line)
    return entry["level"] == "error" and "launcher" not in entry["event"]

"""The engine as a user starts it, to be killed and started again."""

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
    """`labrats serve` on a fresh data folder. Everything it starts has `mark` in its PATH."""

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
        """Raises FileNotFoundError until the engine has made it."""
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
        """kill -9."""
        assert self._process
        self._process.kill()
        self._process.wait()

    async def live(self) -> None:
        """Never returns: the engine ends only when it is told to. Raises RuntimeError when it does by itself."""
        while self._process is None or (exit_code := self._process.poll()) is None:
            await asyncio.sleep(0.05)
        raise RuntimeError(f"the engine ended by itself, with {exit_code}: {self._log.read_text()[-1000:]}")

    def stop(self) -> int:
        """As Ctrl-C does. The exit code; that of the first end where it has ended already."""
        assert self._process
        self._process.send_signal(signal.SIGINT)
        return self._process.wait()

    def errors(self) -> list[str]:
        """What it logged as an error, or left as a traceback, in all its lives; but for what befell the launcher."""
        return [line for line in self._log.read_text().splitlines() if _is_error(line)]


def _is_error(line: str) -> bool:
    """Whether a line of the log is an error, or none of the engine's own lines."""
    if not line.startswith("{"):
        return bool(line)
    entry = json.loads(line)
    return entry["level"] == "error" and "launcher" not in entry["event"]

"""An engine whose log cannot be written."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.engine import PATIENCE_SECONDS
from tests.support.loopback import free_port

SHELL = {"a full disk": ">/dev/full 2>/dev/full", "closed": ">&- 2>&-"}


@pytest.mark.parametrize("redirection", SHELL.values(), ids=SHELL)
def test_engine_that_cannot_write_its_log_serves_counts_lost_lines_and_stops_normally(
    tmp_path: Path, redirection: str
) -> None:
    port = free_port()
    program = Path(sys.executable).parent / "labrats"
    command = f"exec {program} serve --port {port} --data-dir {tmp_path}/data {redirection}"
    with subprocess.Popen(["sh", "-c", command]) as engine:
        try:
            assert lost_lines(f"http://127.0.0.1:{port}", engine) > 0 or "full" not in redirection
        finally:
            engine.send_signal(signal.SIGINT)
            engine.wait(PATIENCE_SECONDS)
    assert engine.returncode in (0, 120)  # 120: Python could not flush standard output at exit


def lost_lines(url: str, engine: "subprocess.Popen[bytes]") -> float:
    """Wait until the engine is ready, and return the number of log lines that it reports as lost."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert engine.poll() is None, "the engine ended"
        try:
            if httpx2.get(f"{url}/ready").status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.05)
    found = re.search(r"^labrats_log_lines_lost_total (\S+)$", httpx2.get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])

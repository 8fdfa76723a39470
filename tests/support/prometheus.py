"""A real Prometheus: the one installed on the machine, or else Debian's package, unpacked but not installed."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.cluster.programs import cache_folder, exclusive_lock
from tests.support.loopback import free_port

PACKAGE: Final = "prometheus"
PATIENCE_SECONDS: Final = 60.0

_CONFIGURATION: Final = """\
global: {{scrape_interval: 50ms, scrape_timeout: 50ms}}
scrape_configs: [{{job_name: labrats, static_configs: [{{targets: ["{target}"]}}]}}]
"""


def program(name: str) -> Path:
    """Return the path of `prometheus` or `promtool`. Skips the test if there is none; with CI=true the test fails."""
    if found := shutil.which(name):
        return Path(found)
    if not shutil.which("apt-get"):
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("Prometheus is not installed, and there is no apt-get to download it with")
    folder = cache_folder() / PACKAGE
    with exclusive_lock("prometheus.lock"):
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            _unpack(unfinished)
            unfinished.rename(folder)
    return folder / "usr" / "bin" / name


def _unpack(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE]
    if subprocess.run(download, cwd=folder, check=False, capture_output=True).returncode:
        subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)  # the package list is outdated
        subprocess.run(download, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
    archive.unlink()


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that scrapes one engine twenty times a second."""

    url: str

    async def value(self, query: str) -> float:
        """Return the current value of a query; 0 if the result is empty."""
        async with httpx2.AsyncClient(base_url=self.url, verify=False) as client:
            found = (await client.get("/api/v1/query", params={"query": query})).json()["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    async def wait(self, query: str, value: float) -> None:
        """Return once the value of the query is at least `value`."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.value(query) < value:
                await asyncio.sleep(0.1)


@contextmanager
def running_prometheus(folder: Path, engine_url: str) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes the engine during the block. folder: for its configuration, data and log."""
    port = free_port()
    configuration = folder / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(target=engine_url.removeprefix("http://")))
    options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    url = f"http://127.0.0.1:{port}"
    with open(folder / "prometheus.log", "wb") as log:
        command = [str(program("prometheus")), *options, f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(url, process, folder / "prometheus.log")
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if httpx2.get(f"{url}/-/ready").is_success:
                return
        except httpx2.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)

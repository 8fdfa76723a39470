"""`python -m benchmarks.failover [--quick]`: seconds until another engine starts jobs after the API server is back."""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import measures
from benchmarks.cluster import Site, running_cluster
from benchmarks.engine import succeed
from benchmarks.http import connected
from labrats.backends.kubernetes.client import JSON, MERGE_PATCH
from labrats.model.errors import LabratsError
from tests.cluster.cluster import Cluster

AIM_SECONDS: Final = 15
WAITING: Final = 5
"""The jobs that wait for a slot."""

QUICK_OUTAGE: Final = 1.0

_POLL_SECONDS: Final = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument("--outages", type=float, nargs="+", default=[5.0, 30.0, 90.0], help="durations in seconds")
    parser.add_argument("--quick", action="store_true", help="only check that the measurement works")
    arguments = parser.parse_args()
    outages = [QUICK_OUTAGE] if arguments.quick else arguments.outages
    with (
        tempfile.TemporaryDirectory(prefix="labrats-benchmark-") as folder,
        running_cluster(with_node=False) as cluster,
    ):
        for number, outage in enumerate(outages):
            first, last = uvloop.run(failover(cluster, Path(folder, str(number)), outage))
            print(f"{outage:g} s of outage: the first of {WAITING} jobs started after {first:.1f} s, the last after "
                  f"{last:.1f} s (aim {AIM_SECONDS} s)", flush=True)  # fmt: skip


async def failover(cluster: Cluster, folder: Path, outage_seconds: float) -> tuple[float, float]:
    """Kill the leader of two engines together with the API server, and start only the API server again.

    Returns the seconds from its first answer until the first Job of a waiting job exists, and until the last one does.
    """
    async with Site.open(cluster, folder, with_node=False) as site, site.engine() as leader:
        await measures.configure_model(leader)
        async with connected(leader.port) as connection:
            for _ in range(WAITING):
                await succeed(connection, measures.submission(leader))
        async with site.engine():
            os.kill(leader.pid, signal.SIGKILL)
            cluster.kill("kube-apiserver")
            await asyncio.sleep(outage_seconds)
            cluster.start_again("kube-apiserver")
            await _succeeding(site, "GET", "/version")
            answered_at = time.monotonic()
            model = f"{site.path_of('aimodels')}/{measures.MODEL}"
            await _succeeding(site, "PATCH", model, {"spec": {"slots": WAITING}})
            first = 0.0
            while (created := len((await _succeeding(site, "GET", site.jobs_path))["items"])) < WAITING:
                if created and not first:
                    first = time.monotonic() - answered_at
                await asyncio.sleep(_POLL_SECONDS)
            last = time.monotonic() - answered_at
            return first or last, last


async def _succeeding(site: Site, method: str, path: str, body: Any = None) -> Any:
    """Send a request again and again until the API server carries it out, and return its answer."""
    content, content_type = (json.dumps(body).encode(), MERGE_PATCH) if body else (b"", JSON)
    while True:
        with suppress(LabratsError):
            return json.loads(await site.client.request(method, path, content, content_type=content_type))
        await asyncio.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.kubernetes`: measure the engine on real clusters and print a table."""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks import measures
from benchmarks.cluster import JobWatch, Site, running_cluster
from benchmarks.engine import Engine, succeed
from benchmarks.http import connected
from benchmarks.measures import MODEL, Latency, Stopwatch
from labrats.backends.kubernetes.client import ApiClient
from tests.cluster.cluster import Cluster
from tests.cluster.fixture import new_namespace

CLIENTS = 16
ALL_SLOTS = 10_000
NO_AGENT = ({"result": 1},)


@dataclass(frozen=True)
class Size:
    """The extent of a run."""

    alone: int = 20
    at_once: int = 200
    queue: int = 2_000
    finished: Sequence[int] = (2_000, 50_000)
    idle_seconds: float = 30.0
    scrapes: int = 50
    starts: int = 3


QUICK = Size(alone=2, at_once=5, queue=32, finished=(50,), idle_seconds=1.0, scrapes=2, starts=1)
"""Just enough to check that every measurement works."""


@dataclass(frozen=True)
class Row:
    """A line of the table. aim: the project's target."""

    label: str
    measured: str
    aim: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kubernetes", description="Measure on a cluster.")
    parser.add_argument("--quick", action="store_true", help="only check that every measurement works")
    parser.add_argument("--only", choices=["node", "api"], help="run only what needs a node, or what needs none")
    options = parser.parse_args()
    size = QUICK if options.quick else Size()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start\n")
    print(f"{'':62}{'measured':>14}{'aim':>12}")
    with tempfile.TemporaryDirectory(prefix="labrats-benchmark-") as folder:
        if options.only != "api":
            with running_cluster(with_node=True) as cluster:
                print_rows(uvloop.run(on_a_node(size, cluster, Path(folder, "node"))))
        if options.only != "node":
            without_node(size, Path(folder))


def print_rows(rows: Sequence[Row]) -> None:
    for row in rows:
        print(f"{row.label:62}{row.measured:>14}{row.aim:>12}", flush=True)


def without_node(size: Size, folder: Path) -> None:
    """Run each measurement on a new cluster, so that none affects another. A quick run uses one cluster for all."""
    measurements = [
        partial(creates_from_queue, size, folder=folder / "queue"),
        *(partial(with_finished_jobs, size, folder=folder / f"{each}-jobs", finished=each) for each in size.finished),
    ]
    for together in [measurements] if size is QUICK else [[each] for each in measurements]:
        with running_cluster(with_node=False) as cluster:
            for each in together:
                print_rows(uvloop.run(each(cluster=cluster)))


async def on_a_node(size: Size, cluster: Cluster, folder: Path) -> list[Row]:
    async with (
        Site.open(cluster, folder, with_node=True) as site,
        site.engine() as engine,
        JobWatch.open(site) as watch,
    ):
        await measures.configure_model(engine)
        await measures.set_slots(engine, ALL_SLOTS)
        began = time.perf_counter()
        alone = [await latency_to_job(engine, watch) for _ in range(size.alone)]
        pace_seconds = (time.perf_counter() - began) / size.alone
        bare = await bare_writes(site, next(iter(watch.seen)), size.alone, pace_seconds)
        together = await latencies_to_jobs(engine, watch, size.at_once)
    count, p50, bare_p50 = f"{size.at_once} at once", Latency.of(alone).p50, Latency.of(bare).p50
    return [
        Row("submit → Job, alone on a live node, p50", f"{p50:.1f} ms"),
        Row("raw: the three writes of that by a bare client, p50", f"{bare_p50:.1f} ms"),
        Row("submit → Job, alone, beside the raw writes", f"{p50 / bare_p50:.2f} x", "≤ 1.15 x"),
        Row(f"submit → Job, {count} on a live node, p50", f"{Latency.of(together).p50 / 1000:.2f} s", "≤ 2 s"),
        Row(f"submit → Job, {count} on a live node, p95", f"{Latency.of(together).p95 / 1000:.2f} s"),
    ]


async def bare_writes(site: Site, attempt: str, times: int, pace_seconds: float) -> list[float]:
    """Return the seconds that a bare client takes for the three writes of each start, without which no engine can do:
    create the job, record the start of its attempt, create the Job.

    The client writes copies of the objects of `attempt`, at the same pace, in a namespace without an engine. The Jobs
    are suspended, so that they start no pods.
    """
    path = site.path_of("inferencerequests")
    job = json.loads(await site.client.request("GET", f"{path}/{attempt.rpartition('-')[0]}"))
    manifest = json.loads(await site.client.request("GET", f"{site.jobs_path}/{attempt}"))
    async with new_namespace(site.client) as namespace:
        return await _write_copies(replace(site, namespace=namespace), job, manifest, times, pace_seconds)


async def _write_copies(
    site: Site, job: dict[str, Any], manifest: dict[str, Any], times: int, pace_seconds: float
) -> list[float]:
    job_path = site.path_of("inferencerequests")
    kept = ("attempts", "slot", "startedAt", "deadlineAt")
    status = {field: job["status"][field] for field in kept} | {"phase": "Running"}
    seconds = []
    for number in range(times):
        await asyncio.sleep(pace_seconds)
        name = f"bare-{number}"
        new = {field: job[field] for field in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
        copied = a_copy(manifest, f"{name}-1")
        copied["spec"]["suspend"] = True
        bodies = [json.dumps(body).encode() for body in (new, copied)]
        began = time.perf_counter()
        created = json.loads(await site.client.request("POST", job_path, bodies[0]))
        started = json.dumps(created | {"status": status}).encode()
        await site.client.request("PUT", f"{job_path}/{name}/status", started)
        await site.client.request("POST", site.jobs_path, bodies[1])
        seconds.append(time.perf_counter() - began)
    return seconds


async def latency_to_job(engine: Engine, watch: JobWatch) -> float:
    """Submit a job, wait for its end, and return the seconds from its submission until its Job existed."""
    async with connected(engine.port) as connection:
        sent = time.time()
        job_id = (await succeed(connection, measures.submission(engine, NO_AGENT))).json["jobId"]
        seen = await watch.until(f"{job_id}-1")
    await measures.wait_until_idle(engine)
    return seen - sent


async def latencies_to_jobs(engine: Engine, watch: JobWatch, jobs: int) -> list[float]:
    """Submit many jobs at once, and return the seconds until the Job of each exists."""
    async with asyncio.TaskGroup() as clients:
        tasks = [clients.create_task(_submit_and_watch(engine, watch)) for _ in range(jobs)]
    return [task.result() for task in tasks]


async def _submit_and_watch(engine: Engine, watch: JobWatch) -> float:
    async with connected(engine.port) as connection:
        sent = time.time()
        job_id = (await succeed(connection, measures.submission(engine, NO_AGENT))).json["jobId"]
    return await watch.until(f"{job_id}-1") - sent


async def creates_from_queue(size: Size, cluster: Cluster, folder: Path) -> list[Row]:
    async with Site.open(cluster, folder, with_node=False) as site:
        async with site.engine() as engine, JobWatch.open(site) as watch:
            await measures.configure_model(engine)
            idle = engine.resident_mib()
            submitted = await measures.submit_at_once(engine, size.queue, CLIENTS)
            waiting = engine.resident_mib()
            jobs, stopwatch, began = await measures.count(engine, "waiting"), Stopwatch(engine), time.time()
            await measures.set_slots(engine, ALL_SLOTS)
            seconds = await watch.until_count(jobs) - began
            started = stopwatch.read(jobs)
            running = engine.resident_mib()
        raw = await raw_creates_per_second(site, cluster, jobs)
    rate = jobs / seconds
    return [
        Row(f"submit, {CLIENTS} clients", f"{submitted.per_second:.0f}/s"),
        Row(f"Job creates from a queue of {jobs:,}", f"{rate:.0f}/s", "≥ 150/s"),
        Row(f"raw: the same Jobs created by {CLIENTS} bare clients", f"{raw:.0f}/s"),
        Row("Job creates, beside the raw rate", f"{rate / raw:.2f} x"),
        Row("engine, CPU per job: submit", f"{submitted.engine_cpu_ms:.2f} ms"),
        Row("engine, CPU per job: start", f"{started.engine_cpu_ms:.2f} ms"),
        Row("engine, memory, before the first job", f"{idle:.0f} MiB"),
        Row(f"engine, memory, {jobs:,} jobs waiting", f"{waiting:.0f} MiB"),
        Row(f"engine, memory, {jobs:,} jobs running", f"{running:.0f} MiB"),
    ]


async def raw_creates_per_second(site: Site, cluster: Cluster, jobs: int) -> float:
    """Return the rate at which CLIENTS bare clients create the same Jobs, each one Job after the other."""
    found = json.loads(await site.client.request("GET", site.jobs_path, query={"limit": "1"}))["items"][0]
    bodies = [json.dumps(a_copy(found, f"raw-{number}")).encode() for number in range(jobs)]
    async with ApiClient.open(cluster.kubeconfig) as client:

        async def create() -> None:
            while bodies:
                await client.request("POST", site.jobs_path, bodies.pop())

        began = time.perf_counter()
        await asyncio.gather(*(create() for _ in range(CLIENTS)))
        return jobs / (time.perf_counter() - began)


def a_copy(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the manifest of a copy of a Job, with another name and without an owner."""
    labels = {"app": "raw"}
    template = {"metadata": {"labels": labels}, "spec": job["spec"]["template"]["spec"]}
    kept = ("backoffLimit", "completions", "parallelism", "podReplacementPolicy", "activeDeadlineSeconds")
    spec = {field: job["spec"][field] for field in kept} | {"template": template}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


async def with_finished_jobs(size: Size, cluster: Cluster, folder: Path, finished: int) -> list[Row]:
    """Measure engines that start in a namespace with many ended jobs and one waiting job."""
    among = f"{finished:,} finished jobs"
    async with Site.open(cluster, folder, with_node=False) as site:
        await site.create("aimodels", {"provider": "mock", "model": MODEL, "slots": ALL_SLOTS}, MODEL)
        await site.create_finished_jobs(finished)
        ready, first_job, raw = [], [], []
        for number in range(size.starts):
            spec = {"source": "kubectl", "type": "no-op", "prompt": "-", "config": {"provider": "mock", "model": MODEL}}
            await site.create("inferencerequests", spec, f"next-{number}")
            async with JobWatch.open(site) as watch:
                began = time.time()
                async with site.engine() as engine:
                    ready.append(engine.start_seconds)
                    first_job.append(await watch.until(f"next-{number}-1") - began)
            raw.append(await raw_list_seconds(site))
        async with site.engine() as engine:
            await asyncio.sleep(size.idle_seconds / 3)
            stopwatch = engine.cpu_seconds()
            await asyncio.sleep(size.idle_seconds)
            idle = (engine.cpu_seconds() - stopwatch) / size.idle_seconds
            resident = engine.resident_mib()
            scrape = await measures.call_latency(engine, "/metrics", size.scrapes)
            page = await measures.call_latency(engine, "/api/jobs?limit=20", size.scrapes)
        async with site.engine("controller"), site.engine("controller") as standby, site.engine("api") as api:
            await asyncio.sleep(size.idle_seconds / 3)
            standby_mib, api_mib = standby.resident_mib(), api.resident_mib()
    few = finished <= 2_000
    return [
        Row(f"from exec to ready, {among}", f"{median(ready):.2f} s", "≤ 1 s" if few else "≤ 10 s"),
        Row(f"raw: the list of {among} read by a bare client", f"{median(raw):.2f} s"),
        Row("from exec to ready, relative to the raw list", f"{median(ready) / median(raw):.2f} x"),
        Row(f"from exec to the next Job, {among}", f"{median(first_job):.2f} s", "≤ 1 s" if few else ""),
        Row(f"engine, CPU when idle, {among}", f"{idle:.1%}", "≤ 2 %"),
        Row(f"engine, memory, {among}", f"{resident:.0f} MiB", "≤ 300 MiB"),
        Row(f"API alone, memory, {among}", f"{api_mib:.0f} MiB", "≤ 250 MiB"),
        Row(f"standby controller, memory, {among}", f"{standby_mib:.0f} MiB", "≤ 120 MiB"),
        Row(f"one scrape of /metrics, {among}, p50", f"{scrape.p50:.1f} ms"),
        Row(f"list of 20 out of {among}, p50", f"{page.p50:.1f} ms"),
    ]


async def raw_list_seconds(site: Site) -> float:
    """Return the seconds in which a client reads all jobs, in the pages that the engine requests, and decodes none."""
    began = time.perf_counter()
    async for _ in site.client.pages(site.path_of("inferencerequests"), {}):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""A real cluster for benchmarks, and a watch of the Jobs that the engine creates on it."""

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.engine import Engine, running_engine
from benchmarks.finished_jobs import a_finished_job
from labrats.backends.kubernetes.batch_objects import JOB_LABEL
from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.store import KubernetesStore
from labrats.model.errors import RetryLater
from labrats.model.record import encode
from tests.cluster.cluster import ETCD, Cluster
from tests.cluster.fixture import fence_leaders, install_custom_resources, new_namespace
from tests.cluster.node import start_node
from tests.cluster.product import EXECUTOR
from tests.cluster.shell import run


@contextmanager
def running_cluster(*, with_node: bool) -> Iterator[Cluster]:
    """Run a new cluster during the block."""
    cluster = Cluster(f"bench-{os.getpid()}", memory="6GiB")
    try:
        if with_node:
            EXECUTOR.archive()
            start_node(cluster)
        else:
            cluster.start_api()
        asyncio.run(install_custom_resources(cluster.kubeconfig))
        yield cluster
    finally:
        cluster.stop()


@dataclass(frozen=True)
class Site:
    """A namespace of the cluster, and a data folder for engines, which run outside of the cluster."""

    cluster: Cluster
    client: ApiClient
    namespace: str
    folder: Path
    environment: dict[str, str]

    @classmethod
    @asynccontextmanager
    async def open(cls, cluster: Cluster, folder: Path, *, with_node: bool) -> "AsyncIterator[Site]":
        image = EXECUTOR.on(cluster) if with_node else "none"
        async with ApiClient.open(cluster.kubeconfig) as client, new_namespace(client) as namespace:
            await fence_leaders(client)
            environment = {
                "LABRATS_BACKEND": "kubernetes",
                "KUBECONFIG": str(cluster.kubeconfig),
                "LABRATS_NAMESPACE": namespace,
                "LABRATS_EXECUTOR_IMAGE": image,
                "LABRATS_EXECUTOR_RESOURCES": json.dumps({"requests": {"cpu": "1m"}, "limits": {"memory": "256Mi"}}),
                "LABRATS_EXECUTOR_SCRATCH": "100Mi",
                "LABRATS_EXECUTOR_POD": json.dumps({"dnsPolicy": "Default"}),
            }
            yield cls(cluster, client, namespace, folder, environment)

    def engine(self, role: str = "all") -> AbstractAsyncContextManager[Engine]:
        """Run an engine on the namespace, or a part of it. A later engine finds the resources of earlier ones."""
        self.folder.mkdir(exist_ok=True)
        return running_engine(self.folder, program=None, **self.environment, LABRATS_ROLE=role)

    @property
    def jobs_path(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    async def create(self, plural: str, spec: dict[str, Any], name: str) -> None:
        """Create a custom resource without the engine's API, as kubectl does."""
        kind = {"inferencerequests": "InferenceRequest", "aimodels": "AiModel"}[plural]
        body = {"apiVersion": "labrats.work/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self.client.request("POST", self.path_of(plural), encode(body))

    def path_of(self, plural: str) -> str:
        """Return the path of a collection of custom resources."""
        return f"/apis/labrats.work/v1alpha1/namespaces/{self.namespace}/{plural}"

    async def create_finished_jobs(self, jobs: int) -> None:
        """Add ended jobs without prompts. The store writes one job; the others are copies of it, put into etcd.

        Return once the API server has read them from there, which can take a minute.
        """
        async with KubernetesStore.open(self.client, self.namespace) as store:
            first = a_finished_job(0)
            await store.update(replace(await store.create(first), status=first.status))
        stored = json.loads(await self.client.request("GET", f"{self.path_of('inferencerequests')}/{first.name}"))
        del stored["metadata"]["resourceVersion"]
        lines = "".join(self._line_for_etcd(stored, a_finished_job(number).name) for number in range(1, jobs))
        program = self.cluster.inside(sys.executable, "-m", "benchmarks.etcd", ETCD)
        await asyncio.to_thread(run, *program, stdin=lines)
        newest = json.loads(await self.client.request("GET", self.path_of("inferencerequests"), query={"limit": "1"}))
        is_read = {"resourceVersion": newest["metadata"]["resourceVersion"], "resourceVersionMatch": "NotOlderThan"}
        while True:
            with suppress(RetryLater):  # the API server has not read that version yet
                await self.client.request("GET", self.path_of("inferencerequests"), query=is_read | {"limit": "1"})
                return

    def _line_for_etcd(self, stored: dict[str, Any], name: str) -> str:
        copied = stored | {"metadata": stored["metadata"] | {"name": name, "uid": str(uuid.uuid4())}}
        return f"/registry/labrats.work/inferencerequests/{self.namespace}/{name}\t{json.dumps(copied)}\n"


class JobWatch:
    """A watch of Jobs. seen: the time at which each new Job was reported, by name, in seconds since the epoch."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, site: Site) -> "AsyncIterator[JobWatch]":
        """Watch new Jobs during the block. Jobs that exist already are not reported."""
        watch, started = cls(), json.loads(await site.client.request("GET", site.jobs_path, query={"limit": "1"}))
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(watch._follow(site, started["metadata"]["resourceVersion"]))
            yield watch
            following.cancel()

    async def until(self, *names: str) -> float:
        """Wait until all these Jobs exist. Return the time at which the last of them was reported."""
        while not self.seen.keys() >= set(names):
            await self._next()
        return max(self.seen[name] for name in names)

    async def until_count(self, jobs: int) -> float:
        """Wait until `jobs` Jobs exist. Return the time at which the last of them was reported."""
        while len(self.seen) < jobs:
            await self._next()
        return max(self.seen.values())

    async def _next(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _follow(self, site: Site, version: str) -> None:
        query = {"watch": "true", "resourceVersion": version, "labelSelector": JOB_LABEL}
        async with aclosing(site.client.batches(site.jobs_path, query)) as batches:
            async for lines in batches:
                now = time.time()
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ADDED":
                        self.seen[event["object"]["metadata"]["name"]] = now
                self._changed.set()
        raise RuntimeError("the API server ended the watch of Jobs")  # as it does when the reader is too slow

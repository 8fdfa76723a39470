"""Tries whether jobs' pods reach what they should not.

A NetworkPolicy is an object like any other: a cluster takes it, and it is up to its network to do what it says. Some do
nothing, and say nothing. So a leader has a pod, which for the policies is a job's, knock at the leader's own door.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from labrats.backends.kubernetes.batch_client import JobsApi
from labrats.backends.kubernetes.batch_objects import CONTAINER, PodObject
from labrats.backends.kubernetes.network_probe import CLOSED, OPEN
from labrats.backends.kubernetes.pod import EXECUTOR_LABELS, RESTRICTED_CONTAINER, RESTRICTED_POD
from labrats.metrics import Metrics
from labrats.model.errors import LabratsError

log = structlog.get_logger()

PATIENCE_SECONDS: Final = 120
"""How long the pod may take. On a full cluster it waits for a place as any other."""

LOOK_SECONDS: Final = 2.0

KEPT_SECONDS: Final = 15
"""How long its Job stays when it has ended, should its leader end before it has looked, and not delete it."""


@dataclass(frozen=True)
class Canary:
    """name: of its Job. image: the engine's. address, port: where it knocks. pod_fields: of all jobs' pods."""

    name: str
    image: str
    address: str
    port: int
    pod_fields: Mapping[str, Any]


async def look_at_network(jobs: JobsApi, canary: Canary, metrics: Metrics) -> None:
    """Say so where jobs' pods reach what they should not."""
    closed = await network_is_closed(jobs, canary)
    if closed is None:
        log.warning("whether jobs are kept from the cluster's network could not be told")
        return
    metrics.degraded.labels("network-policy").set(not closed)
    if not closed:
        log.warning("degraded: jobs can reach the cluster's network, since nothing enforces its NetworkPolicies")


async def network_is_closed(jobs: JobsApi, canary: Canary) -> bool | None:
    """Whether the canary was kept from its address; None when it cannot be told."""
    try:
        job = await jobs.create_job(canary_job(canary))
        try:
            return await _answer(jobs, canary.name)
        finally:
            await jobs.delete_job(job)
    except (LabratsError, TimeoutError):
        return None


async def _answer(jobs: JobsApi, name: str) -> bool | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (code := _exit_code(await jobs.pods_of(name))) is None:
            await asyncio.sleep(LOOK_SECONDS)
    return {CLOSED: True, OPEN: False}.get(code)


def _exit_code(pods: list[PodObject]) -> int | None:
    return next((end.exit_code for pod in pods if (end := pod.state.terminated)), None)


def canary_job(canary: Canary) -> dict[str, Any]:
    """The Job of a pod that is a job's as far as the network's policies can tell."""
    program = ["python", "-m", "labrats.backends.kubernetes.network_probe", canary.address, str(canary.port)]
    container = {
        **RESTRICTED_CONTAINER,
        "name": CONTAINER,
        "image": canary.image,
        "command": program,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": canary.name, "labels": EXECUTOR_LABELS},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": PATIENCE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": EXECUTOR_LABELS},
                "spec": {**canary.pod_fields, **RESTRICTED_POD, "containers": [container]},
            },
        },
    }

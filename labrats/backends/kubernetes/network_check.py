"""Tries whether jobs' pods reach what they should not.

A NetworkPolicy is an object like any other: a cluster takes it, and it is up to its network to do what it says. Some do
nothing, and say nothing. So a leader has a pod, which for the policies is a job's, knock at the leader's own door.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from labrats.backends.kubernetes.batch_client import BatchClient
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
class NetworkCheck:
    """name: of its Job. image: the engine's. address, port: where it knocks. pod_fields: of all jobs' pods."""

    name: str
    image: str
    address: str
    port: int
    pod_fields: Mapping[str, Any]


async def check_network(jobs: BatchClient, network_check: NetworkCheck, metrics: Metrics) -> None:
    """Say so where jobs' pods reach what they should not."""
    closed = await network_is_closed(jobs, network_check)
    if closed is None:
        log.warning("whether jobs are kept from the cluster's network could not be told")
        return
    metrics.degraded.labels("network-policy").set(not closed)
    if not closed:
        log.warning("degraded: jobs can reach the cluster's network, since nothing enforces its NetworkPolicies")


async def network_is_closed(jobs: BatchClient, network_check: NetworkCheck) -> bool | None:
    """Return whether the pod was kept from its address; None when it cannot be told."""
    try:
        job = await jobs.create_job(network_check_job(network_check))
        try:
            return await _answer(jobs, network_check.name)
        finally:
            await jobs.delete_job(job)
    except (LabratsError, TimeoutError):
        return None


async def _answer(jobs: BatchClient, name: str) -> bool | None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (code := _exit_code(await jobs.pods_of(name))) is None:
            await asyncio.sleep(LOOK_SECONDS)
    return {CLOSED: True, OPEN: False}.get(code)


def _exit_code(pods: list[PodObject]) -> int | None:
    return next((end.exit_code for pod in pods if (end := pod.state.terminated)), None)


def network_check_job(network_check: NetworkCheck) -> dict[str, Any]:
    """The Job of a pod that is a job's as far as the network's policies can tell."""
    program = [
        "python",
        "-m",
        "labrats.backends.kubernetes.network_probe",
        network_check.address,
        str(network_check.port),
    ]
    container = {
        **RESTRICTED_CONTAINER,
        "name": CONTAINER,
        "image": network_check.image,
        "command": program,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": network_check.name, "labels": EXECUTOR_LABELS},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": PATIENCE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": EXECUTOR_LABELS},
                "spec": {**network_check.pod_fields, **RESTRICTED_POD, "containers": [container]},
            },
        },
    }

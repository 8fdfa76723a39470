"""Checks that NetworkPolicies keep the pods of jobs from the cluster's network.

A cluster accepts NetworkPolicies even if its network plugin does not enforce them, and then reports nothing. So the
leader starts a pod with the labels of a job's pod, which tries to connect to the leader.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import structlog

from labrats.backends.kubernetes.batch_client import BatchClient
from labrats.backends.kubernetes.batch_objects import CONTAINER, PodObject
from labrats.backends.kubernetes.egress import OPEN_CHECK, RULES_CHECK, record_check
from labrats.backends.kubernetes.network_probe import CLOSED, OPEN
from labrats.backends.kubernetes.restricted_pod import (
    CONFINED_LABELS,
    EXECUTOR_LABELS,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
)
from labrats.metrics import Metrics
from labrats.model.errors import LabratsError

log = structlog.get_logger()

TIMEOUT_SECONDS: Final = 120
"""Time limit for the pod, which may have to wait for a node on a full cluster."""

POLL_SECONDS: Final = 2.0

RECHECK_SECONDS: Final = 60.0
"""Pause after a check without a result, for example because no node had room for its pod."""

RETENTION_SECONDS: Final = 15
"""Lifetime of a finished Job that its leader does not delete, because the leader ended first."""


@dataclass(frozen=True)
class NetworkCheck:
    """A pod that tries to connect to the leader.

    name:          beginning of the name of its Job. What follows keeps it apart from the Jobs of attempts, which end in
                   a number: whoever may create jobs could otherwise take the name.
    image:         image of the engine.
    address, port: address of the leader.
    pod_fields:    further fields of the pod's spec, the same as for the pods of jobs.
    labels:        those by which NetworkPolicies select the pods of jobs.
    """

    name: str
    image: str
    address: str
    port: int
    pod_fields: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=lambda: EXECUTOR_LABELS)


async def check_rules(jobs: BatchClient, network_check: NetworkCheck, folder: Path) -> None:
    """Store whether the pods of jobs with a network rule are kept from the cluster's network, once that is known.

    folder: of the file, which all processes of the engine read. They refuse network rules if the pods are not.
    """
    of_rules = replace(network_check, name=f"{network_check.name}-rules", labels=CONFINED_LABELS)
    closed = await _result(jobs, of_rules, "network check failed: unknown whether network rules are enforced")
    await _record(folder / RULES_CHECK, is_enforced=closed)
    if not closed:
        log.warning("network rules refused: nothing enforces the cluster's NetworkPolicies")


async def check_network(jobs: BatchClient, network_check: NetworkCheck | None, metrics: Metrics, folder: Path) -> None:
    """Report in the metrics and the log, and store, whether the pods of jobs are kept from the cluster's network.

    Returns once that is known.

    network_check: None for an installation without NetworkPolicies. folder: see `check_rules`; jobs of external
    contributors are refused if the pods are not.
    """
    closed = False
    if network_check:
        of_open_jobs = replace(network_check, name=f"{network_check.name}-open")
        closed = await _result(jobs, of_open_jobs, "network check failed: unknown whether NetworkPolicies are enforced")
    await _record(folder / OPEN_CHECK, is_enforced=closed)
    metrics.degraded.labels("network-policy").set(not closed)
    if not closed:
        log.warning("degraded: jobs can reach the cluster's network, since nothing enforces its NetworkPolicies")


async def _result(jobs: BatchClient, network_check: NetworkCheck, unknown: str) -> bool:
    """Check until the result is known. unknown: logged after each check without a result."""
    while (closed := await network_is_closed(jobs, network_check)) is None:
        log.warning(unknown)
        await asyncio.sleep(RECHECK_SECONDS)
    return closed


async def _record(file: Path, *, is_enforced: bool) -> None:
    try:
        await asyncio.to_thread(record_check, file, is_enforced=is_enforced)
    except OSError as error:
        log.warning("result of the network check not stored", reason=str(error))


async def network_is_closed(jobs: BatchClient, network_check: NetworkCheck) -> bool | None:
    """Return whether the pod failed to connect to the leader; None if the check itself failed."""
    try:
        job = await jobs.create_job(network_check_job(network_check))
        try:
            return await _wait_for_result(jobs, network_check.name)
        finally:
            await jobs.delete_job(job)
    except (LabratsError, TimeoutError):
        return None


async def _wait_for_result(jobs: BatchClient, name: str) -> bool | None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (code := _exit_code(await jobs.pods_of(name))) is None:
            await asyncio.sleep(POLL_SECONDS)
    return {CLOSED: True, OPEN: False}.get(code)


def _exit_code(pods: list[PodObject]) -> int | None:
    return next((end.exit_code for pod in pods if (end := pod.state.terminated)), None)


def network_check_job(network_check: NetworkCheck) -> dict[str, Any]:
    """Return the Job of the check. NetworkPolicies treat its pod as the pod of a job, since it has the same labels."""
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
        "metadata": {"name": network_check.name, "labels": network_check.labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": TIMEOUT_SECONDS,
            "ttlSecondsAfterFinished": RETENTION_SECONDS,
            "template": {
                "metadata": {"labels": network_check.labels},
                "spec": {**network_check.pod_fields, **RESTRICTED_POD, "containers": [container]},
            },
        },
    }

"""Builders of Jobs and pods, with defaults for fields that a test does not set."""

from typing import Any

import msgspec

from labrats.backends.kubernetes.batch_objects import JobObject, PodObject
from labrats.model.attempt_name import AttemptName

NAME = AttemptName("ir-0000000a", 1)


def a_job_object(
    *conditions: dict[str, str], annotations: dict[str, str] | None = None, failed: int = 0, **metadata: Any
) -> JobObject:
    """Return the Job of an attempt. conditions: conditions of its status, which are true. failed: its failed pods."""
    meta = {"name": str(NAME), "annotations": annotations or {}, **metadata}
    status = {"conditions": [{"status": "True", **condition} for condition in conditions], "failed": failed}
    return msgspec.convert({"metadata": meta, "status": status}, JobObject)


def a_pod_object(
    state: dict[str, Any] | None = None,
    *,
    node: str = "node-1",
    deleted: bool = False,
    steps: dict[str, dict[str, Any]] | None = None,
    **status: Any,
) -> PodObject:
    """Return the pod of that Job.

    state:  state of the executor's container.
    steps:  states of the containers before it.
    status: further fields of the pod's status.
    """
    labels = {"labrats.work/job": "ir-0000000a", "labrats.work/attempt": "1"}
    meta = {"name": f"{NAME}-x7k2p", "labels": labels} | (
        {"deletionTimestamp": "2026-01-01T12:00:00Z"} if deleted else {}
    )
    container = {"name": "executor", "image": "labrats/executor:1", "resources": {"limits": {"memory": "2Gi"}}}
    statuses = [{"name": "executor", "state": state}] if state else []
    pod = {
        "metadata": meta,
        "spec": {
            "nodeName": node,
            "containers": [container],
            "initContainers": [container | {"name": name} for name in steps or ()],
        },
        "status": {
            "containerStatuses": statuses,
            "initContainerStatuses": [{"name": name, "state": each} for name, each in (steps or {}).items()],
            **status,
        },
    }
    return msgspec.json.decode(msgspec.json.encode(pod), type=PodObject)

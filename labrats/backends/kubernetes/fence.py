"""Has the API server refuse what a former leader decided.

A leader names its epoch as the field manager of all it writes. An admission policy compares that with the Lease, within
the request itself: so a write that was on its way when the lead changed is refused too. What others write, such as the
API, names no epoch, and passes.
"""

import asyncio
from typing import Any, Final

import structlog

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.leader import LEASE
from labrats.metrics import Metrics
from labrats.model.errors import LabratsError
from labrats.model.record import encode

log = structlog.get_logger()

POLICY: Final = "labrats-leader"
REFUSAL: Final = "another engine leads by now"
PATIENCE_SECONDS: Final = 3.0
"""How long the API server may take to learn of a new leader, before the policy is presumed not to be there."""

_PREFIX: Final = "labrats-leader-"


def field_manager(epoch: int) -> str:
    """Whom a leader's writes name."""
    return f"{_PREFIX}{epoch}"


def leader_policy() -> list[dict[str, Any]]:
    """The policy and its binding, for a whole cluster: in each namespace the Lease there counts."""
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": POLICY},
            "spec": {
                "failurePolicy": "Fail",
                "paramKind": {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"},
                "matchConstraints": {
                    "resourceRules": [
                        _rule("labrats.work", "inferencerequests/status", "UPDATE"),
                        _rule("batch", "jobs", "CREATE", "UPDATE"),
                    ]
                },
                "matchConditions": [
                    {"name": "is-by-a-leader", "expression": f"{_MANAGER}.startsWith('{_PREFIX}')"},
                ],
                "validations": [
                    {
                        "expression": f"{_MANAGER} == '{_PREFIX}' + string(params.spec.leaseTransitions)",
                        "message": REFUSAL,
                        "reason": "Forbidden",  # unlike an invalid object, nothing that the job is to blame for
                    }
                ],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": POLICY},
            "spec": {
                "policyName": POLICY,
                "paramRef": {"name": LEASE, "parameterNotFoundAction": "Allow"},
                "validationActions": ["Deny"],
            },
        },
    ]


_MANAGER: Final = "(has(request.options.fieldManager) ? request.options.fieldManager : '')"


def _rule(group: str, resource: str, *operations: str) -> dict[str, Any]:
    return {"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": list(operations)}


async def look_at_fence(client: ApiClient, namespace: str, epoch: int, metrics: Metrics) -> None:
    """Say so where the API server would take what a former leader writes."""
    fenced = await former_leaders_are_fenced(client, namespace, epoch)
    metrics.degraded.labels("leader-fence").set(not fenced)
    if not fenced:
        log.warning("degraded: former leaders are not kept from writing, since the admission policy is missing")


async def former_leaders_are_fenced(client: ApiClient, namespace: str, epoch: int) -> bool:
    """Whether the API server refuses what the epoch before `epoch` would write. Waits a moment for it to learn."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _refuses(client, namespace, epoch - 1):
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


async def _refuses(client: ApiClient, namespace: str, epoch: int) -> bool:
    query = {"dryRun": "All", "fieldManager": field_manager(epoch)}
    pod = {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}
    job = {"metadata": {"generateName": "labrats-fence-"}, "spec": {"template": {"spec": pod}}}
    try:
        await client.request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", encode(job), query=query)
    except LabratsError as error:
        return REFUSAL in str(error)
    return False

"""Has the API server refuse what a former leader decided.

A leader names its epoch as the field manager of all it writes. An admission policy compares that with the Lease, within
the request itself: so a write that was on its way when the lead changed is refused too. What others write, such as the
API, names no epoch, and passes.
"""

import asyncio
from typing import Any, Final

import msgspec
import structlog

from labrats.backends.kubernetes.client import ApiClient
from labrats.backends.kubernetes.leader import LEASE, Lease
from labrats.metrics import Metrics
from labrats.model.errors import LabratsError
from labrats.model.record import encode

log = structlog.get_logger()

POLICY: Final = "labrats-leader"
REFUSAL: Final = "another engine leads by now"
PATIENCE_SECONDS: Final = 3.0
"""How long the API server may take to learn of a new leader, before the policy is presumed not to be there."""

UNFENCED: Final = "labrats-engine"
"""Whom the writes of a leader name that the policy would refuse by mistake. They pass, as those of all others do."""

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


class Fence:
    """What a new leader finds of it. manager: whom its writes name, from then on."""

    def __init__(self, client: ApiClient, namespace: str, metrics: Metrics) -> None:
        self._client, self._namespace, self._metrics = client, namespace, metrics
        self.manager = ""

    async def look(self, epoch: int) -> None:
        """Say so where the API server would take what a former leader writes, and see to it that it takes this one's.

        One that has not had a policy with a Lease for a moment keeps in mind the Leases of that time, until it is
        restarted (kubernetes/kubernetes#130887): then it takes every leader since for a former one.
        """
        fenced = await former_leaders_are_fenced(self._client, self._namespace, epoch)
        # In this order: refused by a policy that is up to date, this engine leads no more by the time it is read.
        outdated = not fenced and await _refuses(self._client, self._namespace, epoch) and await self._leads(epoch)
        self.manager = UNFENCED if outdated else field_manager(epoch)
        self._metrics.degraded.labels("leader-fence").set(not fenced)
        if outdated:
            log.warning(
                "degraded: former leaders are not kept from writing, since the API server does not see who leads: it "
                "was without the admission policy for a while, and has to be restarted"
            )
        elif not fenced:
            log.warning("degraded: former leaders are not kept from writing, since the admission policy is missing")

    async def _leads(self, epoch: int) -> bool:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{LEASE}"
        try:
            lease = msgspec.json.decode(await self._client.request("GET", path), type=Lease)
        except LabratsError:
            return False
        return lease.spec.lease_transitions == epoch


async def former_leaders_are_fenced(client: ApiClient, namespace: str, epoch: int) -> bool:
    """Whether the API server refuses what the epoch before `epoch` would write, and takes what `epoch` does. Waits a
    moment for it to learn.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _refuses(client, namespace, epoch - 1) or await _refuses(client, namespace, epoch):
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

"""Has the API server refuse what a former leader decided.

A leader names its epoch as the field manager of all it writes. An admission policy compares that with the Lease, within
the request itself: so a write that was on its way when the lead changed is refused too. What others write, such as the
API, names no epoch, and passes.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from labrats.backends.kubernetes.client import ApiClient, ApiServerRefusal
from labrats.backends.kubernetes.leader import LEASE, Lease
from labrats.metrics import Metrics
from labrats.model.errors import Invalid, LabratsError
from labrats.model.record import encode

log = structlog.get_logger()

POLICY: Final = "labrats-leader"
REFUSAL: Final = "another engine leads by now"
PATIENCE_SECONDS: Final = 3.0
"""How long the API server may take to learn of a new leader, before the policy is presumed not to be there."""

LOOK_SECONDS: Final = 30.0
"""How often a leader looks whether that has changed."""

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
    """What a leader finds of it."""

    def __init__(self, client: ApiClient, namespace: str, metrics: Metrics) -> None:
        self._client, self._namespace, self._metrics = client, namespace, metrics
        self._holds = self._is_outdated = False

    def manager(self, epoch: int) -> str:
        """Whom the writes of that leader name, by what was found last."""
        return UNFENCED if self._is_outdated else field_manager(epoch)

    async def look(self, epoch: int) -> None:
        """Say so where the API server would take what a former leader writes, and see to it that it takes this one's.

        One that has not had a policy with a Lease for a moment keeps in mind the Leases of that time, until it is
        restarted (kubernetes/kubernetes#130887): then it takes every leader since for a former one.
        """
        self._holds = await former_leaders_are_fenced(self._client, self._namespace, epoch)
        self._is_outdated = not self._holds and await self._takes_it_for_a_former_one(epoch)
        self._metrics.degraded.labels("leader-fence").set(not self._holds)
        if self._is_outdated:
            log.warning(
                "degraded: former leaders are not kept from writing, since the API server does not see who leads: it "
                "was without the admission policy for a while, and has to be restarted"
            )
        elif not self._holds:
            log.warning("degraded: former leaders are not kept from writing, since the admission policy is missing")

    async def keep_looking(self, epoch: int) -> None:
        """Look whenever it has changed, while that leader leads: the policy may be applied or deleted at any time."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(LabratsError):
                if await _holds(self._client, self._namespace, epoch) != self._holds:
                    await self.look(epoch)

    async def _takes_it_for_a_former_one(self, epoch: int) -> bool:
        """Asked in this order: refused by a policy that is up to date, it leads no more by the time that is read."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{LEASE}"
        try:
            if not await _refuses(self._client, self._namespace, epoch):
                return False
            lease = msgspec.json.decode(await self._client.request("GET", path), type=Lease)
        except LabratsError:
            return False
        return lease.spec.lease_transitions == epoch


async def former_leaders_are_fenced(client: ApiClient, namespace: str, epoch: int) -> bool:
    """Whether the API server refuses what the epoch before `epoch` would write, and takes what `epoch` does. Waits a
    moment for it to learn.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with suppress(LabratsError):
                    if await _holds(client, namespace, epoch):
                        return True
                await asyncio.sleep(0.05)
    return False


async def _holds(client: ApiClient, namespace: str, epoch: int) -> bool:
    """The same, at this moment. Raises LabratsError when the API server cannot be asked."""
    return await _refuses(client, namespace, epoch - 1) and not await _refuses(client, namespace, epoch)


async def _refuses(client: ApiClient, namespace: str, epoch: int) -> bool:
    query = {"dryRun": "All", "fieldManager": field_manager(epoch)}
    pod = {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}
    job = {"metadata": {"generateName": "labrats-fence-"}, "spec": {"template": {"spec": pod}}}
    try:
        await client.request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", encode(job), query=query)
    except (ApiServerRefusal, Invalid) as error:  # a quota or another policy may refuse it too
        return REFUSAL in str(error)
    return False

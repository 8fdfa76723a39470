"""Fencing: the API server refuses writes of former leaders.

A leader sends its epoch as the field manager of every write. An admission policy compares that epoch with the Lease
while the API server handles the request, so a write that was in flight when leadership changed is refused, too. Writes
of other clients, such as the API, name no epoch and pass.
"""

import asyncio
import time
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
MISSING_SECONDS: Final = 3.0
"""Time for which an API server accepts writes of a former leader until the policy is considered missing."""

OUTDATED_SECONDS: Final = 15.0
"""Time for an API server with the policy to see a new leader. A busy one needs more than a moment."""

CHECK_SECONDS: Final = 30.0
"""Interval at which a leader checks whether the policy accepts its writes."""

UNFENCED: Final = "labrats-engine"
"""Field manager of a leader that the policy refuses by mistake. It names no epoch, so the policy ignores it."""

_PREFIX: Final = "labrats-leader-"


def field_manager(epoch: int) -> str:
    """Return the field manager of a leader."""
    return f"{_PREFIX}{epoch}"


def leader_policy() -> list[dict[str, Any]]:
    """Return the policy and its binding, both cluster-wide. A write is compared with the Lease in its namespace."""
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
                        "reason": "Forbidden",  # Invalid would be blamed on the job
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
    """The check of a leader whether fencing works."""

    def __init__(self, client: ApiClient, namespace: str, metrics: Metrics) -> None:
        self._client, self._namespace, self._metrics = client, namespace, metrics
        self._is_fenced = self._is_outdated = False

    def manager(self, epoch: int) -> str:
        """Return the field manager for the writes of that leader, by the result of the last check."""
        return UNFENCED if self._is_outdated else field_manager(epoch)

    async def check(self, epoch: int) -> None:
        """Check whether former leaders are fenced, report it, and make sure that this leader can write.

        An API server that was without any policy that reads Leases keeps the Leases of that time in its cache until it
        is restarted (kubernetes/kubernetes#130887). It then refuses every later leader as a former one.
        """
        self._is_fenced = await former_leaders_are_fenced(self._client, self._namespace, epoch)
        self._is_outdated = not self._is_fenced and await self._is_refused_by_mistake(epoch)
        self._metrics.degraded.labels("leader-fence").set(not self._is_fenced)
        if self._is_outdated:
            log.warning(
                "degraded: former leaders are not fenced, since the API server does not see who leads: it was without "
                "the admission policy for a while; restart it"
            )
        elif not self._is_fenced:
            log.warning("degraded: former leaders are not fenced, since the admission policy is missing")

    async def check_periodically(self, epoch: int) -> None:
        """Check again once the policy refuses this leader, or no longer does, until cancelled.

        Only writes of this leader are tried, which are accepted: a refused one of a former leader would stand in the
        audit log each time.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with suppress(LabratsError):
                if await _refuses(self._client, self._namespace, epoch) != self._is_outdated:
                    await self.check(epoch)

    async def _is_refused_by_mistake(self, epoch: int) -> bool:
        """Return whether the policy refuses this epoch although the Lease has it.

        The Lease is read last: if an up-to-date policy refused the epoch, the Lease has another one by then.
        """
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{LEASE}"
        try:
            if not await _refuses(self._client, self._namespace, epoch):
                return False
            lease = msgspec.json.decode(await self._client.request("GET", path), type=Lease)
        except LabratsError:
            return False
        return lease.spec.lease_transitions == epoch


async def former_leaders_are_fenced(client: ApiClient, namespace: str, epoch: int) -> bool:
    """Return whether the API server refuses writes of the previous epoch and accepts those of `epoch`.

    Waits up to `MISSING_SECONDS` for the policy, and up to `OUTDATED_SECONDS` for a policy to see the new leader.
    """
    missing_at = time.monotonic() + MISSING_SECONDS
    with suppress(TimeoutError):
        async with asyncio.timeout(OUTDATED_SECONDS):
            while True:
                with suppress(LabratsError):
                    if await _is_fenced(client, namespace, epoch):
                        return True
                    if time.monotonic() > missing_at and await _is_missing(client, namespace, epoch):
                        return False
                await asyncio.sleep(0.05)
    return False


async def _is_missing(client: ApiClient, namespace: str, epoch: int) -> bool:
    """Return whether the API server refuses neither epoch. Raises LabratsError.

    An outdated policy refuses the new epoch, and then, up to date, the former one: the new one is tried first, so that
    a policy that is brought up to date in between is not missing.
    """
    return not await _refuses(client, namespace, epoch) and not await _refuses(client, namespace, epoch - 1)


async def _is_fenced(client: ApiClient, namespace: str, epoch: int) -> bool:
    """Return the same as `former_leaders_are_fenced` without waiting. Raises LabratsError."""
    return await _refuses(client, namespace, epoch - 1) and not await _refuses(client, namespace, epoch)


async def _refuses(client: ApiClient, namespace: str, epoch: int) -> bool:
    query = {"dryRun": "All", "fieldManager": field_manager(epoch)}
    pod = {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}
    job = {"metadata": {"generateName": "labrats-fence-"}, "spec": {"template": {"spec": pod}}}
    try:
        await client.request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", encode(job), query=query)
    except (ApiServerRefusal, Invalid) as error:  # a quota or another policy may refuse it, too
        return REFUSAL in str(error)
    return False

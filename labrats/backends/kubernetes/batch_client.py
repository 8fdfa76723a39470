"""Requests for the Jobs of attempts and their pods."""

from typing import Any, Final

import msgspec

from labrats.backends.kubernetes.batch_objects import (
    JOB_LABEL,
    ConfigMapObject,
    JobObject,
    LeaseObject,
    PodObject,
    ServiceObject,
)
from labrats.backends.kubernetes.client import MERGE_PATCH, ApiClient, Status
from labrats.backends.kubernetes.failures import AttemptFailure, failure_annotations
from labrats.backends.kubernetes.reflector import ObjectCollection
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import NotFound
from labrats.model.record import encode

_OF_ATTEMPTS: Final = {"labelSelector": JOB_LABEL}
_READ_JOB: Final = msgspec.json.Decoder(JobObject).decode
_READ_POD: Final = msgspec.json.Decoder(PodObject).decode
_READ_SERVICE: Final = msgspec.json.Decoder(ServiceObject).decode
_READ_LEASE: Final = msgspec.json.Decoder(LeaseObject).decode
_READ_CONFIG_MAP: Final = msgspec.json.Decoder(ConfigMapObject).decode


_NODE_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
"""The Leases that nodes renew every ten seconds, by default. A node's Lease is deleted with the node."""


class BatchClient:
    """A client for the Jobs and pods in one namespace. Raises what ApiClient raises."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.client = client
        self._jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._services = f"/api/v1/namespaces/{namespace}/services"
        self._config_maps = f"/api/v1/namespaces/{namespace}/configmaps"

    @property
    def all_jobs(self) -> ObjectCollection[JobObject]:
        """The collection of all Jobs of attempts."""
        return ObjectCollection(JobObject, self._jobs, _READ_JOB, _OF_ATTEMPTS)

    @property
    def all_pods(self) -> ObjectCollection[PodObject]:
        """The collection of all pods of attempts."""
        return ObjectCollection(PodObject, self._pods, _READ_POD, _OF_ATTEMPTS)

    def log_path(self, pod: PodObject) -> str:
        return f"{self._pods}/{pod.name}/log"

    async def create_job(self, manifest: dict[str, Any]) -> JobObject:
        return _READ_JOB(await self.client.request("POST", self._jobs, encode(manifest)))

    async def get_job(self, name: AttemptName) -> JobObject:
        return _READ_JOB(await self.client.request("GET", f"{self._jobs}/{name}"))

    async def pods_of(self, job_name: str) -> list[PodObject]:
        """Return the current pods of a Job."""
        query = {"labelSelector": f"batch.kubernetes.io/job-name={job_name}"}
        return [_READ_POD(item) async for page in self.client.pages(self._pods, query) for item in page.items]

    async def keys_of_config_map(self, name: str) -> set[str] | None:
        """Return the keys of a ConfigMap; None if it does not exist."""
        try:
            found = _READ_CONFIG_MAP(await self.client.request("GET", f"{self._config_maps}/{name}"))
        except NotFound:
            return None
        return {*found.data, *found.binary_data}

    async def node_report(self, node: str) -> str | None:
        """Return when a node last reported that it lives, by its own clock; None if the cluster has no such node."""
        try:
            return _READ_LEASE(await self.client.request("GET", f"{_NODE_LEASES}/{node}")).spec.renew_time
        except NotFound:
            return None

    async def service_addresses(self, name: str) -> tuple[str, ...]:
        """Return the cluster's addresses of a Service, one of each family; none if it does not exist."""
        try:
            found = _READ_SERVICE(await self.client.request("GET", f"{self._services}/{name}"))
        except NotFound:
            return ()
        return found.spec.cluster_ips or tuple(filter(None, [found.spec.cluster_ip]))

    async def pod_addresses(self, service: str) -> list[str]:
        """Return the addresses of the ready pods of a Service; none if it does not exist."""
        try:
            found = _READ_SERVICE(await self.client.request("GET", f"{self._services}/{service}"))
        except NotFound:
            return []
        query = {"labelSelector": ",".join(f"{name}={value}" for name, value in found.spec.selector.items())}
        pods = [_READ_POD(item) async for page in self.client.pages(self._pods, query) for item in page.items]
        return [pod.status.pod_ip for pod in pods if pod.status.pod_ip and pod.condition("Ready")]

    async def fail_job(self, name: AttemptName, failure: AttemptFailure) -> None:
        """Make the Job fail: the cluster stops its pod and creates no other one.

        The Job itself remains, so its name cannot be reused. failure: reason that is recorded on the Job.
        """
        patch = {"spec": {"activeDeadlineSeconds": 0}, "metadata": {"annotations": failure_annotations(failure)}}
        await self.client.request("PATCH", f"{self._jobs}/{name}", encode(patch), content_type=MERGE_PATCH)

    async def delete_job(self, job: JobObject) -> bool:
        """Delete a Job and its pods. Return False if a finalizer still holds the Job."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": job.metadata.uid}}
        answer = await self.client.request("DELETE", f"{self._jobs}/{job.name}", encode(options))
        return bool(msgspec.json.decode(answer, type=Status).details.uid)

    async def end_pod(self, pod: PodObject) -> None:
        """Make the cluster stop the executor, and kill it after its grace period. The pod and its log remain."""
        patch = encode({"spec": {"activeDeadlineSeconds": 1}})
        await self.client.request("PATCH", f"{self._pods}/{pod.name}", patch, content_type=MERGE_PATCH)

    async def kill_pod(self, pod: PodObject) -> None:
        """Kill all processes of a pod, then delete it.

        The grace period is 1 s: with 0, the pod would be deleted at once, and its processes could live on.
        """
        options = {"gracePeriodSeconds": 1, "preconditions": {"uid": pod.metadata.uid}}
        await self.client.request("DELETE", f"{self._pods}/{pod.name}", encode(options))

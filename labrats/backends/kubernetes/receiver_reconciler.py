"""Keeps a receiver on the cluster for each WebhookSource, and says how it stands."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from labrats.backends.kubernetes.client import APPLY, ApiClient
from labrats.backends.kubernetes.receiver_manifests import ReceiverSettings, deployment, ingress, receiver_url, service
from labrats.model.condition import Condition, ConditionFactory
from labrats.model.core_resources import Secret
from labrats.model.errors import LabratsError, RetryLater
from labrats.model.record import encode
from labrats.model.webhook_source import WebhookSource

MANAGER: Final = "labrats-receivers"
"""Whom the objects' fields belong to. The same for every leader, so that each takes away what the last one set."""

_PATHS: Final[Mapping[str, str]] = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
    "Service": "/api/v1/namespaces/{namespace}/services/{name}",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}",
}


class ReceiverReconciler:
    """Receivers (labrats/controller/source_status.py) that are objects of the cluster. For the engine that leads."""

    def __init__(self, client: ApiClient, settings: ReceiverSettings) -> None:
        self._client, self._settings = client, settings

    def url(self, source: WebhookSource) -> str | None:
        return receiver_url(source, self._settings)

    def withhold(self, source: WebhookSource, missing: str, told: ConditionFactory) -> Sequence[Condition]:
        return [told("Provisioned", False, "SecretMissing", f"nothing is made while {missing}")]

    async def provide(self, source: WebhookSource, secret: Secret, told: ConditionFactory) -> Sequence[Condition]:
        secret_version = f"{secret.metadata.uid}/{secret.metadata.resource_version}"
        try:
            made = await self._apply(deployment(source, secret_version, self._settings))
            await self._apply(service(source))
            door = await self._apply(ingress(source, self._settings))
        except RetryLater:
            raise
        except LabratsError as error:  # the API server says what of the source it does not take
            return [told("Provisioned", False, "Refused", f"the cluster refuses what the source asks for: {error}")]
        provisioned = told("Provisioned", True, "Applied", "its Deployment, Service and Ingress are there")
        return [provisioned, _readiness(source, made, told), _exposure(source, door, told)]

    async def _apply(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """What the API server makes of it. Never takes over what somebody else has made or changed: that is refused."""
        name = wanted["metadata"]["name"]
        path = _PATHS[wanted["kind"]].format(namespace=self._settings.namespace, name=name)
        answer = await self._client.request(
            "PATCH", path, encode(wanted), query={"fieldManager": MANAGER}, content_type=APPLY
        )
        applied: dict[str, Any] = msgspec.json.decode(answer)
        return applied


def _readiness(source: WebhookSource, made: dict[str, Any], told: ConditionFactory) -> Condition:
    status = made.get("status", {})
    if not source.spec.enabled:
        return told("Ready", False, "SwitchedOff", "the source is switched off: its receiver answers 404")
    is_new = status.get("observedGeneration") == made["metadata"].get("generation")
    if is_new and status.get("availableReplicas") and status.get("updatedReplicas") == status.get("replicas"):
        return told("Ready", True, "Serving", "its receiver takes deliveries")
    said = [each for each in status.get("conditions", ()) if each.get("status") == "False"]
    reasons = "".join(f": {each.get('message', '')}" for each in said[:1])
    return told("Ready", False, "Starting", f"its receiver is starting{reasons}")


def _exposure(source: WebhookSource, door: dict[str, Any], told: ConditionFactory) -> Condition:
    if door.get("status", {}).get("loadBalancer", {}).get("ingress"):
        return told("Exposed", True, "Admitted", "an ingress controller serves its Ingress")
    named = source.spec.ingress_class_name
    which = f"of the class {named!r}" if named else "for Ingresses without a class"
    return told(
        "Exposed",
        False,
        "NoIngressController",
        f"no ingress controller {which} has taken its Ingress yet: it is reached within the cluster only",
    )

"""Creates and updates the receiver of each WebhookSource, and returns its conditions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from labrats.backends.kubernetes.client import APPLY, ApiClient
from labrats.backends.kubernetes.receiver_manifests import ReceiverSettings, deployment, ingress, receiver_url, service
from labrats.model.condition import Condition, ConditionFactory
from labrats.model.core_resources import Secret
from labrats.model.errors import LabratsError, RetryLater
from labrats.model.record import encode
from labrats.model.webhook_source import STARTING, WebhookSource

MANAGER: Final = "labrats-receivers"
"""Field manager of the objects. All leaders share it, so that each can remove fields that the last one set."""

_PATHS: Final[Mapping[str, str]] = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
    "Service": "/api/v1/namespaces/{namespace}/services/{name}",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}",
}


class ReceiverReconciler:
    """The Receivers (labrats/controller/source_status.py) on a cluster. Only the leader uses them."""

    def __init__(self, client: ApiClient, settings: ReceiverSettings) -> None:
        self._client, self._settings = client, settings

    def url(self, source: WebhookSource) -> str | None:
        return receiver_url(source, self._settings)

    def withhold(self, source: WebhookSource, missing: str, report: ConditionFactory) -> Sequence[Condition]:
        return [report("Provisioned", False, "SecretMissing", f"no receiver is created while {missing}")]

    async def provide(self, source: WebhookSource, secret: Secret, report: ConditionFactory) -> Sequence[Condition]:
        secret_version = f"{secret.metadata.uid}/{secret.metadata.resource_version}"
        try:
            applied = await self._apply(deployment(source, secret_version, self._settings))
            await self._apply(service(source))
            applied_ingress = await self._apply(ingress(source, self._settings))
        except RetryLater:
            raise
        except LabratsError as error:  # the message names the field of the source
            return [report("Provisioned", False, "Refused", f"the cluster refuses the objects of the source: {error}")]
        provisioned = report("Provisioned", True, "Applied", "the Deployment, Service and Ingress are applied")
        return [provisioned, _readiness(source, applied, report), _exposure(source, applied_ingress, report)]

    async def _apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Apply a manifest and return the stored object. Raises an error if another client created or changed it."""
        name = manifest["metadata"]["name"]
        path = _PATHS[manifest["kind"]].format(namespace=self._settings.namespace, name=name)
        answer = await self._client.request(
            "PATCH", path, encode(manifest), query={"fieldManager": MANAGER}, content_type=APPLY
        )
        applied: dict[str, Any] = msgspec.json.decode(answer)
        return applied


def _readiness(source: WebhookSource, applied: dict[str, Any], report: ConditionFactory) -> Condition:
    status = applied.get("status", {})
    if not source.spec.enabled:
        return report("Ready", False, "SwitchedOff", "the source is switched off: its receiver answers 404")
    is_new = status.get("observedGeneration") == applied["metadata"].get("generation")
    if is_new and status.get("availableReplicas") and status.get("updatedReplicas") == status.get("replicas"):
        return report("Ready", True, "Serving", "the receiver accepts deliveries")
    unmet = [each for each in status.get("conditions", ()) if each.get("status") == "False"]
    reasons = "".join(f": {each.get('message', '')}" for each in unmet[:1])
    return report("Ready", False, STARTING, f"the receiver is starting{reasons}")


def _exposure(source: WebhookSource, applied: dict[str, Any], report: ConditionFactory) -> Condition:
    if applied.get("status", {}).get("loadBalancer", {}).get("ingress"):
        return report("Exposed", True, "Admitted", "an ingress controller serves the Ingress")
    named = source.spec.ingress_class_name
    which = f"of the class {named!r}" if named else "for Ingresses without a class"
    return report(
        "Exposed",
        False,
        "NoIngressController",
        f"no ingress controller {which} serves the Ingress: the receiver can be reached within the cluster only",
    )

"""The Deployment, Service and Ingress of the receiver of a WebhookSource. Pure."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from labrats.backends.kubernetes.codec import LABRATS_API
from labrats.backends.kubernetes.restricted_pod import RESTRICTED_CONTAINER, RESTRICTED_POD
from labrats.model.webhook_source import WebhookSource
from labrats.settings import PodExtras

PORT: Final = 3001
SECRET_FOLDER: Final = "/var/run/labrats-webhook"  # noqa: S105, a mount path
SECRET_FILE: Final = "secret"  # noqa: S105, a file name

RECEIVER_LABELS: Final = {
    "app.kubernetes.io/managed-by": "labrats",
    "app.kubernetes.io/component": "webhook-receiver",
}
"""Labels by which a NetworkPolicy selects the pods of receivers."""

SOURCE_LABEL: Final = "labrats.work/webhook-source"
SECRET_ANNOTATION: Final = "labrats.work/webhook-secret-version"  # noqa: S105, an annotation
"""Annotation of pods: the version of the signing secret. A new version triggers a rollout."""

_PREFIX: Final = "labrats-webhook-"
_FITS: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class ReceiverSettings:
    """Settings of the receivers.

    image:       image of the engine.
    account:     ServiceAccount of the pods.
    pod_fields:  further fields of the pods' spec.
    environment: environment variables that receivers share with the engine.
    resources:   resources of the container.
    extras:      labels, annotations and volumes of the pods, and annotations of the Ingresses.
    """

    namespace: str
    image: str
    account: str
    pod_fields: Mapping[str, Any]
    environment: Mapping[str, str]
    resources: Mapping[str, Any] = field(default_factory=dict)
    extras: PodExtras = PodExtras()


def receiver_name(source_name: str) -> str:
    """Return the name of the source's objects: a hash if the source's name is not valid for a Service."""
    if _FITS.fullmatch(source_name):
        return f"{_PREFIX}{source_name}"
    return f"{_PREFIX}{hashlib.sha256(source_name.encode()).hexdigest()[:16]}"


def receiver_path(source: WebhookSource) -> str:
    """Return the path for deliveries."""
    return source.spec.path or f"/webhooks/{source.name}"


def receiver_url(source: WebhookSource, settings: ReceiverSettings) -> str:
    """Return the URL for deliveries: a public one for a source with a host, or else one within the cluster."""
    spec, path = source.spec, receiver_path(source)
    if spec.host:
        return f"{'https' if spec.tls_secret_name else 'http'}://{spec.host}{path}"
    return f"http://{receiver_name(source.name)}.{settings.namespace}.svc{path}"


def deployment(source: WebhookSource, secret_version: str, settings: ReceiverSettings) -> dict[str, Any]:
    """Return the Deployment. secret_version: version of the signing secret."""
    labels = _labels(source)
    return _object(source, "apps/v1", "Deployment") | {
        "spec": {
            "selector": {"matchLabels": labels},
            # Old pods serve until the new ones are ready, so that no delivery is refused.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": {**settings.extras.labels, **labels},
                    "annotations": {**settings.extras.annotations, SECRET_ANNOTATION: secret_version},
                },
                "spec": _pod(source, settings),
            },
        }
    }


def service(source: WebhookSource) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    return _object(source, "v1", "Service") | {"spec": {"selector": _labels(source), "ports": ports}}


def ingress(source: WebhookSource, settings: ReceiverSettings) -> dict[str, Any]:
    spec = source.spec
    backend = {"service": {"name": receiver_name(source.name), "port": {"name": "http"}}}
    rule: dict[str, Any] = {
        "http": {"paths": [{"path": receiver_path(source), "pathType": "Exact", "backend": backend}]}
    }
    ingress_spec: dict[str, Any] = {"rules": [({"host": spec.host} if spec.host else {}) | rule]}
    if spec.ingress_class_name:
        ingress_spec["ingressClassName"] = spec.ingress_class_name
    if spec.tls_secret_name:
        ingress_spec["tls"] = [({"hosts": [spec.host]} if spec.host else {}) | {"secretName": spec.tls_secret_name}]
    manifest = _object(source, "networking.k8s.io/v1", "Ingress") | {"spec": ingress_spec}
    if annotations := settings.extras.ingress_annotations:
        manifest["metadata"]["annotations"] = dict(annotations)
    return manifest


def _object(source: WebhookSource, api_version: str, kind: str) -> dict[str, Any]:
    """Return the header of an object that is deleted with its source."""
    owner = {"apiVersion": LABRATS_API, "kind": source.kind(), "name": source.name, "uid": source.metadata.uid}
    metadata = {"name": receiver_name(source.name), "labels": _labels(source), "ownerReferences": [owner]}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _labels(source: WebhookSource) -> dict[str, str]:
    return {**RECEIVER_LABELS, SOURCE_LABEL: receiver_name(source.name).removeprefix(_PREFIX)}


def _pod(source: WebhookSource, settings: ReceiverSettings) -> dict[str, Any]:
    reference = source.spec.secret_ref
    assert reference is not None, "a source without a secret gets no receiver"
    secret = {"secretName": reference.name, "items": [{"key": reference.key, "path": SECRET_FILE}]}
    return {
        **settings.pod_fields,
        **RESTRICTED_POD,
        "restartPolicy": "Always",
        "automountServiceAccountToken": True,
        "serviceAccountName": settings.account,
        "containers": [_container(source, settings)],
        "volumes": [
            {"name": "secret", "secret": secret},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
            *settings.extras.volumes,
        ],
    }


def _container(source: WebhookSource, settings: ReceiverSettings) -> dict[str, Any]:
    environment = {
        **settings.environment,
        "LABRATS_HOST": "0.0.0.0",  # noqa: S104, within the pod
        "LABRATS_ALLOW_PUBLIC": "true",
        "LABRATS_NAMESPACE": settings.namespace,
        "LABRATS_DATA_DIR": "/tmp/labrats",  # noqa: S108, the pod's own
        "LABRATS_WEBHOOK_SOURCE": source.name,
        "LABRATS_WEBHOOK_PATH": receiver_path(source),
        "LABRATS_WEBHOOK_SECRET_FILE": f"{SECRET_FOLDER}/{SECRET_FILE}",
        "PORT": str(PORT),
    }
    return {
        **RESTRICTED_CONTAINER,
        "name": "webhook-receiver",
        "image": settings.image,
        "args": ["serve", "--backend", "kubernetes", "--role", "webhook-receiver"],
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 2},
        # Deliveries arrive until every node has removed this pod from the Service.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},
        "resources": settings.resources,
        "volumeMounts": [
            {"name": "secret", "mountPath": SECRET_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108, the pod's own
            *settings.extras.volume_mounts,
        ],
    }

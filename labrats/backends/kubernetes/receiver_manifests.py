"""What receives for a WebhookSource on a cluster: a Deployment, a Service and an Ingress of its own."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from labrats.backends.kubernetes.codec import LABRATS_API
from labrats.backends.kubernetes.pod import RESTRICTED_CONTAINER, RESTRICTED_POD
from labrats.model.webhook_source import WebhookSource
from labrats.settings import PodExtras

PORT: Final = 3001
SECRET_FOLDER: Final = "/var/run/labrats-webhook"  # noqa: S105, where it is mounted
SECRET_FILE: Final = "secret"  # noqa: S105, what the file is called

RECEIVER_LABELS: Final = {
    "app.kubernetes.io/managed-by": "labrats",
    "app.kubernetes.io/component": "webhook-receiver",
}
"""The NetworkPolicy of receivers knows their pods by these."""

SOURCE_LABEL: Final = "labrats.work/webhook-source"
SECRET_ANNOTATION: Final = "labrats.work/webhook-secret-version"  # noqa: S105, of which secret it is the version
"""On pods: which version of the Secret they began with. A new one rolls them out."""

_PREFIX: Final = "labrats-webhook-"
_FITS: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class ReceiverSettings:
    """image: the engine's. account: the ServiceAccount of receivers. pod_fields: further ones of their pods.

    environment: settings that receivers share with the engine. resources: of the container. extras: what the pods and
    Ingresses have besides.
    """

    namespace: str
    image: str
    account: str
    pod_fields: Mapping[str, Any]
    environment: Mapping[str, str]
    resources: Mapping[str, Any] = field(default_factory=dict)
    extras: PodExtras = PodExtras()


def receiver_name(source_name: str) -> str:
    """What the source's objects are called. Not every name of a source can be that of a Service."""
    if _FITS.fullmatch(source_name):
        return f"{_PREFIX}{source_name}"
    return f"{_PREFIX}{hashlib.sha256(source_name.encode()).hexdigest()[:16]}"


def receiver_path(source: WebhookSource) -> str:
    """Where deliveries are sent."""
    return source.spec.path or f"/webhooks/{source.name}"


def receiver_url(source: WebhookSource, settings: ReceiverSettings) -> str:
    """Where deliveries are received: from outside, where the source says by which host, or else within the cluster."""
    spec, path = source.spec, receiver_path(source)
    if spec.host:
        return f"{'https' if spec.tls_secret_name else 'http'}://{spec.host}{path}"
    return f"http://{receiver_name(source.name)}.{settings.namespace}.svc{path}"


def deployment(source: WebhookSource, secret_version: str, settings: ReceiverSettings) -> dict[str, Any]:
    """secret_version: changes with the Secret that deliveries are signed with."""
    labels = _labels(source)
    return _object(source, "apps/v1", "Deployment") | {
        "spec": {
            "selector": {"matchLabels": labels},
            # What is there goes on until what is new is ready: no delivery meets a closed door.
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
    wanted: dict[str, Any] = {"rules": [({"host": spec.host} if spec.host else {}) | rule]}
    if spec.ingress_class_name:
        wanted["ingressClassName"] = spec.ingress_class_name
    if spec.tls_secret_name:
        wanted["tls"] = [({"hosts": [spec.host]} if spec.host else {}) | {"secretName": spec.tls_secret_name}]
    made = _object(source, "networking.k8s.io/v1", "Ingress") | {"spec": wanted}
    if annotations := settings.extras.ingress_annotations:
        made["metadata"]["annotations"] = dict(annotations)
    return made


def _object(source: WebhookSource, api_version: str, kind: str) -> dict[str, Any]:
    """The head of an object that is deleted with its source."""
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
        "LABRATS_HOST": "0.0.0.0",  # noqa: S104, the pod's own
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
        # Deliveries still come for a moment, until every node has heard that this pod is going.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "3"]}}},
        "resources": settings.resources,
        "volumeMounts": [
            {"name": "secret", "mountPath": SECRET_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108, the pod's own
            *settings.extras.volume_mounts,
        ],
    }

"""The containers of an attempt's pod beside that of the executor. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from labrats.backends.kubernetes.batch_objects import (
    CACHE_KEEPER_CONTAINER,
    CLONE_CONTAINER,
    KEY_PROXY_CONTAINER,
    PREPARE_CONTAINER,
)
from labrats.backends.kubernetes.claims import claim_path
from labrats.backends.kubernetes.files import attempt_path
from labrats.backends.kubernetes.pod_settings import PodSettings
from labrats.backends.kubernetes.pod_volumes import (
    BASE_CACHES,
    CACHE_KEEPER_FOLDER,
    CACHE_KEEPER_MOUNT,
    CACHES,
    CACHES_FOLDER,
    CLAIMS,
    EARLIER,
    INPUTS,
    INPUTS_MOUNT,
    KEY_PROXY_FOLDER,
    KEY_PROXY_MOUNT,
    SCRATCH,
    SCRATCH_MOUNTS,
    SOURCE,
)
from labrats.backends.kubernetes.restricted_pod import RESTRICTED_CONTAINER
from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job, base_cache_scope, cache_scope
from labrats.model.protocol import CACHE_KEEPER_VARIABLE, EARLIER_VARIABLE, KEY_PROXY_VARIABLE, POD_VARIABLE

KEY_PROXY_USER: Final = 10002
"""User id of the key proxy, which differs from that of the agent."""

KEY_PROXY_RESOURCES: Final = {
    "requests": {"cpu": "10m", "memory": "48Mi"},
    "limits": {"cpu": "1", "memory": "512Mi"},
}
"""Resources of the key proxy. The largest requests that it takes at once need some 380 MiB."""

_CACHE_KEEPER_RESOURCES: Final = {
    "requests": {"cpu": "10m", "memory": "32Mi"},
    "limits": {"cpu": "1", "memory": "256Mi"},
}


def prepare_step(
    name: AttemptName, settings: PodSettings, earlier: AttemptName | None, *, has_proxy: bool, has_keeper: bool
) -> dict[str, Any]:
    """Return the container that claims the attempt and copies the inputs for the executor.

    No other container mounts the claim's folder, or the Secrets of MCP servers and of logins.

    earlier: the attempt whose stored files it copies, too. No other container mounts them.
    has_proxy, has_keeper: whether it also creates the token of the key proxy, and of the cache keeper.
    """
    claims = {"name": "claims", "mountPath": CLAIMS, "subPath": str(claim_path(name))}
    return {
        **RESTRICTED_CONTAINER,
        "name": PREPARE_CONTAINER,
        "args": ["prepare", SOURCE, INPUTS, *([CLAIMS] if settings.data_claim else [])],
        "env": [
            {"name": POD_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *([{"name": KEY_PROXY_VARIABLE, "value": KEY_PROXY_FOLDER}] if has_proxy else []),
            *([{"name": CACHE_KEEPER_VARIABLE, "value": CACHE_KEEPER_FOLDER}] if has_keeper else []),
            *([{"name": EARLIER_VARIABLE, "value": EARLIER}] if earlier else []),
        ],
        "volumeMounts": [
            {"name": "source", "mountPath": SOURCE, "readOnly": True},
            INPUTS_MOUNT,
            *([claims] if settings.data_claim else []),
            *([_earlier_mount(earlier), *SCRATCH_MOUNTS] if earlier else []),
            *([KEY_PROXY_MOUNT] if has_proxy else []),
            *([CACHE_KEEPER_MOUNT] if has_keeper else []),
        ],
    }


def _earlier_mount(earlier: AttemptName) -> dict[str, Any]:
    path = str(attempt_path(earlier))
    return {"name": "claims", "mountPath": EARLIER, "subPath": path, "readOnly": True}


def clone_step(settings: PodSettings) -> dict[str, Any]:
    """Return the container that clones the repository. No other container mounts the repository's Secret."""
    return {
        **RESTRICTED_CONTAINER,
        "name": CLONE_CONTAINER,
        "args": ["clone", SOURCE, SCRATCH],
        "volumeMounts": [
            {"name": "repository", "mountPath": SOURCE, "readOnly": True},
            *SCRATCH_MOUNTS,
            *settings.extras.volume_mounts,
        ],
    }


_KEY_PROXY: Final[Mapping[str, Any]] = {
    **RESTRICTED_CONTAINER,
    "name": KEY_PROXY_CONTAINER,
    "restartPolicy": "Always",  # it runs beside the executor, and ends after it
    "args": ["key-proxy", SOURCE, KEY_PROXY_FOLDER],
    "resources": KEY_PROXY_RESOURCES,
    "securityContext": {
        **RESTRICTED_CONTAINER["securityContext"],
        "runAsUser": KEY_PROXY_USER,
        "runAsGroup": KEY_PROXY_USER,
    },
    "volumeMounts": [
        {"name": "model", "mountPath": SOURCE, "readOnly": True},
        KEY_PROXY_MOUNT,
    ],
}
"""The container of the key proxy. No other container mounts the Secret with the model's key."""


def key_proxy(settings: PodSettings) -> dict[str, Any]:
    """Return the container of the key proxy. The operator's volumes may have certificates for the model's server."""
    extras = [{**mount, "readOnly": True} for mount in settings.extras.volume_mounts]
    return {**_KEY_PROXY, "image": settings.image, "volumeMounts": [*_KEY_PROXY["volumeMounts"], *extras]}


def cache_keeper(job: Job, settings: PodSettings) -> dict[str, Any]:
    """Return the container of the cache keeper. No other container mounts cached folders.

    It mounts those of its scope only: setup commands, or a caller's own image, could make it follow links to others.
    """
    scope, base = cache_scope(job), base_cache_scope(job)
    base_mount = {"name": "claims", "mountPath": BASE_CACHES, "subPath": f"{CACHES_FOLDER}/{base}", "readOnly": True}
    return {
        **RESTRICTED_CONTAINER,
        "name": CACHE_KEEPER_CONTAINER,
        "image": settings.image,
        "restartPolicy": "Always",  # it runs beside the executor, and ends after it
        "args": ["cache-keeper", SOURCE, CACHE_KEEPER_FOLDER],
        "resources": _CACHE_KEEPER_RESOURCES,
        "volumeMounts": [
            {"name": "task", "mountPath": SOURCE, "readOnly": True},
            {**CACHE_KEEPER_MOUNT, "readOnly": True},
            {"name": "claims", "mountPath": f"{CACHES}/{scope}", "subPath": f"{CACHES_FOLDER}/{scope}"},
            *([base_mount] if base else []),
            *SCRATCH_MOUNTS,
        ],
    }

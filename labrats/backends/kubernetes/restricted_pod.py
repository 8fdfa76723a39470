"""Fields of every pod and container that the engine creates. They fulfil Pod Security `restricted`."""

from collections.abc import Mapping
from typing import Any, Final

USER: Final = 10001
"""User id of executors. The images of Labrats have this user."""

EXECUTOR_LABELS: Final = {
    "app.kubernetes.io/managed-by": "labrats",
    "app.kubernetes.io/component": "executor",
}
"""Labels by which a NetworkPolicy selects the pods of executors."""

CONFINED_LABELS: Final = {**EXECUTOR_LABELS, "app.kubernetes.io/component": "confined-executor"}
"""Labels of the pods of attempts with a network rule. NetworkPolicies add up, so that one for other executors must not
select these pods.
"""

RESTRICTED_POD: Final[Mapping[str, Any]] = {
    "restartPolicy": "Never",
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}

RESTRICTED_CONTAINER: Final[Mapping[str, Any]] = {
    "imagePullPolicy": "IfNotPresent",
    # The node mounts a file of its own disk there, which anyone may write and no limit of the pod covers. In this
    # folder no user of a container reaches it.
    "terminationMessagePath": "/root/termination-log",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
"""Fields of every pod and container that the engine creates. They fulfil Pod Security `restricted`."""

"""Engines that keep and run their jobs on the test cluster, each a process of its own on this machine."""

import json
from pathlib import Path
from typing import Any

from tests.acceptance.engine import LocalEngine

SMALL: dict[str, Any] = {"requests": {"cpu": "10m"}, "limits": {"memory": "256Mi"}}
"""What pods of tests ask for, and may use."""


def an_engine(
    kubeconfig: Path, namespace: str, image: str, folder: Path, volume: Path, **environment: str
) -> LocalEngine:
    """`labrats serve --backend kubernetes`.

    folder: of this engine's own.  volume: stands for the shared volume.  environment: further settings.
    """
    usual = {
        "LABRATS_BACKEND": "kubernetes",
        "KUBECONFIG": str(kubeconfig),
        "LABRATS_NAMESPACE": namespace,
        "LABRATS_EXECUTOR_IMAGE": image,
        "LABRATS_EXECUTOR_RESOURCES": json.dumps(SMALL),
        "LABRATS_EXECUTOR_SCRATCH": "100Mi",
        "LABRATS_EXECUTOR_POD": json.dumps({"dnsPolicy": "Default"}),  # the cluster has no name server of its own
    }
    engine = LocalEngine(folder, **usual | environment)
    engine.data_dir = volume
    return engine

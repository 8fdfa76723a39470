"""Engines as processes on this machine, with their jobs on the test cluster."""

import json
from pathlib import Path
from typing import Any

from tests.acceptance.engine import ForkedEngine, LocalEngine
from tests.support.impatient_labrats import constants

SMALL: dict[str, Any] = {"requests": {"cpu": "10m"}, "limits": {"memory": "256Mi"}}
"""Resources of the pods of tests."""

SOON_WITHOUT_PARTS = constants({"labrats.backends.kubernetes.settings.PARTS_SECONDS": 3})
"""Environment of an engine whose jobs fail soon if their prompt or a Secret is missing."""


def an_engine(
    kubeconfig: Path, namespace: str, image: str, folder: Path, volume: Path, **environment: str
) -> LocalEngine:
    """Return an engine as `labrats serve --backend kubernetes` starts it.

    folder:      folder of this engine only.
    volume:      stand-in for the shared volume.
    environment: further environment variables.
    """
    defaults = {
        "LABRATS_BACKEND": "kubernetes",
        "KUBECONFIG": str(kubeconfig),
        "LABRATS_NAMESPACE": namespace,
        "LABRATS_EXECUTOR_IMAGE": image,
        "LABRATS_EXECUTOR_RESOURCES": json.dumps(SMALL),
        "LABRATS_EXECUTOR_SCRATCH": "100Mi",
        "LABRATS_EXECUTOR_POD": json.dumps({"dnsPolicy": "Default"}),  # the test cluster has no DNS server
    }
    engine = ForkedEngine(folder, **defaults | environment)
    engine.data_dir = volume
    return engine

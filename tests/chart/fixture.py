"""Helm, and an installation by it on the test cluster."""

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.chart.installation import VALUES, Helm, Installation
from tests.cluster.cluster import GATEWAY, Cluster
from tests.cluster.programs import build_helm

SIGNING_KEY: Final = b"test-key-of-callbacks-in-cluster"
SIGNING_SECRET: Final = f"whsec_{base64.b64encode(SIGNING_KEY).decode()}"


@pytest.fixture(scope="session")
def helm(kubeconfig: Path) -> Helm:
    return Helm(build_helm(), kubeconfig)


@pytest.fixture(scope="session")
def installation(
    cluster: Cluster | None,
    helm: Helm,
    engine_image: str,
    executor_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    """One that tests share. They change nothing of it that others would miss.

    It may call back to where `Cluster.listen` listens, and signs what it says.
    """
    if cluster is None:
        pytest.skip("an installation is tested on a cluster of our own, whose node has its volumes on this machine")
    with new_installation(cluster, helm, engine_image, executor_image, tmp_path_factory.mktemp("volumes")) as made:
        secret = f"CALLBACK_SIGNING_SECRET={SIGNING_SECRET}"
        made.kubectl("create", "secret", "generic", "settings", f"--from-literal={secret}")
        made.install(settings=VALUES["settings"] | {"CALLBACK_ALLOWED_HOSTS": GATEWAY}, settingsSecret="settings")
        yield made


@contextmanager
def new_installation(
    cluster: Cluster, helm: Helm, engine_image: str, executor_image: str, folder: Path
) -> Iterator[Installation]:
    """One that is not installed yet, in a namespace of its own, in which Pod Security enforces `restricted`."""
    namespace = f"labrats-test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield Installation(cluster, helm, namespace, engine_image, executor_image, folder)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")

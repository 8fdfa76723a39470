"""Helm, and an installation by it on the test cluster."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chart.installation import Helm, Installation
from tests.cluster.cluster import Cluster
from tests.cluster.programs import build_helm


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
    """One that tests share. They change nothing of it that others would miss."""
    if cluster is None:
        pytest.skip("an installation is tested on a cluster of our own, whose node has its volumes on this machine")
    with new_installation(cluster, helm, engine_image, executor_image, tmp_path_factory.mktemp("volumes")) as made:
        made.install()
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

"""Fixtures: Helm, and an installation on the test cluster."""

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
    """Yield an installation that tests share. A test must not change it in a way that others notice.

    Its jobs may clone from the address of `Cluster.listen`, and its callbacks may reach it. Callbacks are signed.
    """
    if cluster is None:
        pytest.skip("the tests need a cluster of their own, whose node has its volumes on this machine")
    with new_installation(
        cluster, helm, engine_image, executor_image, tmp_path_factory.mktemp("volumes")
    ) as installation:
        secret = f"CALLBACK_SIGNING_SECRET={SIGNING_SECRET}"
        installation.kubectl("create", "secret", "generic", "settings", f"--from-literal={secret}")
        installation.install(
            settings=VALUES["settings"]
            | {"CALLBACK_ALLOWED_HOSTS": GATEWAY, "OUTBOUND_ALLOWED_CIDRS": f"{GATEWAY}/32"}
            | {"LABRATS_WORKSPACE_GIB": 0.05, "LABRATS_CACHE_GIB": 1},
            settingsSecret="settings",
            networkPolicy={"executorEgress": [{"to": [{"ipBlock": {"cidr": f"{GATEWAY}/32"}}]}]},
        )
        yield installation


@contextmanager
def new_installation(
    cluster: Cluster, helm: Helm, engine_image: str, executor_image: str, folder: Path
) -> Iterator[Installation]:
    """Yield an installation before `install`, in its own namespace with the Pod Security level `restricted`."""
    namespace = f"labrats-test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield Installation(cluster, helm, namespace, engine_image, executor_image, folder)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")

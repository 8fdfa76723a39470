"""The executor's image, built from the tree as it is and brought to the cluster's node."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import build_image, image_archives
from tests.cluster.node import Node
from tests.cluster.shell import progress, run

NAMED: Final = "LABRATS_TEST_EXECUTOR_IMAGE"
"""An image that the pods of a cluster can have which was given to the tests."""

PYTHON: Final = "3.11"
"""Of the Debian base that images are built on."""

_PROJECT: Final = Path(__file__).parents[2]
_PARTS: Final = (
    "docker/executor",
    "docker/gather",
    "labrats/executor",
    "labrats/model",
    "labrats/outbound.py",
    "labrats/processes.py",
)
_NAME: Final = "docker.io/labrats/executor"


@pytest.fixture(scope="session")
def executor_image(cluster: Cluster | None) -> str:
    """An image that the cluster's pods can have. It runs mock jobs only: it is without agent CLIs."""
    if cluster is None:
        if not (image := os.environ.get(NAMED)):
            pytest.skip(f"the tests that run pods did not run: to run them, set {NAMED} to an executor image")
        return image
    image = f"{_NAME}:{_digest()}"
    Node(cluster, 1).load(_archive(image))
    return image


def _archive(image: str) -> Path:
    """The image in a file, built unless that was done since the program last changed."""
    for archive in image_archives():
        if archive.stem.endswith(image.rpartition(":")[2]):
            return archive
        if archive.stem.startswith(_NAME.replace("/", "-")):
            archive.unlink()  # of an earlier state of the tree
    progress("building the executor's image")
    with tempfile.TemporaryDirectory() as folder:
        gather = _PROJECT / "docker" / "gather"
        run(gather, folder, PYTHON, env={**os.environ, "LABRATS_AGENT_CLIS": "none"})
        return build_image(image, Path(folder, "executor"), _PROJECT / "docker" / "executor" / "Dockerfile")


def _digest() -> str:
    """Of what the image is made of, as far as executors use it."""
    digest = hashlib.sha256()
    for place in _PARTS:
        files = [_PROJECT / place, *(_PROJECT / place).rglob("*")]
        for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
            digest.update(f"{file.relative_to(_PROJECT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]

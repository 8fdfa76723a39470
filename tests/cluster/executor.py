"""The executor's image, built from the tree as it is and brought to the cluster's node."""

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import archive_of, build_image, image_archives
from tests.cluster.node import Node
from tests.cluster.programs import only_one_at
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
_KEPT_SECONDS: Final = 3600.0


@pytest.fixture(scope="session")
def executor_image(cluster: Cluster | None) -> str:
    """An image that the cluster's pods can have. It runs mock jobs only: it is without agent CLIs."""
    if cluster is None:
        if not (image := os.environ.get(NAMED)):
            pytest.skip(f"the tests that run pods did not run: to run them, set {NAMED} to an executor image")
        return image
    return load_executor(cluster)


def load_executor(cluster: Cluster) -> str:
    """Give the cluster's first node the executor's image, and say its name."""
    Node(cluster, 1).load(executor_archive())
    return _image()


def executor_archive() -> Path:
    """The image in a file, built unless that was done since the program last changed."""
    image = _image()
    with only_one_at("executor.lock"):
        _forget_old_states()
        if not (archive := archive_of(image)).exists():
            progress("building the executor's image")
            with tempfile.TemporaryDirectory() as folder:
                gather = _PROJECT / "docker" / "gather"
                run(gather, folder, PYTHON, env={**os.environ, "LABRATS_AGENT_CLIS": "none"})
                build_image(image, Path(folder, "executor"), _PROJECT / "docker" / "executor" / "Dockerfile")
        archive.touch()
        return archive


def _forget_old_states() -> None:
    """Remove the images of earlier states of the tree, unless other tests on this machine may be using them."""
    for archive in image_archives():
        is_ours = archive.stem.startswith(_NAME.replace("/", "-"))
        if is_ours and time.time() - archive.stat().st_mtime > _KEPT_SECONDS:
            archive.unlink()


def _image() -> str:
    return f"{_NAME}:{_digest()}"


def _digest() -> str:
    """Of what the image is made of, as far as executors use it."""
    digest = hashlib.sha256()
    for place in _PARTS:
        files = [_PROJECT / place, *(_PROJECT / place).rglob("*")]
        for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
            digest.update(f"{file.relative_to(_PROJECT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]

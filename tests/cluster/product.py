"""The project's images, built from the current source tree and loaded into the cluster's node."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import archive_of, build_image, image_archives
from tests.cluster.node import Node
from tests.cluster.programs import exclusive_lock
from tests.cluster.shell import progress, run

PYTHON: Final = "3.11"
"""The Python version of the Debian base image."""

_PROJECT: Final = Path(__file__).parents[2]
_KEPT_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Product:
    """One of the images.

    name:       of the image.
    folder:     the folder in `docker` with its Dockerfile.
    sources:    files and folders that its tag is derived from.
    agent_clis: whether it contains the agent CLIs.
    """

    name: str
    folder: str
    sources: tuple[str, ...]
    agent_clis: bool = False

    @property
    def image(self) -> str:
        built_with = (f"docker/{self.folder}", "docker/gather", "docker/install-wheels")
        return f"{self._repository}:{_digest([*built_with, *self.sources])}"

    @property
    def image_variable(self) -> str:
        """The environment variable that names an image for the cluster of LABRATS_TEST_KUBECONFIG."""
        return f"LABRATS_TEST_{self.name.upper()}_IMAGE"

    def on(self, cluster: Cluster | None) -> str:
        """Make the image available to the cluster's pods, and return its name."""
        if cluster is None:
            if not (image := os.environ.get(self.image_variable)):
                pytest.skip(f"this test runs pods: to run it, set {self.image_variable} to an image of the {self.name}")
            return image
        Node(cluster, 1).load(self.archive())
        return self.image

    def archive(self) -> Path:
        """Return the image's archive, building it if its sources have changed since the last build."""
        build(self)
        return archive_of(self.image)

    @property
    def _repository(self) -> str:
        return f"docker.io/labrats/{self.name}"

    def remove_old_images(self) -> None:
        """Remove the images of earlier source trees, unless other tests on this machine may still use them."""
        for archive in image_archives():
            is_ours = archive.stem.startswith(self._repository.replace("/", "-"))
            if is_ours and time.time() - archive.stat().st_mtime > _KEPT_SECONDS:
                archive.unlink()


def build(*products: Product) -> None:
    """Build the images whose sources have changed since their last build. Their content is gathered once for all."""
    with exclusive_lock("products.lock"):
        for product in products:
            product.remove_old_images()
        missing = [product for product in products if not archive_of(product.image).exists()]
        for agent_clis in (False, True):
            if chosen := [product for product in missing if product.agent_clis == agent_clis]:
                progress(f"building the images: {', '.join(product.name for product in chosen)}")
                _gather_and_build(chosen, "all" if agent_clis else "none")
        for product in products:
            os.utime(archive_of(product.image))  # it is missing if the sources have changed during the build


def _gather_and_build(products: Sequence[Product], agent_clis: str) -> None:
    """Gather the content of all images, and build those of `products`."""
    with tempfile.TemporaryDirectory() as folder:
        gather = _PROJECT / "docker" / "gather"
        run(gather, folder, PYTHON, env={**os.environ, "LABRATS_AGENT_CLIS": agent_clis})
        for product in products:
            dockerfile = _PROJECT / "docker" / product.folder / "Dockerfile"
            build_image(product.image, Path(folder, product.folder), dockerfile)


_SOURCES: Final = ("labrats", "pyproject.toml")

EXECUTOR: Final = Product("executor", "executor", _SOURCES)
"""Contains no agent CLIs, so it runs mock jobs only."""

AGENTS: Final = Product("agents", "executor", (*_SOURCES, "tests/agent-clis/package-lock.json"), agent_clis=True)
"""The executor as users build it. It is larger than 1 GB, so that only tests of the real agent CLIs use it."""

ENGINE: Final = Product("engine", "engine", _SOURCES)

MACHINE: Final = Product("machine", "machine", (*_SOURCES, "dashboard/requirements.txt"))


@pytest.fixture(scope="session")
def executor_image(cluster: Cluster | None) -> str:
    """An image of the executor for the cluster's pods. It contains no agent CLIs, so it runs mock jobs only."""
    return EXECUTOR.on(cluster)


@pytest.fixture(scope="session")
def agents_image(cluster: Cluster | None) -> str:
    """An image of the executor with the real agent CLIs for the cluster's pods."""
    return AGENTS.on(cluster)


@pytest.fixture(scope="session")
def engine_image(cluster: Cluster | None) -> str:
    """An image of the engine for the cluster's pods."""
    return ENGINE.on(cluster)


def _digest(places: Iterable[str]) -> str:
    """Return a digest of the files at `places`."""
    digest = hashlib.sha256()
    for place in places:
        files = [_PROJECT / place, *(_PROJECT / place).rglob("*")]
        for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
            digest.update(f"{file.relative_to(_PROJECT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]

"""The project's own images, built from the tree as it is and brought to the cluster's node."""

import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import archive_of, build_image, image_archives
from tests.cluster.node import Node
from tests.cluster.programs import only_one_at
from tests.cluster.shell import progress, run

PYTHON: Final = "3.11"
"""Of the Debian base that images are built on."""

_PROJECT: Final = Path(__file__).parents[2]
_KEPT_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Product:
    """One of the images. name: of its folder in `docker`. sources: what it is made of, as far as it matters there."""

    name: str
    sources: tuple[str, ...]

    @property
    def image(self) -> str:
        return f"{self._repository}:{_digest([f'docker/{self.name}', 'docker/gather', *self.sources])}"

    @property
    def named(self) -> str:
        """The environment variable with an image that the pods of a cluster can have which was given to the tests."""
        return f"LABRATS_TEST_{self.name.upper()}_IMAGE"

    def on(self, cluster: Cluster | None) -> str:
        """The image, which the cluster's pods then can have."""
        if cluster is None:
            if not (image := os.environ.get(self.named)):
                pytest.skip(f"the tests that run pods did not run: to run them, set {self.named} to an image of the "
                            f"{self.name}")  # fmt: skip
            return image
        Node(cluster, 1).load(self.archive())
        return self.image

    def archive(self) -> Path:
        """The image in a file, built unless that was done since the program last changed."""
        image = self.image
        with only_one_at(f"{self.name}.lock"):
            self._forget_old_states()
            if not (archive := archive_of(image)).exists():
                progress(f"building the {self.name}'s image")
                with tempfile.TemporaryDirectory() as folder:
                    gather = _PROJECT / "docker" / "gather"
                    run(gather, folder, PYTHON, env={**os.environ, "LABRATS_AGENT_CLIS": "none"})
                    build_image(image, Path(folder, self.name), _PROJECT / "docker" / self.name / "Dockerfile")
            archive.touch()
            return archive

    @property
    def _repository(self) -> str:
        return f"docker.io/labrats/{self.name}"

    def _forget_old_states(self) -> None:
        """Remove the images of earlier states of the tree, unless other tests on this machine may be using them."""
        for archive in image_archives():
            is_ours = archive.stem.startswith(self._repository.replace("/", "-"))
            if is_ours and time.time() - archive.stat().st_mtime > _KEPT_SECONDS:
                archive.unlink()


EXECUTOR: Final = Product(
    "executor", ("labrats/executor", "labrats/model", "labrats/net/address_policy.py", "labrats/processes.py")
)
"""It runs mock jobs only: it is without agent CLIs."""

ENGINE: Final = Product("engine", ("labrats", "pyproject.toml"))


@pytest.fixture(scope="session")
def executor_image(cluster: Cluster | None) -> str:
    """An image of the executor that the cluster's pods can have. It runs mock jobs only: it is without agent CLIs."""
    return EXECUTOR.on(cluster)


@pytest.fixture(scope="session")
def engine_image(cluster: Cluster | None) -> str:
    """An image of the engine that the cluster's pods can have."""
    return ENGINE.on(cluster)


def _digest(places: list[str]) -> str:
    """Of all that is in those places."""
    digest = hashlib.sha256()
    for place in places:
        files = [_PROJECT / place, *(_PROJECT / place).rglob("*")]
        for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
            digest.update(f"{file.relative_to(_PROJECT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]

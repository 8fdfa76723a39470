"""Tests of the project's images, which are built from this source tree."""

import json
import re
import tarfile
from pathlib import Path
from typing import Final

import pytest

from labrats import __version__
from tests.cluster import packages
from tests.cluster.product import ENGINE, EXECUTOR, MACHINE, Product
from tests.cluster.programs import build_syft
from tests.cluster.shell import run

_INSTALLERS: Final = re.compile(r"(^|/)(pip|setuptools|ensurepip)(-[^/]*)?(/|$)")
"""Paths of packages that install packages."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(packages.reason_unsupported() is not None, reason="building images needs root on Linux"),
]


def files_in(archive: Path) -> set[str]:
    """Return the paths of an image's files, without those that a later layer removes."""
    files: set[str] = set()
    with tarfile.open(archive) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest
        for layer in json.load(manifest)[0]["Layers"]:
            with tarfile.open(fileobj=image.extractfile(layer)) as changes:
                paths = {member.name for member in changes if not member.isdir()}
            removed = {path.replace(".wh.", "") for path in paths if "/.wh." in path}
            folders = tuple(f"{path}/" for path in removed)
            files = {path for path in files - removed if not path.startswith(folders)}
            files |= {path for path in paths if "/.wh." not in path}
    return files


@pytest.mark.parametrize("product", [ENGINE, EXECUTOR, MACHINE], ids=lambda product: product.name)
def test_image_contains_nothing_that_installs_packages(product: Product) -> None:
    files = files_in(product.archive())
    assert any(path.endswith("bin/labrats") for path in files)
    assert sorted(path for path in files if _INSTALLERS.search(path)) == []


@pytest.mark.parametrize("product", [ENGINE, EXECUTOR, MACHINE], ids=lambda product: product.name)
def test_sbom_of_an_image_lists_the_engine_and_the_packages_of_its_base(product: Product) -> None:
    sbom = json.loads(run(build_syft(), "scan", "-q", f"docker-archive:{product.archive()}", "-o", "spdx-json"))
    versions = {package["name"]: package.get("versionInfo") for package in sbom["packages"]}
    assert versions["labrats-engine"] == __version__
    assert {"msgspec", "git"} <= versions.keys()
    assert not {"pip", "setuptools"} & versions.keys()

"""Tests of the project's images, which are built from this source tree."""

import json
import re
import tarfile
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import packages
from tests.cluster.product import ENGINE, EXECUTOR, MACHINE, Product

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

"""The dependencies are pinned with hashes, without known unsafe versions, and without addresses."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = sorted(
    file for pattern in ("*requirements*.txt", "*/requirements*.txt", "*/*/requirements*.txt")
    for file in ROOT.glob(pattern) if "node_modules" not in file.parts and ".venv" not in file.parts
)  # fmt: skip
PACKAGE_LOCKS: Final = sorted(
    file for pattern in ("*/package-lock.json", "*/*/package-lock.json") for file in ROOT.glob(pattern)
)
SAFE_FROM: Final = {"apsw": (3, 51, 3), "python-multipart": (0, 0, 30), "starlette": (0, 49, 1)}
"""The first versions without a vulnerability that concerns the engine."""

REQUIREMENT: Final = re.compile(
    r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==(\d+(?:\.\d+)*)\S*((?: \\\n    --hash=sha256:[0-9a-f]{64})*)", re.MULTILINE
)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.relative_to(ROOT).as_posix())
def test_every_requirement_is_pinned_with_a_hash_and_safe(lock: Path) -> None:
    text = lock.read_text()
    found = REQUIREMENT.findall(text)
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(found) == len(lines) > 0
    assert [name for name, _, hashes in found if not hashes] == []
    unsafe = [
        (name, version)
        for name, version, _ in found
        if tuple(int(part) for part in version.split(".")) < SAFE_FROM.get(name, ())
    ]
    assert unsafe == []
    assert "://" not in "".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def test_the_lock_of_the_engine_has_all_libraries_whose_versions_matter() -> None:
    names = {name for name, _, _ in REQUIREMENT.findall((ROOT / "requirements.txt").read_text())}
    assert names >= SAFE_FROM.keys()


@pytest.mark.parametrize("lock", PACKAGE_LOCKS, ids=lambda lock: lock.relative_to(ROOT).as_posix())
def test_every_package_of_npm_is_pinned_with_a_hash_and_without_an_address(lock: Path) -> None:
    packages = {name: package for name, package in json.loads(lock.read_text())["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if "integrity" not in package or "resolved" in package] == []

"""A copy of this source tree as the commit of a release has it."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from labrats import __version__

ROOT: Final = Path(__file__).parents[2]
VERSION: Final = "9.9.9"
_DASHBOARD: Final = "labrats/dashboard"


def write_release_tree(folder: Path, paths: Sequence[str] = (".",)) -> Path:
    """Copy the files of `paths`, and the built dashboard, to `folder`, and give them VERSION. Return the folder."""
    listed = ("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths)
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    if (ROOT / _DASHBOARD).exists() and "." in paths:
        shutil.copytree(ROOT / _DASHBOARD, folder / _DASHBOARD)
    _replace(folder / "labrats/__init__.py", re.escape(f'"{__version__}"'), f'"{VERSION}"')
    _replace(folder / "charts/labrats/Chart.yaml", rf"(ersion:) \"?{re.escape(__version__)}\"?", rf"\1 {VERSION}")
    _replace(folder / "labrats/manifests/install.yaml", re.escape(f'version: "{__version__}"'), f'version: "{VERSION}"')
    for page in ("CHANGELOG.md", "docs/upgrade.md"):
        _replace(folder / page, "\\A(.*?\n)## [^\n]+", rf"\1## {VERSION}")
    return folder


def _replace(file: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, file.read_text(), flags=re.DOTALL)
    assert count, f"{file} has no {pattern}"
    file.write_text(changed)

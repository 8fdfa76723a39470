"""Deletion of folders that an agent or its tools have filled, whose depth and modes may be hostile."""

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


def remove_tree(tree: Path) -> None:
    """Delete as much of `tree` as possible."""
    with suppress(RecursionError):  # an agent can nest folders deeper than rmtree can recurse
        shutil.rmtree(tree, ignore_errors=True)
    if tree.is_dir() and not tree.is_symlink():
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)

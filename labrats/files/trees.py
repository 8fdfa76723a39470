"""Size and deletion of folders that an agent or its tools have filled, whose depth and modes may be hostile."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def remove_tree(tree: Path) -> None:
    """Delete as much of `tree` as possible."""
    with suppress(RecursionError):  # an agent can nest folders deeper than rmtree can recurse
        shutil.rmtree(tree, ignore_errors=True)
    if tree.is_dir() and not tree.is_symlink():
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)


def sizes_on_disk(trees: Iterable[Path]) -> Iterator[int]:
    """Yield the bytes on the disk of each entry in the trees, which may change meanwhile or be missing.

    No link is followed, and a file with several names counts once. Unreadable folders are left out.
    """
    folders, known = [str(tree) for tree in trees], set[tuple[int, int]]()
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif status.st_nlink > 1:
                        if (status.st_dev, status.st_ino) in known:
                            continue
                        known.add((status.st_dev, status.st_ino))
                    yield status.st_blocks * 512

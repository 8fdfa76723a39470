"""The limit on all cached folders, and what a job may have left between them."""

import errno
import fcntl
import os
from pathlib import Path
from time import time

import pytest

from labrats.files.cached_entries import SIZE_FILE, UNUSED_SECONDS, locked_entry, shrink_caches, use_entries

PLACES = (("a", "one"), ("b", "two"), ("a", "three"))


def an_entry(scope: Path, name: str, size: int, used_at: int) -> Path:
    entry = scope / name
    (entry / "content").mkdir(parents=True)
    (entry / SIZE_FILE).write_text(str(size))
    os.utime(entry, (used_at, used_at))
    return entry


def test_the_least_recently_used_entries_of_all_scopes_are_deleted_first(tmp_path: Path) -> None:
    entries = [an_entry(tmp_path / scope, name, 100, at) for at, (scope, name) in enumerate(PLACES)]
    shrink_caches(tmp_path, 250)
    assert [entry.exists() for entry in entries] == [False, True, True]


def test_files_between_the_entries_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    outside, scope = tmp_path / "outside", tmp_path / "caches" / "a"
    kept = an_entry(outside, "kept", 100, 0)
    entry = an_entry(scope, "entry", 100, 0)
    (scope / "file").write_text("x")
    (scope / "link").symlink_to(kept)
    os.mkfifo(scope / "pipe")
    unfinished = scope / "unfinished"
    unfinished.mkdir()
    os.mkfifo(unfinished / SIZE_FILE)
    shrink_caches(tmp_path / "caches", 1000)
    assert list(scope.iterdir()) == [entry]
    assert kept.exists()


def test_an_error_of_the_work_on_a_locked_entry_is_raised_as_it_is(tmp_path: Path) -> None:
    error = BlockingIOError(errno.EAGAIN, "no process")
    with pytest.raises(BlockingIOError) as raised, locked_entry(tmp_path, fcntl.LOCK_SH):
        raise error
    assert raised.value is error


def test_empty_scopes_are_deleted_a_day_after_their_last_use(tmp_path: Path) -> None:
    """There is one for each ref, which callers choose."""
    for name, age in (("new", 0), ("old", UNUSED_SECONDS + 60), ("full", UNUSED_SECONDS + 60)):
        (tmp_path / name).mkdir()
        if name == "full":
            (tmp_path / name / "entry").mkdir()
            (tmp_path / name / "entry" / SIZE_FILE).write_text("1")
        os.utime(tmp_path / name, (time() - age,) * 2)
    shrink_caches(tmp_path, 1000)
    assert {scope.name for scope in tmp_path.iterdir()} == {"new", "full"}


def test_entries_of_a_used_scope_are_kept_longer(tmp_path: Path) -> None:
    for scope, age in (("a", 200), ("b", 100)):
        entry = tmp_path / scope / "entry"
        entry.mkdir(parents=True)
        (entry / SIZE_FILE).write_text("600")
        os.utime(entry, (time() - age,) * 2)
    use_entries(tmp_path / "a")
    shrink_caches(tmp_path, 1000)
    assert [entry.parent.name for entry in tmp_path.glob("*/*")] == ["a"]

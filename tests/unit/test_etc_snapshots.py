"""Snapshots of /etc: what they contain, when they are renewed, and when they are removed."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labrats.sandbox import etc_snapshots
from labrats.sandbox.etc_snapshots import EtcSnapshots, SnapshotFailed


@pytest.fixture
def snapshots(tmp_path: Path) -> EtcSnapshots:
    """Build the snapshots of a small /etc."""
    source = tmp_path / "etc"
    (source / "ssl").mkdir(parents=True)
    for name in ("hosts", "shadow", "ssl/certificate"):
        (source / name).write_text(name)
        (source / name).chmod(0o644)
    (source / "shadow").chmod(0o640)
    for folder in (source, source / "ssl"):
        folder.chmod(0o755)
    return EtcSnapshots(tmp_path / "data" / "snapshots", source)


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def content_of(snapshots: EtcSnapshots) -> dict[str, str]:
    """Return the content of the current snapshot's files, by name."""
    with snapshots.current() as current:
        return {name: (current / name).read_text() for name in names_in(current) if (current / name).is_file()}


def stored(snapshots: EtcSnapshots) -> set[str]:
    return {entry.name for entry in os.scandir(snapshots.folder) if entry.is_dir()}


def test_snapshot_contains_the_world_readable_files_with_their_modes(snapshots: EtcSnapshots) -> None:
    (snapshots.source / "program").write_text("#!/bin/sh")
    (snapshots.source / "program").chmod(0o4755)
    (snapshots.source / "ssl").chmod(0o555)
    with snapshots.current() as current:
        modes = {name: stat.S_IMODE((current / name).stat().st_mode) for name in names_in(current)}
        assert modes == {"hosts": 0o644, "program": 0o755, "ssl": 0o755, "ssl/certificate": 0o644}
        assert stat.S_IMODE(current.stat().st_mode) == 0o755
        assert (current / "ssl" / "certificate").read_text() == "ssl/certificate"


def test_links_are_copied_as_links(snapshots: EtcSnapshots) -> None:
    (snapshots.source / "to-private").symlink_to("shadow")
    (snapshots.source / "to-folder").symlink_to("ssl")
    (snapshots.source / "to-nothing").symlink_to("../run/resolv.conf")
    with snapshots.current() as current:
        links = {path.name: os.readlink(path) for path in current.iterdir() if path.is_symlink()}
    assert links == {"to-private": "shadow", "to-folder": "ssl", "to-nothing": "../run/resolv.conf"}


def test_private_folders_and_special_files_are_left_out(snapshots: EtcSnapshots) -> None:
    (snapshots.source / "private").mkdir(mode=0o700)
    (snapshots.source / "private" / "readable").touch(mode=0o644)
    os.mkfifo(snapshots.source / "pipe")
    (snapshots.source / "pipe").chmod(0o644)
    assert set(content_of(snapshots)) == {"hosts", "ssl/certificate"}
    with snapshots.current() as current:
        assert names_in(current) == {"hosts", "ssl", "ssl/certificate"}


def edit(source: Path) -> None:
    (source / "hosts").write_text("HOSTS")


def replace_by_rename(source: Path) -> None:
    (source / "hosts.new").write_text("HOSTS")
    (source / "hosts.new").chmod(0o644)
    (source / "hosts.new").rename(source / "hosts")


@pytest.mark.parametrize("change", [edit, replace_by_rename])
def test_changed_file_is_in_the_next_snapshot(snapshots: EtcSnapshots, change: Callable[[Path], None]) -> None:
    assert content_of(snapshots)["hosts"] == "hosts"
    change(snapshots.source)
    assert content_of(snapshots)["hosts"] == "HOSTS"


def test_quick_changes_of_equal_size_are_all_in_the_next_snapshot(snapshots: EtcSnapshots) -> None:
    for number in range(10):
        (snapshots.source / "hosts").write_text(str(number))
        assert content_of(snapshots)["hosts"] == str(number)


@pytest.mark.parametrize(("seconds_ago", "waits"), [(0.005, True), (1.0, False)])
def test_copy_of_a_recent_change_waits_until_the_next_change_has_another_ctime(
    snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch, seconds_ago: float, waits: bool
) -> None:
    """Kernels before 6.13 record a ctime to some milliseconds."""
    last = max(path.stat().st_ctime for path in (snapshots.source, *snapshots.source.rglob("*")))
    pauses: list[float] = []
    monkeypatch.setattr(time, "time", lambda: last + seconds_ago)
    monkeypatch.setattr(time, "sleep", pauses.append)
    content_of(snapshots)
    assert bool(pauses) == waits


def test_added_file_and_changed_link_are_in_the_next_snapshot(snapshots: EtcSnapshots) -> None:
    link = snapshots.source / "ssl" / "link"
    link.symlink_to("old")
    content_of(snapshots)
    (snapshots.source / "ssl" / "added").write_text("added")
    (snapshots.source / "ssl" / "added").chmod(0o644)
    assert content_of(snapshots)["ssl/added"] == "added"
    link.unlink()
    link.symlink_to("new")
    with snapshots.current() as current:
        assert os.readlink(current / "ssl" / "link") == "new"


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "ssl" / "certificate").unlink(),
        lambda source: (source / "ssl" / "certificate").chmod(0o600),
        lambda source: (source / "ssl").chmod(0o700),
    ],
    ids=["removed", "private", "in a private folder"],
)
def test_removed_or_private_file_is_not_in_the_next_snapshot(
    snapshots: EtcSnapshots, change: Callable[[Path], None]
) -> None:
    content_of(snapshots)
    change(snapshots.source)
    assert set(content_of(snapshots)) == {"hosts"}


def test_change_of_a_private_file_needs_no_new_snapshot(snapshots: EtcSnapshots) -> None:
    content_of(snapshots)
    before = stored(snapshots)
    (snapshots.source / "shadow").write_text("another password")
    content_of(snapshots)
    assert stored(snapshots) == before


def test_file_that_becomes_private_before_it_is_opened_is_never_copied(
    snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is swapped for a private file right before the copy opens it; each write is then inspected."""
    secret = snapshots.source / "secret"
    really_open = os.open
    written: list[str] = []

    def open_after_swap(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "hosts" and not secret.exists():
            secret.write_text("secret")
            secret.chmod(0o600)
            os.link(secret, snapshots.source / "swapped")
            (snapshots.source / "swapped").rename(snapshots.source / "hosts")
        return really_open(path, flags, mode, dir_fd=dir_fd)

    really_fchmod = os.fchmod

    def inspect(descriptor: int, mode: int) -> None:
        written.append(os.readlink(f"/proc/self/fd/{descriptor}").rsplit("/", 1)[-1])
        really_fchmod(descriptor, mode)

    monkeypatch.setattr(os, "open", open_after_swap)
    monkeypatch.setattr(os, "fchmod", inspect)
    assert set(content_of(snapshots)) == {"ssl/certificate"}
    assert "hosts" not in written


def test_content_written_after_a_file_became_private_is_never_copied(
    snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opened file becomes private, with a secret, between the check of its mode and the read."""
    hosts = snapshots.source / "hosts"
    really_fstat, really_fchmod = os.fstat, os.fchmod
    written: list[str] = []

    def fstat_before_change(descriptor: int) -> os.stat_result:
        status = really_fstat(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(hosts) and status.st_mode & stat.S_IROTH:
            hosts.chmod(0o600)
            hosts.write_text("secret")
        return status

    def inspect(descriptor: int, mode: int) -> None:
        written.append(os.readlink(f"/proc/self/fd/{descriptor}").rsplit("/", 1)[-1])
        really_fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fstat", fstat_before_change)
    monkeypatch.setattr(os, "fchmod", inspect)
    assert set(content_of(snapshots)) == {"ssl/certificate"}
    assert hosts.read_text() == "secret"
    assert "hosts" not in written


def test_file_added_after_the_scan_becomes_part_of_the_state(
    snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    added, really_lstat = snapshots.source / "added", os.lstat

    def lstat_after_addition(path: str, **options: Any) -> os.stat_result:
        if not os.path.exists(added):
            added.write_text("added")
            added.chmod(0o644)
        return really_lstat(path, **options)

    monkeypatch.setattr(os, "lstat", lstat_after_addition)
    assert "added" in content_of(snapshots)
    added.chmod(0o600)
    assert "added" not in content_of(snapshots)


def test_change_during_the_copy_starts_it_over(snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    really_fchmod = os.fchmod

    def change_once(descriptor: int, mode: int) -> None:
        monkeypatch.setattr(os, "fchmod", really_fchmod)
        (snapshots.source / "ssl" / "certificate").write_text("renewed")
        (snapshots.source / "hosts").write_text("renewed")
        really_fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", change_once)
    assert content_of(snapshots) == {"hosts": "renewed", "ssl/certificate": "renewed"}
    assert len(stored(snapshots)) == 1


def test_constantly_changing_source_is_refused(snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    really_fchmod, numbers = os.fchmod, iter(range(100))

    def change(descriptor: int, mode: int) -> None:
        (snapshots.source / f"added-{next(numbers)}").touch()
        really_fchmod(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", change)
    with pytest.raises(SnapshotFailed, match="changed during each of"):
        content_of(snapshots)
    assert stored(snapshots) == set()


def test_snapshot_in_use_is_retained_until_its_last_user_ends(snapshots: EtcSnapshots) -> None:
    with snapshots.current() as first, snapshots.current() as again:
        assert first == again
        edit(snapshots.source)
        with snapshots.current() as second:
            assert (first / "hosts").read_text() == "hosts"
            assert (second / "hosts").read_text() == "HOSTS"
    content_of(snapshots)
    assert stored(snapshots) == {second.name}


def a_user(snapshots: EtcSnapshots, setup: str = "") -> "subprocess.Popen[bytes]":
    """Start a process that uses the current snapshot until it is killed, and prints a line once it does."""
    code = f"""
import os, signal, sys
from pathlib import Path
from labrats.sandbox.etc_snapshots import EtcSnapshots
{setup}
with EtcSnapshots(Path({str(snapshots.folder)!r}), Path({str(snapshots.source)!r})).current():
    print("in use", flush=True)
    sys.stdin.read()
"""
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_snapshot_of_a_killed_process_is_removed(snapshots: EtcSnapshots) -> None:
    with a_user(snapshots) as user:
        assert user.stdout
        assert user.stdout.readline() == b"in use\n"
        edit(snapshots.source)
        content_of(snapshots)
        assert len(stored(snapshots)) == 2
        user.kill()
    content_of(snapshots)
    assert len(stored(snapshots)) == 1


def test_unfinished_snapshot_of_a_killed_process_is_removed(snapshots: EtcSnapshots) -> None:
    with a_user(snapshots, "os.fchmod = lambda *_: os.kill(os.getpid(), signal.SIGKILL)") as user:
        assert user.wait() == -signal.SIGKILL
    unfinished = stored(snapshots)
    assert len(unfinished) == 1
    assert set(content_of(snapshots)) == {"hosts", "ssl/certificate"}
    assert len(stored(snapshots)) == 1
    assert not unfinished & stored(snapshots)


def test_incomplete_removal_leaves_no_snapshot_to_use(snapshots: EtcSnapshots) -> None:
    """A process is killed while it removes an old snapshot, whose state is current again for another process."""
    content_of(snapshots)
    old = stored(snapshots)
    edit(snapshots.source)
    with a_user(snapshots, "os.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)") as user:
        assert user.wait() == -signal.SIGKILL
    assert not old & stored(snapshots)
    content_of(snapshots)
    assert len(stored(snapshots)) == 1


def test_too_large_source_is_refused_and_leaves_nothing(snapshots: EtcSnapshots) -> None:
    with (snapshots.source / "large").open("wb") as large:
        large.truncate(etc_snapshots.MOST_BYTES + 1)
    (snapshots.source / "large").chmod(0o644)
    with pytest.raises(SnapshotFailed, match="contains more than 64 MiB"):
        content_of(snapshots)
    assert stored(snapshots) == set()


def test_full_disk_is_refused_and_leaves_nothing(snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fchmod", fail)
    with pytest.raises(SnapshotFailed, match="No space left on device"):
        content_of(snapshots)
    assert stored(snapshots) == set()


def test_failure_names_the_folder_and_the_reason(snapshots: EtcSnapshots) -> None:
    snapshots.folder.parent.write_text("a file in the place of the data folder")
    with pytest.raises(SnapshotFailed, match=r"data.*: Not a directory"):
        content_of(snapshots)


def test_state_of_another_version_or_boot_is_another(snapshots: EtcSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    content_of(snapshots)
    before = stored(snapshots)
    monkeypatch.setattr(etc_snapshots, "boot_id", lambda: "another boot")
    content_of(snapshots)
    assert not stored(snapshots) & before

"""Limits on threads that the engine shares with its attempts, in both versions of control groups."""

import os
import resource
from pathlib import Path

import pytest

from labrats.executor.resource_limits import thread_limits as limits_module
from labrats.executor.resource_limits.thread_limits import ThreadLimit, thread_limits
from labrats.sandbox import control_groups

VERSION_2 = "0::/system.slice/labrats.service/engine"
VERSION_1 = "5:devices:/\n4:cpu,pids:/container\n0::/"


def groups(folder: Path, monkeypatch: pytest.MonkeyPatch, own: str, kind: str, most: dict[str, str]) -> None:
    """Create control groups with these limits, in which this process is."""
    for group, limit in most.items():
        place = folder / group
        place.mkdir(parents=True, exist_ok=True)
        for each in (place, *place.parents[: len(Path(group).parts)]):
            (each / "cgroup.procs").touch()
        (place / "pids.max").write_text(f"{limit}\n")
        (place / "pids.current").write_text("95\n")
    (folder.parent / "own").write_text(f"{own}\n")
    (folder.parent / "mounts").write_text(f"29 25 0:26 / {folder} rw,nosuid shared:4 - {kind}\n")
    monkeypatch.setattr(control_groups, "_OWN_GROUP", folder.parent / "own")
    monkeypatch.setattr(control_groups, "_MOUNTS", folder.parent / "mounts")
    monkeypatch.setattr(os, "getuid", lambda: 0)


@pytest.mark.parametrize(
    ("own", "kind", "limited"),
    [
        (VERSION_2, "cgroup2 cgroup rw", "system.slice/labrats.service"),
        (VERSION_1, "cgroup cgroup rw,cpu,pids", "container"),
        (VERSION_1, "cgroup cgroup rw,pids", "container"),
    ],
    ids=["version 2", "version 1 with others", "version 1"],
)
def test_limit_of_a_group_above_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, kind: str, limited: str
) -> None:
    folder = tmp_path / "groups"
    most = {limited: "100"} | ({"system.slice/labrats.service/engine": "max"} if own == VERSION_2 else {})
    groups(folder, monkeypatch, own, kind, most)
    [limit] = thread_limits()
    assert (limit.setting, limit.most, limit.is_nearly_reached()) == (f"{folder}/{limited}/pids.max", 100, True)
    (folder / limited / "pids.current").write_text("80\n")
    assert not limit.is_nearly_reached()


def test_limit_of_an_attempt_alone_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, service = tmp_path / "groups", "labrats.service"
    most = {service: "900", f"{service}/jobs": "max", f"{service}/jobs/one": "100"}
    groups(folder, monkeypatch, f"0::/{service}/jobs/one", "cgroup2 cgroup rw", most)
    assert [limit.most for limit in thread_limits(folder / service / "jobs")] == [900]


def test_limit_of_an_ordinary_user_counts_the_threads_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "groups_above", lambda *_: [])
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4000, 5000))
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user or 1)
    [limit] = thread_limits()
    assert (limit.setting, limit.most) == ("ulimit -u", 4000)
    assert limit.used() >= (0 if user == 0 else 1)


def test_removed_group_ends_no_attempt(tmp_path: Path) -> None:
    def fail() -> int:
        return int((tmp_path / "pids.current").read_text())

    assert not ThreadLimit("pids.max", 1, fail).is_nearly_reached()

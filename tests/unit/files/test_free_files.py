"""The number of files that a volume has room for."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from labrats.files.free_files import FileRoom, file_room


@pytest.mark.parametrize(
    ("total", "free", "missing"),
    [(10_000, 600, 0), (10_000, 400, 100), (100_000_000, 65_536, 0), (100_000_000, 65_000, 536), (0, 0, 0)],
    ids=["small", "nearly full", "large", "large and nearly full", "without a limit"],
)
def test_room_for_a_part_of_all_files_is_kept_free(total: int, free: int, missing: int) -> None:
    assert FileRoom(total, free).missing == missing


def test_room_is_what_an_ordinary_user_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=100, f_ffree=20, f_favail=10))
    assert file_room(tmp_path) == FileRoom(100, 10)

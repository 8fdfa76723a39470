"""Tests for images.py: a build that the kernel refuses for a moment, and builds at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.shell import Failed

_BUSY = "Close_Fd sealing memfd copy: Device or resource busy"


def _install_buildah(folder: Path, monkeypatch: pytest.MonkeyPatch, *errors: str) -> Path:
    """Put a `buildah` first in PATH whose runs fail with `errors`, one each, then succeed. Return its log."""
    log = folder / "runs"
    (folder / "errors").write_text("".join(f"{error}\n" for error in errors))
    program = folder / "buildah"
    program.write_text(
        f'#!/bin/sh\necho run >> {log}\nerror=$(sed -n "$(wc -l < {log})p" {folder / "errors"})\n'
        '[ -z "$error" ] || { echo "$error" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return log


def test_builds_again_where_the_kernel_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _install_buildah(tmp_path, monkeypatch, _BUSY, _BUSY)
    images._build("localhost/test", tmp_path)
    assert log.read_text() == "run\n" * 3


def test_does_not_build_again_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _install_buildah(tmp_path, monkeypatch, *[_BUSY] * 9)
    with pytest.raises(Failed, match="sealing memfd copy"):
        images._build("localhost/test", tmp_path)
    assert log.read_text() == "run\n" * 4


def test_does_not_build_again_after_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _install_buildah(tmp_path, monkeypatch, "no space left on device")
    with pytest.raises(Failed, match="no space left on device"):
        images._build("localhost/test", tmp_path)
    assert log.read_text() == "run\n"


def test_workers_that_need_the_pause_image_at_once_build_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, log = tmp_path / "buildah", tmp_path / "runs"
    program.write_text(
        f"""#!/bin/sh
        for last; do :; done
        case "$*" in
        *" build "*) echo build >> {log}; sleep 0.3;;
        *) file=${{last#docker-archive:}}; file=${{file%%:*}}; [ ! -e "$file" ] && sleep 0.3 && touch "$file";;
        esac\n"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tests.cluster.images.packages.require", lambda _: None)
    monkeypatch.setattr("tests.cluster.images.copy", lambda *_: None)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: images.pause_image(), range(3)))
    assert [archive.exists() for archive in found] == [True] * 3
    assert log.read_text() == "build\n"

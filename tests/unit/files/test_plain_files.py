"""Files from folders that an agent can write to."""

import os
import socket
from pathlib import Path

import pytest

from labrats.files.plain_files import NotPlain, read_plain


def a_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("of somebody else")
    path.symlink_to(target)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, a_link, a_socket])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "claim")
    with pytest.raises(NotPlain):
        read_plain(tmp_path / "claim", 10)


def test_a_file_is_read_to_its_end_or_as_far_as_is_asked(tmp_path: Path) -> None:
    (tmp_path / "claim").write_bytes(b"0123456789")
    assert read_plain(tmp_path / "claim", 100) == b"0123456789"
    assert read_plain(tmp_path / "claim", 4) == b"0123"


def test_where_nothing_lies_nothing_is_claimed_to(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        read_plain(tmp_path / "claim", 10)
    assert not isinstance(raised.value, NotPlain)

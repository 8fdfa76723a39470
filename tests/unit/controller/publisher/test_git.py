"""Runs of git whose output is long."""

from pathlib import Path
from time import monotonic

from labrats.controller.publisher.git import start_of_output

ENDLESS = ["-c", "alias.endless=!yes", "endless"]


def test_only_the_start_of_a_long_output_is_read(tmp_path: Path) -> None:
    began = monotonic()
    assert start_of_output(tmp_path, ENDLESS, 10_000) == b"y\n" * 5_000
    assert monotonic() - began < 30

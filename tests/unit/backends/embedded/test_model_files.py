"""Operations on model files that an earlier engine has left. tests/conformance checks the contract."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from labrats.backends.embedded.model_files import LocalModelFiles
from labrats.files.model_folder import ModelFolder
from labrats.net.client import OutboundClient
from tests.fakes.clock import FakeClock
from tests.support.background import run_in_background

NO_UTF8 = b'{"work":"\xff\xfe"}'


def a_folder_as_record(root: Path) -> None:
    (root / ".operations" / "qwen-a.json").mkdir()


def a_record_without_utf8(root: Path) -> None:
    (root / ".operations" / "qwen-a.json").write_bytes(NO_UTF8)


@pytest.mark.parametrize("leave", [a_folder_as_record, a_record_without_utf8])
async def test_damaged_files_do_not_end_the_engine(tmp_path: Path, leave: Callable[[Path], None]) -> None:
    (tmp_path / ".operations").mkdir()
    leave(tmp_path)
    files = LocalModelFiles(ModelFolder(tmp_path, OutboundClient([]), 2**20), FakeClock())
    async with run_in_background(files.run()):  # ends with the error of `run`
        await asyncio.sleep(0.5)

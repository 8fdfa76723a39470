"""Reading the result of an attempt, which an agent may have written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from labrats.files import attempt_results
from labrats.files.attempt_results import AttemptResults, read_result
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import NotFound
from labrats.model.protocol import OUTPUT_FILE, PUBLICATION_FILE, RESULT_FILE
from labrats.model.publication import STORED_PUBLICATION_BYTES
from labrats.model.record import encode
from tests.support.builders import a_result

NAME: Final = AttemptName("ir-00000001", 1)


@pytest.mark.parametrize("content", [b'{"half', b'"\xff"', b"[" * 100_000, b"[" * 500 + b"]" * 500])
def test_a_file_that_is_no_result_counts_as_missing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / OUTPUT_FILE).write_bytes(encode(a_result(None, file=RESULT_FILE)) + b"\n")
    file = tmp_path / RESULT_FILE
    file.write_bytes(b'{"a":[1]}')
    assert read_result(NAME, tmp_path) == {"a": [1]}
    file.write_bytes(content)
    with pytest.raises(NotFound):
        read_result(NAME, tmp_path)


def test_a_large_result_is_read_only_if_it_is_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded, a list of empty lists takes twenty times as much memory."""
    monkeypatch.setattr(attempt_results, "MAX_VALUES_BYTES", 1000)
    (tmp_path / OUTPUT_FILE).write_bytes(encode(a_result(None, file=RESULT_FILE)) + b"\n")
    file = tmp_path / RESULT_FILE
    file.write_bytes(b'"' + b"x" * 2000 + b'"')
    assert read_result(NAME, tmp_path) == "x" * 2000
    file.write_bytes(b"[" + b"[]," * 500 + b"[]]")
    with pytest.raises(NotFound, match="too large to be read"):
        read_result(NAME, tmp_path)


@dataclass
class ResultsIn(AttemptResults):
    """The results of attempts in one folder."""

    folder: Path

    def path_of(self, name: AttemptName) -> Path:
        return self.folder


async def test_publication_that_no_executor_stores_is_not_read(tmp_path: Path) -> None:
    """Parsed, a list of labels takes twenty times as much memory as its JSON."""
    results, publication = ResultsIn(tmp_path), tmp_path / PUBLICATION_FILE
    publication.write_bytes(b" " * STORED_PUBLICATION_BYTES)
    assert len(await results.publication(NAME)) == STORED_PUBLICATION_BYTES
    publication.write_bytes(b" " * (STORED_PUBLICATION_BYTES + 1))
    with pytest.raises(NotFound, match="the publication of attempt ir-00000001-1 is larger than 1 MiB"):
        await results.publication(NAME)

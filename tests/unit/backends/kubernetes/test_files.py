"""The copy of an output: complete, without duplicates, and equal for every engine that writes it."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from labrats.backends.kubernetes.claims import Claims
from labrats.backends.kubernetes.failures import ENDING_WAS_DAMAGED, NEVER_STARTED, failure_without_outcome
from labrats.backends.kubernetes.files import AttemptFiles, OutputCopy
from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import BUNDLE_FILE, CHANGES_FILE, PATCH_FILE, RESULT_FILE, AnyEvent, PartEvent, ResultEvent
from labrats.model.record import encode
from tests.fakes.clock import NOON
from tests.support.builders import a_log, a_result


@pytest.fixture
def files(tmp_path: Path) -> AttemptFiles:
    files = AttemptFiles.of(tmp_path, AttemptName("ir-0000000a", 1))
    files.create("")
    return files


def lines_of(events: Sequence[AnyEvent]) -> list[bytes]:
    return [encode(event) for event in events]


def parts_of(file: str, content: bytes, *, seq: int) -> list[PartEvent]:
    """Return the file as two part events. seq: number of the first."""
    half = len(content) // 2
    return [
        PartEvent(seq=seq, at=NOON, file=file, offset=0, data=content[:half]),
        PartEvent(seq=seq + 1, at=NOON, file=file, offset=half, data=content[half:], is_last=True),
    ]


def logs(first: int, last: int) -> list[bytes]:
    return lines_of([a_log(seq, f"line {seq}") for seq in range(first, last + 1)])


def written(files: AttemptFiles) -> list[bytes]:
    return files.output.read_bytes().splitlines()


def test_events_are_copied_in_order(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.append(logs(1, 3))
    copy.append(logs(4, 5))

    assert written(files) == logs(1, 5)
    assert copy.last == a_log(5, "line 5")


def test_events_that_are_read_twice_are_copied_once(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.append(logs(1, 3))
    copy.append(logs(2, 4))

    assert written(files) == logs(1, 4)


def test_lines_that_are_no_events_are_skipped(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.append([b"Traceback (most recent call last):", *logs(1, 1), b"", b'{"seq": 2}', *logs(2, 2)])

    assert written(files) == logs(1, 2)


def test_another_engine_continues_a_copy(files: AttemptFiles) -> None:
    OutputCopy(files).append(logs(1, 3))
    successor = OutputCopy(files)
    assert successor.last == a_log(3, "line 3")
    successor.append(logs(1, 5))

    assert written(files) == logs(1, 5)


@pytest.mark.parametrize("written_bytes", [1, 20, 40])
def test_a_line_that_a_crash_cut_off_is_overwritten(files: AttemptFiles, written_bytes: int) -> None:
    OutputCopy(files).append(logs(1, 3))
    with files.output.open("ab") as output:
        output.write(logs(4, 4)[0][:written_bytes])
    OutputCopy(files).append(logs(1, 5))

    assert written(files) == logs(1, 5)


def test_two_engines_that_copy_at_once_write_the_same_output(files: AttemptFiles) -> None:
    paused = OutputCopy(files)
    paused.append(logs(1, 3))
    successor = OutputCopy(files)
    successor.append(logs(4, 9))
    paused.append(logs(4, 6))
    successor.append(logs(10, 12))

    assert written(files) == logs(1, 12)


def test_an_output_is_complete_with_its_terminal_event(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.append(logs(1, 1))
    assert not OutputCopy(files).is_complete
    copy.append(lines_of([a_result(seq=2)]))
    assert copy.is_complete
    copy.append(logs(3, 3))

    assert OutputCopy(files).is_complete
    assert written(files) == [*logs(1, 1), *lines_of([a_result(seq=2)])]


def test_missing_events_are_counted(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.append([*logs(1, 2), *logs(6, 7)])

    assert copy.missing == 3


def test_the_parts_of_a_result_are_joined(files: AttemptFiles) -> None:
    content = '{"text": "grüße"}'.encode()
    parts = parts_of(RESULT_FILE, content, seq=2)
    end = ResultEvent(seq=4, at=NOON, file=RESULT_FILE)
    OutputCopy(files).append([*logs(1, 1), *lines_of(parts[:1])])
    assert not (files.folder / RESULT_FILE).exists()
    OutputCopy(files).append([*logs(1, 1), *lines_of([*parts, end])])

    assert (files.folder / RESULT_FILE).read_bytes() == content
    assert written(files) == [*logs(1, 1), *lines_of([end])]


def test_a_file_with_a_missing_part_is_not_created(files: AttemptFiles) -> None:
    _, second = parts_of(PATCH_FILE, b"+what changed", seq=1)
    OutputCopy(files).append(lines_of([second]))
    assert not (files.folder / PATCH_FILE).exists()


def test_an_executor_can_cause_only_a_few_writes_by_parts_of_files(
    files: AttemptFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each could take milliseconds on a network volume, for which the output of other jobs would wait."""
    calls: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def counted(*arguments: Any) -> Any:
            calls[name] += 1
            return call(*arguments)

        return counted

    for name in ("pwrite", "fsync"):
        monkeypatch.setattr(os, name, counting(name))
    tiny = [PartEvent(seq=seq, at=NOON, file=PATCH_FILE, offset=seq - 1, data=b"x") for seq in range(1, 101)]
    repeated = [
        PartEvent(seq=seq, at=NOON, file=RESULT_FILE, offset=0, data=b"a", is_last=True) for seq in range(101, 201)
    ]
    copy = OutputCopy(files)
    for lines in (tiny, repeated[:50], repeated[50:]):
        copy.append(lines_of(lines))
    assert calls["pwrite"] == 2
    assert calls["fsync"] <= 2
    assert (files.folder / RESULT_FILE).read_bytes() == b"a"


def test_changes_so_far_are_replaced_by_each_later_report_and_removed_at_the_end(files: AttemptFiles) -> None:
    copy, changes = OutputCopy(files), files.folder / CHANGES_FILE
    for seq, content in ((1, b"a long report"), (3, b"short"), (5, b""), (7, b"+line"), (9, b"+lines")):
        copy.append(lines_of(parts_of(CHANGES_FILE, content, seq=seq)))
        assert changes.read_bytes() == content
    copy.append(lines_of(parts_of(CHANGES_FILE, b"a report that is interrupted", seq=11)[:1]))
    assert changes.read_bytes() == b"+lines"
    successor = OutputCopy(files)
    successor.append(lines_of(parts_of(CHANGES_FILE, b"the last", seq=13)))
    assert changes.read_bytes() == b"the last"
    files.record_ending(NEVER_STARTED)
    assert not changes.exists()


@pytest.mark.parametrize("name", ["output.jsonl", "../escaped", "/etc/escaped", "ending.json", "owner"])
def test_an_executor_can_write_no_other_file_than_its_result_and_patch(files: AttemptFiles, name: str) -> None:
    files.create(owner="")
    OutputCopy(files).append(lines_of([PartEvent(seq=1, at=NOON, file=name, offset=0, data=b"x", is_last=True)]))
    assert list(files.folder.iterdir()) == []
    assert not (files.folder.parent / "escaped").exists()


def test_an_endless_output_is_cut_but_keeps_its_outcome(files: AttemptFiles) -> None:
    copy = OutputCopy(files, max_bytes=200)
    for seq in range(1, 100):
        copy.append(logs(seq, seq))
    copy.append(lines_of([PartEvent(seq=100, at=NOON, file=RESULT_FILE, offset=10**9, data=b"x"), a_result(seq=101)]))

    assert len(written(files)) < 10
    assert written(files)[-1] == encode(a_result(seq=101))
    assert not (files.folder / RESULT_FILE).exists()


def test_only_the_first_record_of_an_ending_counts(files: AttemptFiles) -> None:
    assert files.ending() is None
    files.record_ending(NEVER_STARTED)
    files.record_ending(failure_without_outcome(None, None))

    assert files.ending() == NEVER_STARTED
    assert [path.name for path in files.folder.iterdir()] == ["ending.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"code": "lo', b'{"code": "lost", "reason": "\xff"}', b'{"code": "of-a-later-version", "reason": "a"}'],
)
def test_a_damaged_record_of_an_ending_counts_as_an_end(files: AttemptFiles, content: bytes) -> None:
    (files.folder / "ending.json").write_bytes(content)
    assert files.ending() == ENDING_WAS_DAMAGED


def test_an_empty_claim_has_no_holder(tmp_path: Path) -> None:
    claims, name = Claims(tmp_path), AttemptName("ir-0000000a", 1)
    claims.prepare(name)
    (tmp_path / "0a" / str(name) / "claim").write_text("")
    assert claims.holder(name) is None


def test_removed_files_do_not_exist_and_have_no_ending(files: AttemptFiles) -> None:
    files.record_ending(failure_without_outcome(None, None))
    files.remove()
    files.remove()

    assert not files.exists
    assert files.ending() is None


def test_the_owner_of_an_attempt_is_recorded_once(files: AttemptFiles) -> None:
    assert files.owner == ""
    files.create("uid-1")
    files.create("")
    files.create("uid-2")

    assert files.owner == "uid-1"


def test_a_bundle_is_no_larger_than_an_executor_makes_it(files: AttemptFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labrats.backends.kubernetes.files.BUNDLE_BYTES", 50)
    copy = OutputCopy(files)
    copy.append(lines_of([*parts_of(RESULT_FILE, b"x" * 60, seq=1), *parts_of(BUNDLE_FILE, b"y" * 60, seq=3)]))
    assert (files.folder / RESULT_FILE).exists()
    assert not (files.folder / BUNDLE_FILE).exists()


def test_files_in_parts_have_a_limit_together(files: AttemptFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labrats.backends.kubernetes.files.PARTS_BYTES", 100)
    copy = OutputCopy(files)
    copy.append(lines_of([*parts_of(RESULT_FILE, b"x" * 60, seq=1), *parts_of(PATCH_FILE, b"y" * 60, seq=3)]))
    assert (files.folder / RESULT_FILE).read_bytes() == b"x" * 60
    assert not (files.folder / PATCH_FILE).exists()

    successor = OutputCopy(files)
    successor.append(lines_of([*parts_of(BUNDLE_FILE, b"z" * 60, seq=5), *parts_of(RESULT_FILE, b"v" * 60, seq=7)]))
    assert not (files.folder / BUNDLE_FILE).exists()
    assert (files.folder / RESULT_FILE).read_bytes() == b"v" * 60
    assert sum(path.stat().st_size for path in files.folder.iterdir()) <= 200

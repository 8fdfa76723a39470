"""The copy of an output: whole, without repeats, and the same whoever makes it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from labrats.backends.kubernetes.failures import NEVER_STARTED, why_it_ended
from labrats.backends.kubernetes.files import AttemptFiles, OutputCopy
from labrats.model.attempt_name import AttemptName
from labrats.model.protocol import PATCH_FILE, RESULT_FILE, AnyEvent, PartEvent, ResultEvent
from labrats.model.record import encode
from tests.fakes.clock import NOON
from tests.support.builders import a_log, a_result


@pytest.fixture
def files(tmp_path: Path) -> AttemptFiles:
    files = AttemptFiles.of(tmp_path, AttemptName("ir-0000000a", 1))
    files.begin("")
    return files


def lines_of(events: Sequence[AnyEvent]) -> list[bytes]:
    return [encode(event) for event in events]


def parts_of(file: str, content: bytes, *, seq: int) -> list[PartEvent]:
    """The file in two parts, the first of which has the number `seq`."""
    half = len(content) // 2
    return [
        PartEvent(seq=seq, at=NOON, file=file, offset=0, data=content[:half]),
        PartEvent(seq=seq + 1, at=NOON, file=file, offset=half, data=content[half:], is_last=True),
    ]


def logs(first: int, last: int) -> list[bytes]:
    return lines_of([a_log(seq, f"line {seq}") for seq in range(first, last + 1)])


def written(files: AttemptFiles) -> list[bytes]:
    return files.output.read_bytes().splitlines()


def test_events_are_kept_as_they_came(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.take(logs(1, 3))
    copy.take(logs(4, 5))

    assert written(files) == logs(1, 5)
    assert copy.last == a_log(5, "line 5")


def test_what_is_read_again_is_not_kept_again(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.take(logs(1, 3))
    copy.take(logs(2, 4))

    assert written(files) == logs(1, 4)


def test_what_is_no_event_is_passed_over(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.take([b"Traceback (most recent call last):", *logs(1, 1), b"", b'{"seq": 2}', *logs(2, 2)])

    assert written(files) == logs(1, 2)


def test_another_engine_goes_on_where_one_stopped(files: AttemptFiles) -> None:
    OutputCopy(files).take(logs(1, 3))
    successor = OutputCopy(files)
    assert successor.last == a_log(3, "line 3")
    successor.take(logs(1, 5))

    assert written(files) == logs(1, 5)


@pytest.mark.parametrize("kept", [1, 20, 40])
def test_a_line_that_was_torn_by_a_crash_is_written_again(files: AttemptFiles, kept: int) -> None:
    OutputCopy(files).take(logs(1, 3))
    with files.output.open("ab") as output:
        output.write(logs(4, 4)[0][:kept])
    OutputCopy(files).take(logs(1, 5))

    assert written(files) == logs(1, 5)


def test_one_who_was_thought_dead_does_no_harm(files: AttemptFiles) -> None:
    paused = OutputCopy(files)
    paused.take(logs(1, 3))
    successor = OutputCopy(files)
    successor.take(logs(4, 9))
    paused.take(logs(4, 6))
    successor.take(logs(10, 12))

    assert written(files) == logs(1, 12)


def test_an_output_is_complete_with_its_terminal_event(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.take(logs(1, 1))
    assert not OutputCopy(files).is_complete
    copy.take(lines_of([a_result(seq=2)]))
    assert copy.is_complete
    copy.take(logs(3, 3))

    assert OutputCopy(files).is_complete
    assert written(files) == [*logs(1, 1), *lines_of([a_result(seq=2)])]


def test_what_never_came_is_counted(files: AttemptFiles) -> None:
    copy = OutputCopy(files)
    copy.take([*logs(1, 2), *logs(6, 7)])

    assert copy.missing == 3


def test_a_result_in_parts_is_put_together(files: AttemptFiles) -> None:
    content = '{"text": "grüße"}'.encode()
    parts = parts_of(RESULT_FILE, content, seq=2)
    end = ResultEvent(seq=4, at=NOON, file=RESULT_FILE)
    OutputCopy(files).take([*logs(1, 1), *lines_of(parts[:1])])
    assert not files.result.exists()
    OutputCopy(files).take([*logs(1, 1), *lines_of([*parts, end])])

    assert files.result.read_bytes() == content
    assert written(files) == [*logs(1, 1), *lines_of([end])]


def test_a_file_of_which_a_part_was_missed_is_none(files: AttemptFiles) -> None:
    _, second = parts_of(PATCH_FILE, b"+what changed", seq=1)
    OutputCopy(files).take(lines_of([second]))
    assert not files.patch.exists()


@pytest.mark.parametrize("name", ["output.jsonl", "../escaped", "/etc/escaped", "ending.json", "owner"])
def test_an_executor_cannot_name_another_file(files: AttemptFiles, name: str) -> None:
    files.begin(owner="")
    OutputCopy(files).take(lines_of([PartEvent(seq=1, at=NOON, file=name, offset=0, data=b"x", is_last=True)]))
    assert list(files.folder.iterdir()) == []
    assert not (files.folder.parent / "escaped").exists()


def test_an_output_without_end_is_cut_but_for_its_outcome(files: AttemptFiles) -> None:
    copy = OutputCopy(files, most_bytes=200)
    for seq in range(1, 100):
        copy.take(logs(seq, seq))
    copy.take(lines_of([PartEvent(seq=100, at=NOON, file=RESULT_FILE, offset=10**9, data=b"x"), a_result(seq=101)]))

    assert len(written(files)) < 10
    assert written(files)[-1] == encode(a_result(seq=101))
    assert not files.result.exists()


def test_the_first_word_on_an_ending_counts(files: AttemptFiles) -> None:
    assert files.ending() is None
    files.conclude(NEVER_STARTED)
    files.conclude(why_it_ended(None, None))

    assert files.ending() == NEVER_STARTED
    assert [path.name for path in files.folder.iterdir()] == ["ending.json"]


def test_what_is_removed_has_never_begun(files: AttemptFiles) -> None:
    files.conclude(why_it_ended(None, None))
    files.remove()
    files.remove()

    assert not files.has_begun
    assert files.ending() is None


def test_whose_attempt_it_is_is_said_once(files: AttemptFiles) -> None:
    assert files.owner == ""
    files.begin("uid-1")
    files.begin("")
    files.begin("uid-2")

    assert files.owner == "uid-1"

"""Tests of detecting repeated calls."""

from labrats.executor.providers.react.repetition import RepetitionDetector


def detector_after(*calls: tuple[str, str, bool]) -> RepetitionDetector:
    """Return a detector after these calls: call, result, and whether it may change other results."""
    detector = RepetitionDetector()
    for call, answer, may_change in calls:
        detector.add(call, answer, may_change=may_change)
    return detector


def test_call_with_the_same_result_twice_is_refused() -> None:
    assert not detector_after(("read a", "x", False)).refuses("read a")
    assert detector_after(("read a", "x", False), ("read a", "x", False)).refuses("read a")


def test_call_with_a_new_result_is_not_refused() -> None:
    assert not detector_after(("date", "1", True), ("date", "2", True), ("date", "3", True)).refuses("date")


def test_alternating_calls_are_refused() -> None:
    detector = detector_after(*[("read a", "x", False), ("read b", "y", False)] * 2)
    assert detector.refuses("read a")
    assert detector.refuses("read b")


def test_call_is_not_refused_after_a_change() -> None:
    assert not detector_after(("test", "fails", True), ("edit", "done", True), ("test", "fails", True)).refuses("test")


def test_repeated_change_does_not_reset_the_counts() -> None:
    assert detector_after(*[("write a", "done", True), ("write b", "done", True)] * 3).refuses("write a")


def test_model_is_stuck_after_several_refused_calls() -> None:
    detector = detector_after(("ls", "x", False), ("ls", "x", False))
    for _ in range(4):
        assert not detector.is_stuck
        assert detector.refuses("ls")
    assert detector.is_stuck

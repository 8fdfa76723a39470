"""When a call is taken to lead nowhere."""

from labrats.executor.providers.react.repetition import RepetitionDetector


def noted(*calls: tuple[str, str, bool]) -> RepetitionDetector:
    """After these calls: what was called, what it answered, and whether it may change what others answer."""
    repetition = RepetitionDetector()
    for call, answer, may_change in calls:
        repetition.add(call, answer, may_change=may_change)
    return repetition


def test_a_call_that_twice_answered_the_same_refuses() -> None:
    assert not noted(("read a", "x", False)).refuses("read a")
    assert noted(("read a", "x", False), ("read a", "x", False)).refuses("read a")


def test_a_call_that_answers_something_new_goes_on() -> None:
    assert not noted(("date", "1", True), ("date", "2", True), ("date", "3", True)).refuses("date")


def test_calls_in_turns_are_noticed_too() -> None:
    repetition = noted(*[("read a", "x", False), ("read b", "y", False)] * 2)
    assert repetition.refuses("read a")
    assert repetition.refuses("read b")


def test_a_change_makes_an_old_call_a_new_question() -> None:
    assert not noted(("test", "fails", True), ("edit", "done", True), ("test", "fails", True)).refuses("test")


def test_a_change_that_was_made_before_is_none() -> None:
    assert noted(*[("write a", "done", True), ("write b", "done", True)] * 3).refuses("write a")


def test_it_is_stuck_once_the_model_insists() -> None:
    repetition = noted(("ls", "x", False), ("ls", "x", False))
    for _ in range(4):
        assert not repetition.is_stuck
        assert repetition.refuses("ls")
    assert repetition.is_stuck

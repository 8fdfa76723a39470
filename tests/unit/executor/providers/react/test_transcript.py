"""Tests of shrinking a conversation to the model's window."""

from hypothesis import given
from hypothesis import strategies as st

from labrats.executor.providers.react.observations import Observation
from labrats.executor.providers.react.transcript import ELIDED, ToolCall, Transcript, Turn


def a_turn(result_length: int, text: str = "") -> Turn:
    return Turn(text, [ToolCall("c", "run_command", {})], [Observation("x" * result_length)])


def size(transcript: Transcript) -> int:
    return sum(
        len(each.text) + sum(len(observations.text) for observations in each.observations) for each in transcript.shown
    )


def test_conversation_that_fits_is_shown_completely() -> None:
    transcript = Transcript("", "p", (a_turn(500), a_turn(500)))
    assert transcript.shrunk(size, 1000).shown == list(transcript.turns)


def test_oldest_results_are_omitted_first() -> None:
    transcript = Transcript("", "p", (a_turn(500), a_turn(500), a_turn(500))).shrunk(size, 1100)
    assert [each.observations[0].text for each in transcript.shown] == [ELIDED, "x" * 500, "x" * 500]


def test_oldest_turns_are_omitted_after_the_results() -> None:
    transcript = Transcript("", "p", (a_turn(5, "a" * 500), a_turn(5, "b" * 500), a_turn(5, "c"))).shrunk(size, 600)
    assert [each.text[0] for each in transcript.shown] == ["b", "c"]


def test_latest_turn_is_always_shown_completely() -> None:
    transcript = Transcript("", "p", (a_turn(500), a_turn(9000))).shrunk(size, 100)
    assert transcript.shown == [transcript.turns[-1]]


def test_omitted_results_stay_omitted_in_later_turns() -> None:
    transcript = Transcript("", "p", (a_turn(500), a_turn(500), a_turn(500))).shrunk(size, 700).with_turn(a_turn(1))
    assert [each.observations[0].text for each in transcript.shown] == [ELIDED, ELIDED, "x" * 500, "x"]


lengths = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 500)), max_size=12)


@given(lengths=lengths, limits=st.lists(st.integers(0, 10_000), max_size=4))
def test_shrunk_conversation_fits_and_omits_no_more_than_needed(
    lengths: list[tuple[int, int]], limits: list[int]
) -> None:
    transcript = Transcript("", "p", tuple(a_turn(answer, "t" * text) for answer, text in lengths))
    for limit in limits:
        before, transcript = transcript, transcript.shrunk(size, limit)
        assert transcript.turns == before.turns
        assert size(transcript) <= limit or transcript.shown == list(transcript.turns[-1:])
        assert (transcript == before) or size(before) > limit
        assert transcript.elided >= before.elided
        assert transcript.dropped >= before.dropped

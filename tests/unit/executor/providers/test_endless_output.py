"""A text that repeats itself without end is told from a long one."""

import pytest

from labrats.executor.providers.endless_output import EndlessOutputDetector


def loop_in(text: str, step: int = 7) -> str | None:
    endless = EndlessOutputDetector()
    for start in range(0, len(text), step):
        endless.add(text[start : start + step])
    return endless.loop


@pytest.mark.parametrize("phrase", ["a", "\n", "no, ", "x" * 200 + ".", "A long paragraph with some words. " * 50])
def test_what_is_repeated_long_enough_is_a_loop(phrase: str) -> None:
    loop = loop_in("It began well. " + phrase * (20_000 // len(phrase)))

    assert loop is not None
    assert len(phrase) % len(loop) == 0
    assert loop in phrase * 2


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{number}, " for number in range(10_000)),
        "-" * 3000,
        ("-" * 79 + "\n") * 20,
        "the same paragraph, " * 150 + "and an end",
        "".join(f"assert f({number}) == 0\n" for number in range(2000)),
    ],
)
def test_a_text_that_goes_on_or_ends_is_none(text: str) -> None:
    assert loop_in(text) is None

"""Tests of detecting a text that repeats without end."""

import pytest

from labrats.executor.providers.endless_output import EndlessOutputDetector


def loop_in(text: str, step: int = 7) -> str | None:
    detector = EndlessOutputDetector()
    for start in range(0, len(text), step):
        detector.add(text[start : start + step])
    return detector.loop


@pytest.mark.parametrize("phrase", ["a", "\n", "no, ", "x" * 200 + ".", "A long paragraph with some words. " * 50])
def test_text_repeated_often_enough_is_a_loop(phrase: str) -> None:
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
def test_varying_or_short_text_is_not_a_loop(text: str) -> None:
    assert loop_in(text) is None

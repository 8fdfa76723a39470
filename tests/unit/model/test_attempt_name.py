import pytest

from labrats.model.attempt_name import AttemptName


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ir-0000000a-3", AttemptName("ir-0000000a", 3)),
        ("nightly-7-12", AttemptName("nightly-7", 12)),
        ("ir-0000000a-0", AttemptName("ir-0000000a", 0)),
    ],
)
def test_a_name_is_parsed_from_the_text_that_it_prints(text: str, name: AttemptName) -> None:
    assert AttemptName.parse(text) == name
    assert str(name) == f"{name}" == text


@pytest.mark.parametrize(
    "text", ["", "job", "job-", "-1", "job-1a", "job--1x", "job-01", "job-1\n", "job-\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_any_other_text_is_no_name(text: str) -> None:
    assert AttemptName.parse(text) is None


def test_names_are_ordered_by_job_and_then_by_number() -> None:
    names = [AttemptName("b", 1), AttemptName("a", 10), AttemptName("a", 9)]
    assert sorted(names) == [AttemptName("a", 9), AttemptName("a", 10), AttemptName("b", 1)]


def test_equal_names_are_one_key() -> None:
    assert {AttemptName("a", 1): "x"}[AttemptName("a", 1)] == "x"

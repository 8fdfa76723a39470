"""Tests of shortening results and paging files."""

from hypothesis import given
from hypothesis import strategies as st

from labrats.executor.providers.react.files import page_of
from labrats.executor.providers.react.observations import shown_characters, without_middle


@given(text=st.text(min_size=1), data=st.data())
def test_shortened_text_has_its_head_and_tail(text: str, data: st.DataObject) -> None:
    characters = data.draw(st.integers(0, len(text) - 1))
    shown = without_middle(text, characters, "NOTE")

    head, _, rest = shown.partition(f"\n[… {len(text) - characters} characters omitted; NOTE …]\n")
    assert text.startswith(head)
    assert text.endswith(rest)
    assert len(head) + len(rest) == characters


@given(lines=st.lists(st.text(alphabet="abc ", max_size=30), min_size=1, max_size=40), characters=st.integers(1, 200))
def test_pages_contain_every_line_once(lines: list[str], characters: int) -> None:
    lines = [line or "-" for line in lines]
    read: list[str] = []
    while len(read) < len(lines):
        page = page_of(lines, len(read) + 1, 2000, characters).split("\n")
        shown = [line for line in page if not line.startswith("[lines")]
        assert shown
        assert sum(len(line) + 1 for line in shown[1:]) <= characters
        read += shown
    assert [line[:1] for line in read] == [line[:1] for line in lines]


def test_page_notes_the_missing_lines() -> None:
    assert page_of(["a", "b", "c"], 1, 2, 100) == "a\nb\n[lines 1 to 2 of 3; continue with offset 3]"
    assert page_of(["a", "b", "c"], 3, 2, 100) == "c\n[lines 3 to 3 of 3]"
    assert page_of(["a"], 2, 1, 100) == "The file has only 1 lines."
    assert page_of([""], 1, 1, 100) == "The file is empty."
    assert page_of(["x" * 50], 1, 1, 10) == "x" * 10 + " [… the line has 50 characters]"


def test_larger_window_shows_more_within_bounds() -> None:
    assert shown_characters(512) == 800
    assert shown_characters(8192) == 3072
    assert shown_characters(1_000_000) == 16_000

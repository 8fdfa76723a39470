"""YAML as kubectl reads it, whatever is in it."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from labrats.cli.exits import CommandError
from labrats.cli.yaml_files import MAX_BYTES, as_yaml, parse_documents, read_documents

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def values(text: str) -> list[Any]:
    return [document.value for document in parse_documents("a.yaml", text.encode())]


def test_each_document_says_where_it_stands() -> None:
    documents = list(parse_documents("a.yaml", b"# first\nkind: A\n---\n---\n# nothing\n---\nkind: B\n"))

    assert [(each.place, each.value) for each in documents] == [
        ("a.yaml, line 2", {"kind": "A"}),
        ("a.yaml, line 7", {"kind": "B"}),
    ]


def test_json_is_yaml() -> None:
    assert values('{"a": [1, 2.5, "x", null, true]}') == [{"a": [1, 2.5, "x", None, True]}]


def test_what_looks_like_a_date_is_a_text() -> None:
    assert values("a: 2030-01-01\nb: 2030-01-01T12:00:00Z") == [{"a": "2030-01-01", "b": "2030-01-01T12:00:00Z"}]


def test_an_alias_repeats_what_it_stands_for() -> None:
    assert values("a: &x {b: 1}\nc: *x") == [{"a": {"b": 1}, "c": {"b": 1}}]


def test_a_key_that_stands_twice_is_found_on_its_line() -> None:
    with pytest.raises(CommandError, match=r"^a.yaml, line 3: the key 'a' stands twice$"):
        values("a: 1\nb: 2\na: 3")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "a.yaml, line 1: "),
        ("a: 1\na: 2", "the key 'a' stands twice"),
        ("a: {b: 1, c: 2, b: 3}", "the key 'b' stands twice"),
        ("1: one", "the key 1 must be a text"),
        ("a: .nan", "is no number that JSON has"),
        ("a: !!binary aGVsbG8=", "bytes"),
        ("a: !!set {x, y}", "set"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: *nowhere", "undefined alias"),
        ("a: &a [*a]", "values, those that aliases repeat included"),
        ("a: \x07", "is not YAML"),
        (LAUGHS, "values, those that aliases repeat included"),
        ("[" * 5000, "nested too deeply"),
        ("? {a: 1}\n: 2", "unhashable key"),
    ],
    ids=lambda text: text[:24],
)
def test_what_kubectl_would_not_take_is_refused_with_the_place(text: str, words: str) -> None:
    with pytest.raises(CommandError) as refused:
        values(text)
    assert str(refused.value).startswith("a.yaml")
    assert words in str(refused.value)


def test_a_file_that_is_no_text_or_too_large_is_refused() -> None:
    with pytest.raises(CommandError, match="is not YAML"):
        list(parse_documents("a.yaml", b"\xff\xfe\xff"))
    with pytest.raises(CommandError, match="is larger than 8 MiB"):
        list(parse_documents("a.yaml", b"#" * (MAX_BYTES + 1)))


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "README.md"):
        (tmp_path / name).write_text(f'{{"name": "{name}"}}')

    assert [each.value["name"] for each in read_documents(str(tmp_path))] == ["a.yaml", "b.yml", "c.json"]


def test_a_folder_or_file_with_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no file in it ends in"):
        list(read_documents(str(tmp_path)))
    with pytest.raises(CommandError, match="No such file"):
        list(read_documents(str(tmp_path / "missing.yaml")))


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"kind: A")))

    assert [(each.place, each.value) for each in read_documents("-")] == [("standard input, line 1", {"kind": "A"})]


def test_texts_of_several_lines_are_written_as_such() -> None:
    assert as_yaml({"content": "one\ntwo\n", "again": [{"x": 1}] * 2}) == (
        "content: |\n  one\n  two\nagain:\n- x: 1\n- x: 1\n"
    )


@given(st.dictionaries(st.text(), JSON))
def test_what_is_written_is_read_as_it_was(value: dict[str, Any]) -> None:
    try:
        text = as_yaml(value).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: no JSON holds it
        return
    assert [each.value for each in parse_documents("a.yaml", text)] == [value]
    assert list(yaml.safe_load_all(text)) == [value]

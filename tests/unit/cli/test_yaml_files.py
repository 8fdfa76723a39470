"""Reading and writing of strict YAML."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from labrats.cli.errors import CommandError
from labrats.cli.yaml_files import MAX_BYTES, as_yaml, parse_documents, read_documents

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def values(text: str) -> list[Any]:
    return [document.value for document in parse_documents("a.yaml", text.encode())]


def test_document_has_its_file_and_line() -> None:
    documents = list(parse_documents("a.yaml", b"# first\nkind: A\n---\n---\n# nothing\n---\nkind: B\n"))

    assert [(each.place, each.value) for each in documents] == [
        ("a.yaml, line 2", {"kind": "A"}),
        ("a.yaml, line 7", {"kind": "B"}),
    ]


def test_json_is_yaml() -> None:
    assert values('{"a": [1, 2.5, "x", null, true]}') == [{"a": [1, 2.5, "x", None, True]}]


def test_date_is_read_as_text() -> None:
    assert values("a: 2030-01-01\nb: 2030-01-01T12:00:00Z") == [{"a": "2030-01-01", "b": "2030-01-01T12:00:00Z"}]


def test_alias_repeats_its_value() -> None:
    assert values("a: &x {b: 1}\nc: *x") == [{"a": {"b": 1}, "c": {"b": 1}}]


def test_duplicate_key_is_reported_with_its_line() -> None:
    with pytest.raises(CommandError, match=r"^a.yaml, line 3: duplicate key 'a'$"):
        values("a: 1\nb: 2\na: 3")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "a.yaml, line 1: "),
        ("a: 1\na: 2", "duplicate key 'a'"),
        ("a: {b: 1, c: 2, b: 3}", "duplicate key 'b'"),
        ("1: one", "the key 1 must be a string"),
        ("a: .nan", "is not a JSON number"),
        ("a: !!binary aGVsbG8=", "bytes"),
        ("a: !!set {x, y}", "set"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: *nowhere", "undefined alias"),
        ("a: &a [*a]", "values, counting those that aliases repeat"),
        ("a: \x07", "is not YAML"),
        (LAUGHS, "values, counting those that aliases repeat"),
        ("[" * 5000, "nested too deeply"),
        ("? {a: 1}\n: 2", "unhashable key"),
    ],
    ids=lambda text: text[:24],
)
def test_invalid_yaml_is_refused_with_its_file(text: str, words: str) -> None:
    with pytest.raises(CommandError) as refused:
        values(text)
    assert str(refused.value).startswith("a.yaml")
    assert words in str(refused.value)


def test_file_that_is_not_text_or_too_large_is_refused() -> None:
    with pytest.raises(CommandError, match="is not YAML"):
        list(parse_documents("a.yaml", b"\xff\xfe\xff"))
    with pytest.raises(CommandError, match="is larger than 8 MiB"):
        list(parse_documents("a.yaml", b"#" * (MAX_BYTES + 1)))


def test_folder_yields_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "README.md"):
        (tmp_path / name).write_text(f'{{"name": "{name}"}}')

    assert [each.value["name"] for each in read_documents(str(tmp_path))] == ["a.yaml", "b.yml", "c.json"]


def test_empty_folder_and_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="has no file that ends in"):
        list(read_documents(str(tmp_path)))
    with pytest.raises(CommandError, match="No such file"):
        list(read_documents(str(tmp_path / "missing.yaml")))


def test_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"kind: A")))

    assert [(each.place, each.value) for each in read_documents("-")] == [("standard input, line 1", {"kind": "A"})]


def test_text_with_several_lines_is_written_as_a_block() -> None:
    assert as_yaml({"content": "one\ntwo\n", "again": [{"x": 1}] * 2}) == (
        "content: |\n  one\n  two\nagain:\n- x: 1\n- x: 1\n"
    )


@given(st.dictionaries(st.text(), JSON))
def test_written_yaml_reads_back_unchanged(value: dict[str, Any]) -> None:
    try:
        text = as_yaml(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON cannot encode
        return
    assert [each.value for each in parse_documents("a.yaml", text)] == [value]
    assert list(yaml.safe_load_all(text)) == [value]

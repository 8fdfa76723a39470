"""The number of values in a JSON body is limited before the body is parsed."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.api.http.errors import ApiError
from labrats.api.http.json_body import has_more_values, parse_json

TEXTS = st.text(alphabet='ab,[]{}:"\\ é', max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(TEXTS, children, max_size=5),
    max_leaves=30,
)


def count(value: Any) -> int:
    """Return the number of values in the lists and objects of `value`."""
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return len(children) + sum(map(count, children))


@given(value=VALUES, indent=st.sampled_from([None, 1]))
def test_the_count_of_values_is_exact(value: Any, indent: int | None) -> None:
    body, values = json.dumps(value, indent=indent, ensure_ascii=False).encode(), count(value)
    assert not has_more_values(body, values)
    assert values == 0 or has_more_values(body, values - 1)


HOSTILE = {
    "empty lists": b"[" + b"[]," * 1_000_000 + b"[]]",
    "empty objects": b"[" + b"{}," * 1_000_000 + b"{}]",
    "short strings": b"[" + b'"",' * 1_000_000 + b'""]',
    "strings without separators": b'""' * 1_000_000 + b"," * 60_000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_body_with_too_many_values_is_refused_before_parsing(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="more than 50000 values"):
            parse_json(body, 50_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_an_unterminated_string_is_scanned_once() -> None:
    body = b"[" * 50_001 + b'"' + b'\\"' * 2_000_000  # quadratic if each quote was tried as the start of a string
    assert has_more_values(body, 50_000)
    assert not has_more_values(body, 60_000)

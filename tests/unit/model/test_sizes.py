"""Sizes of memory as texts."""

import pytest

from labrats.model.sizes import read_size


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("512Mi", 2**29), (" 4Gi ", 2**32), ("1.5G", 1_500_000_000), ("1k", 1000)]
)
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "4 GiB", "4GB", "-1", "much"])
def test_another_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size above 0, such as 4Gi or 512Mi"):
        read_size(text)

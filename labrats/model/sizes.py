"""Sizes of memory as texts, such as `4Gi`, as Kubernetes writes them."""

import re
from typing import Final

_DECIMAL: Final = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_UNITS: Final = {"": 1} | _DECIMAL | _BINARY
_SIZE: Final = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[KMGT]i|[kMGT])?")


def read_size(text: str) -> int:
    """Read a size in bytes. Raises ValueError."""
    parts = _SIZE.fullmatch(text.strip())
    size = round(float(parts["number"]) * _UNITS[parts["unit"] or ""]) if parts else 0
    if size <= 0:
        raise ValueError(f"must be a size above 0, such as 4Gi or 512Mi, instead of {text!r}")
    return size

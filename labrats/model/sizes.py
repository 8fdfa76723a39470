"""Sizes of memory and disks as texts: `4Gi`, as Kubernetes writes them in settings, and `4 GiB` in messages."""

import re
from typing import Final

_DECIMAL: Final = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_UNITS: Final = {"": 1} | _DECIMAL | _BINARY
_SHOWN_UNITS: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_KEPT_FREE_BYTES: Final = 2**30
_KEPT_FREE_SHARE: Final = 0.05
"""Free space to keep by default, as bytes and as a share of the volume: the smaller one counts."""

_SIZE: Final = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[KMGT]i|[kMGT])?")


def read_size(text: str) -> int:
    """Read a size in bytes. Raises ValueError."""
    parts = _SIZE.fullmatch(text.strip())
    size = round(float(parts["number"]) * _UNITS[parts["unit"] or ""]) if parts else 0
    if size <= 0:
        raise ValueError(f"must be a size above 0, such as 4Gi or 512Mi, instead of {text!r}")
    return size


def shown_size(size: int) -> str:
    """Return a size in bytes as people read it, in the largest fitting unit."""
    unit, divisor = next(((unit, divisor) for unit, divisor in _SHOWN_UNITS if size >= divisor), ("bytes", 1))
    return f"{size / divisor:.3g} {unit}"


def default_kept_free(total: int) -> int:
    """Return how much of a volume is kept free unless an operator says otherwise. total: its size, in bytes."""
    return min(_KEPT_FREE_BYTES, round(total * _KEPT_FREE_SHARE))

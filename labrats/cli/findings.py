"""The results of the checks of `labrats doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of one check. result: ok, missing or fails. detail: the version, or what to do."""

    check: str
    result: str
    detail: str

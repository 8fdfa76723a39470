"""Names of container images, as the registries' specification defines them: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`."""

import re
from collections.abc import Collection
from typing import Final

_HOST: Final = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART: Final = r"[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*"
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_NAME: Final = re.compile(f"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::{_TAG})?(?:@{_DIGEST})?")
_LONGEST: Final = 512


def problem_of_image(name: str, allowed: Collection[str] = ()) -> str | None:
    """Return the problem of a job's image name; None if it is valid.

    allowed: the permitted images; empty permits any.
    """
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        return "must be the name of an image, such as registry.example.com/team/executor:1.2"
    if allowed and name not in allowed:
        return f"must be one of the images that this engine allows: {', '.join(sorted(allowed))}"
    return None

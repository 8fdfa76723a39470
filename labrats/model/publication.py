"""The publication: texts that an agent proposes to publish with its work, as JSON in a file of its workspace.

The agent writes the file, and nothing in it is trusted. The engine decides what of it is published.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from labrats.model.errors import Invalid, Problem
from labrats.model.json_problems import NO_SUCH_FIELD, problem_of

PUBLICATION_FOLDER: Final = ".labrats"
"""The folder, in the workspace, of files for the engine. It is no part of the agent's changes."""

PUBLICATION_PATH: Final = f"{PUBLICATION_FOLDER}/publish.json"
"""The path in the workspace at which an agent writes its publication."""

PUBLICATION_BYTES: Final = 256 * 1024
"""Largest file that is read."""

STORED_PUBLICATION_BYTES: Final = 4 * PUBLICATION_BYTES
"""Largest one that is stored, as a mark may be longer than the secret. Parsed, it may take twenty times the memory."""

TEXT_BYTES: Final = 60 * 1024
FINDING_BYTES: Final = 8 * 1024
"""Limits on a body or comment, and on a text of a finding, in UTF-8. GitHub accepts comments of 64 KiB."""

_Path = Annotated[str, Meta(min_length=1, max_length=1024)]
_Title = Annotated[str, Meta(max_length=256)]
_Label = Annotated[str, Meta(min_length=1, max_length=50)]
_Line = Annotated[int, Meta(ge=1, le=10**9)]


class _Closed(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """A record that refuses unknown fields, so that a typo is noticed."""


class Finding(_Closed, frozen=True):
    """A remark of a review about a file.

    path:       of the file, relative to the repository's root.
    line:       the last line that the remark is about; None for the whole file.
    start_line: the first line of a remark about several lines.
    side:       whether the lines are numbered as in the new version of the file (RIGHT) or in the old one (LEFT).
    suggestion: text in place of these lines.
    """

    path: _Path
    line: _Line | None = None
    start_line: _Line | None = None
    side: Literal["LEFT", "RIGHT"] = "RIGHT"
    severity: Literal["info", "warning", "error"] = "warning"
    title: _Title = ""
    body: str = ""
    suggestion: str | None = None


class Publication(_Closed, frozen=True):
    """The proposed texts: title and body of a pull request, a comment, labels, and the findings of a review."""

    title: _Title | None = None
    body: str | None = None
    comment: str | None = None
    labels: Annotated[tuple[_Label, ...], Meta(max_length=20)] = ()
    findings: Annotated[tuple[Finding, ...], Meta(max_length=100)] = ()


class _Rejected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content that is stored in place of an invalid publication. rejected: the reason."""

    rejected: str


class Rejected(Exception):
    """The agent has written a publication that is invalid. Its text says what is wrong with it."""


_DECODER: Final = msgspec.json.Decoder(Publication)
_REJECTED_DECODER: Final = msgspec.json.Decoder(_Rejected)
_CHOICES: Final = {"side": "must be LEFT or RIGHT", "severity": "must be info, warning or error"}


def parse_publication(raw: bytes) -> Publication:
    """Parse a publication. Raises Invalid with each invalid field, or only with the first one of a wrong type."""
    try:
        publication = _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        raise Invalid(_advice(problem_of(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(Problem("publication", f"must be a JSON object in UTF-8: {error}")) from error
    if problems := list(_problems_of(publication)):
        raise Invalid(*problems)
    return publication


def rejected_publication(reason: str) -> bytes:
    """Return the content that is stored in place of an invalid publication."""
    return msgspec.json.encode(_Rejected(reason))


def stored_publication(raw: bytes) -> Publication:
    """Parse a stored publication. Raises Rejected if it stands for an invalid one, and Invalid."""
    try:
        rejected = _REJECTED_DECODER.decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
        return parse_publication(raw)
    raise Rejected(rejected.rejected)


def _advice(problem: Problem) -> Problem:
    """Add what would be right to a problem that does not say it."""
    holder, _, name = problem.field.rpartition(".")
    if problem.message == NO_SUCH_FIELD:
        known = Finding if holder else Publication
        return Problem(problem.field, f"{NO_SUCH_FIELD}; the fields are {', '.join(_names_of(known))}")
    if problem.message.startswith("invalid enum value"):
        return Problem(problem.field, _CHOICES[name])
    return Problem(problem.field or "publication", problem.message)


def _names_of(record: type[_Closed]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(record)]


def _problems_of(publication: Publication) -> Iterator[Problem]:
    for name in ("body", "comment"):
        yield from _too_long(name, getattr(publication, name), TEXT_BYTES)
    for number, finding in enumerate(publication.findings):
        field = f"findings[{number}]"
        for name in ("body", "suggestion"):
            yield from _too_long(f"{field}.{name}", getattr(finding, name), FINDING_BYTES)
        path = PurePosixPath(finding.path)
        if path.is_absolute() or ".." in path.parts:
            yield Problem(f"{field}.path", "must be a path within the repository, such as src/main.py")
        if finding.start_line and finding.line is None:
            yield Problem(f"{field}.line", "is required with startLine")
        elif finding.start_line and finding.line and finding.start_line > finding.line:
            yield Problem(f"{field}.startLine", "must not be greater than line")


def _too_long(field: str, text: str | None, most_bytes: int) -> Iterator[Problem]:
    if text and len(text.encode()) > most_bytes:
        yield Problem(field, f"must have at most {most_bytes // 1024} KiB in UTF-8")

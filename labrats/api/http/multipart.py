"""Streaming of the one file in a `multipart/form-data` body.

Starlette's form parser would write the whole file to a temporary folder, possibly in memory, before it can be refused.
"""

from collections.abc import AsyncIterator
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from labrats.api.http.errors import ApiError
from labrats.model.errors import Invalid, Problem

FIELD: Final = "file"
_MAX_BOUNDARY_LENGTH: Final = 70
"""The limit of RFC 2046."""

FORM: Final = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {FIELD: {"type": "string", "contentMediaType": "application/octet-stream"}},
                "required": [FIELD],
                "additionalProperties": False,
            },
            "example": {FIELD: "the content of the file"},
        }
    },
}
"""The OpenAPI description of the body."""


class FilePart:
    """The one file of a request. `name` is the sender's name for it, set before `content` yields its first chunk."""

    def __init__(self, request: Request) -> None:
        """Prepare the parser. Raises ApiError: 415 unless the body is a form, 400 if its boundary is too long."""
        self.name = ""
        self._request = request
        self._parser = MultipartParser(
            _boundary(request),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_to_header_name,
                "on_header_value": self._add_to_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_end": self._end,
            },
        )
        self._parts, self._ended = 0, False
        self._header_name, self._header_value, self._disposition = b"", b"", b""
        self._data: list[bytes] = []

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the file in chunks. Raises ApiError 400 for a broken form, Invalid unless it has exactly one file."""
        try:
            async for chunk in self._request.stream():
                self._parser.write(chunk)
                for data in self._data:
                    yield data
                self._data.clear()
            self._parser.finalize()
        except FormParserError as error:
            raise ApiError(400, "malformed", f"the body is not a multipart form: {error}") from None
        if not self._ended:
            raise ApiError(400, "malformed", "the body is not a multipart form: it ends too early")
        if self._parts == 0:
            raise Invalid(Problem(FIELD, "is required"))

    def _begin(self) -> None:
        self._parts += 1
        self._disposition = b""

    def _add_to_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_to_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise Invalid(Problem(field[:200] or "body", f"there is no such field; send the file as {FIELD!r}"))
        if self._parts > 1:
            raise Invalid(Problem(FIELD, "must be one file"))
        if b"filename" not in options:
            raise Invalid(Problem(FIELD, "must be a file, with a file name"))
        try:
            self.name = options[b"filename"].decode("utf-8")
        except UnicodeDecodeError:
            raise Invalid(Problem(FIELD, "its file name must be UTF-8")) from None

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


def _boundary(request: Request) -> bytes:
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != b"multipart/form-data" or not options.get(b"boundary"):
        message = "the body must be a form with one file, with Content-Type: multipart/form-data; boundary=…"
        raise ApiError(415, "unsupported_media_type", message)
    if len(options[b"boundary"]) > _MAX_BOUNDARY_LENGTH:
        message = f"the boundary of the form must have at most {_MAX_BOUNDARY_LENGTH} characters"
        raise ApiError(400, "malformed", message)
    return options[b"boundary"]

"""The files of the dashboard, served before the API.

Every file is known before the first request for it, so no path is built from a URL.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from labrats.api.http.shared_body import send_shared

FOLDER: Final = Path(__file__).parents[2] / "dashboard"
"""The folder of the build, inside the package."""

BUILDING_MARKER: Final = ".building"
"""The file in that folder that exists while `make run` builds the dashboard."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)

_INDEX: Final = "index.html"
_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
_API: Final = re.compile(r"/(api|webhooks|health|ready|metrics)(/|$)")
_HASHED: Final = re.compile(r"/assets/[^/]+-[\w-]{8}\.\w+")
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
_ENCODINGS: Final = (("br", ".br"), ("gzip", ".gz"))
"""Encodings with the suffixes of their files, the smallest first."""

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>Labrats</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.6 system-ui, sans-serif; max-width: 34rem; margin: 20vh auto 0; padding: 0 1.5rem; }}
h1 {{ font-size: 1.25rem; margin: 0 0 .5rem; }}
code {{ font: 13px/1.4 ui-monospace, monospace; }}
</style>
<h1>{title}</h1>
<p>{text}</p>
<p>The engine is running. Its API reference is at <a href="/api/docs">/api/docs</a>.</p>
</html>
"""
_BEING_BUILT: Final = _PAGE.format(
    refresh='<meta http-equiv="refresh" content="2">\n',
    title="The dashboard is being built",
    text="The first build takes about half a minute. This page reloads by itself.",
).encode()
_NOT_BUILT: Final = _PAGE.format(
    refresh='<meta http-equiv="refresh" content="10">\n',
    title="The dashboard is not built",
    text="This installation has no dashboard. In a clone of the repository, <code>make dashboard</code> builds it. "
    "Packages and images of a release contain it.",
).encode()


@dataclass(frozen=True)
class _Variant:
    """A file in one encoding, in memory. etag: differs between the encodings of a file."""

    content: bytes
    etag: str


@dataclass(frozen=True)
class _File:
    """A file of the build. variants: by encoding; the plain file has an empty encoding."""

    content_type: str
    cache_control: str
    variants: Mapping[str, _Variant]

    def best_for(self, accepted: str) -> tuple[str, _Variant]:
        """Return the smallest variant that an `Accept-Encoding` header allows, with its encoding."""
        allowed = set(_accepted_encodings(accepted))
        for encoding, _ in _ENCODINGS:
            if encoding in allowed and encoding in self.variants:
                return encoding, self.variants[encoding]
        return "", self.variants[""]


class Dashboard:
    """ASGI application that serves the dashboard, and passes requests for the API on to `app`."""

    def __init__(self, app: ASGIApp, folder: Path = FOLDER, forge_url: str = "") -> None:
        """forge_url: of the forge's pages, to which the dashboard may send a form."""
        self._app, self._folder = app, folder
        self._policy = POLICY.replace("form-action 'self'", f"form-action 'self' {forge_url}".rstrip())
        self._files: Mapping[str, _File] = {}
        self._version: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or _API.match(scope["path"]):
            await self._app(scope, receive, send)
            return
        self._read_new_build()
        if scope["path"] != "/" and (file := self._files.get(scope["path"])):
            scope["route"] = _ROUTE
            await _send_file(file, scope, send, self._policy)
        elif scope["path"] == "/" or "text/html" in _header(scope, b"accept"):
            scope["route"] = _ROUTE
            if index := self._files.get(f"/{_INDEX}"):
                await _send_file(index, scope, send, self._policy)
            else:
                is_building = (self._folder / BUILDING_MARKER).exists()
                await _send_page(_BEING_BUILT if is_building else _NOT_BUILT, send)
        else:
            await self._app(scope, receive, send)

    def _read_new_build(self) -> None:
        """List the files if the index has changed. A build replaces the index last."""
        try:
            version: int | None = (self._folder / _INDEX).stat().st_mtime_ns
        except OSError:
            version = None
        if version != self._version:
            self._files = dict(_files_in(self._folder)) if version else {}
            self._version = version


@dataclass(frozen=True)
class _Route:
    """The label of the dashboard's files in metrics."""

    path: str


_ROUTE: Final = _Route("dashboard")


def _files_in(folder: Path) -> Iterator[tuple[str, _File]]:
    """Yield the URL path of each file, and the file."""
    for path in sorted(folder.rglob("*")):
        content_type = _TYPES.get(path.suffix)
        if content_type is None or not path.is_file():
            continue
        url = f"/{path.relative_to(folder).as_posix()}"
        variants = {"": _variant(path, "")}
        for encoding, suffix in _ENCODINGS:
            compressed = path.with_name(path.name + suffix)
            if compressed.is_file():
                variants[encoding] = _variant(compressed, encoding)
        yield url, _File(content_type, _cache_control(url), variants)


def _variant(path: Path, encoding: str) -> _Variant:
    content = path.read_bytes()
    digest = sha256(encoding.encode() + b"\0" + content).hexdigest()
    return _Variant(content, f'"{digest[:20]}"')


def _cache_control(url: str) -> str:
    if url == f"/{_INDEX}":
        return "no-store"
    return "public, max-age=31536000, immutable" if _HASHED.fullmatch(url) else "no-cache"


async def _send_file(file: _File, scope: Scope, send: Send, policy: str) -> None:
    encoding, variant = file.best_for(_header(scope, b"accept-encoding"))
    headers = [
        (b"cache-control", file.cache_control.encode()),
        (b"etag", variant.etag.encode()),
        (b"vary", b"Accept-Encoding"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if _is_current(_header(scope, b"if-none-match"), variant.etag):
        await _respond(304, headers, b"", send)
        return
    headers += [(b"content-type", file.content_type.encode()), (b"content-length", str(len(variant.content)).encode())]
    if encoding:
        headers.append((b"content-encoding", encoding.encode()))
    if file.content_type.startswith("text/html"):
        headers += _page_headers(policy)
    await _respond(200, headers, b"" if scope["method"] == "HEAD" else variant.content, send)


async def _send_page(page: bytes, send: Send) -> None:
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(page)).encode()),
        (b"cache-control", b"no-store"),
        *_page_headers(_PAGE_POLICY),
    ]
    await _respond(200, headers, page, send)


def _page_headers(policy: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-security-policy", policy.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
    ]


async def _respond(status: int, headers: list[tuple[bytes, bytes]], body: bytes, send: Send) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send_shared(body, send)


def _is_current(if_none_match: str, etag: str) -> bool:
    """Return whether an `If-None-Match` header names the ETag, or any."""
    named = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return etag in named or "*" in named


def _accepted_encodings(header: str) -> Iterator[str]:
    """Yield the encodings of an `Accept-Encoding` header, without those with weight zero."""
    for part in header.split(","):
        name, _, parameters = part.partition(";")
        if not re.fullmatch(r"\s*q=0(\.0*)?\s*", parameters):
            yield name.strip().lower()


def _header(scope: Scope, name: bytes) -> str:
    """Return the values of a header, joined by commas."""
    return ",".join(value.decode("latin-1") for each, value in scope["headers"] if each == name)

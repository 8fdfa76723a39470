"""Read a cookie of a request.

Starlette reads all cookies with Python's `http.cookies`, which takes seconds for one long value in quotes
(CVE-2024-7592). Everybody can send one, and would keep all other requests waiting.
"""

from starlette.requests import HTTPConnection


def cookie_of(request: HTTPConnection, name: str) -> str | None:
    """Return the value of a cookie as it was sent; None without it. The engine's own cookies need no quotes."""
    found = None
    for header in request.headers.getlist("cookie"):
        for part in header.split(";"):
            key, _, value = part.partition("=")
            if key.strip() == name:
                found = value.strip()
    return found

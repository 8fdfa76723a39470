"""Host names that requests may use, as a defence against DNS rebinding.

A web page can point its own name at loopback. The browser then treats the engine as a part of that page's site.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from labrats.settings import EngineSettings

CACHED_NAMES: Final = 1_024
"""Results that are cached, since clients send the same few names."""


@dataclass(frozen=True)
class AllowedHosts:
    """The allowed host names: those of loopback, and `names`. Any name if the engine listens beyond loopback."""

    names: frozenset[str]
    is_restricted: bool

    @classmethod
    def of(cls, settings: EngineSettings) -> "AllowedHosts":
        public = urlsplit(settings.public_url or "").hostname
        names = frozenset({*settings.allowed_hosts, *([public] if public else [])})
        return cls(names, settings.listens_on_loopback)

    def include(self, host: str) -> bool:
        """Return whether requests with this `Host` header, in lower case, are allowed."""
        if not self.is_restricted:
            return True
        name = _name_in(host)
        return name is not None and (name in self.names or is_loopback(name))


@lru_cache(CACHED_NAMES)
def _name_in(host: str) -> str | None:
    """Return the name in a `Host` header, without the port; None if the header is not valid."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname or "", parts.port  # `port` raises ValueError unless it is a number
    except ValueError:
        return None
    return None if "@" in host else name


@lru_cache(CACHED_NAMES)
def is_loopback(name: str) -> bool:
    """Return whether a name or an address belongs to loopback."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False

"""Host names that requests may use, as a defence against DNS rebinding.

A web page can point its own name at loopback. The browser then treats the engine as a part of that page's site.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from labrats.settings import EngineSettings


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
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port  # `port` raises ValueError unless it is a number
        except ValueError:
            return False
        if "@" in host:
            return False
        return name in self.names or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Return whether a name or an address belongs to loopback."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False

"""The names by which an engine may be called: another one is that of a page that wants to pass for the engine's.

A page can have its own name lead to loopback (DNS rebinding), and the browser then takes the engine for a part of it.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from labrats.settings import EngineSettings


@dataclass(frozen=True)
class AllowedHosts:
    """Loopback's names and `names`; or any name, where the engine listens beyond loopback."""

    names: frozenset[str]
    are_judged: bool

    @classmethod
    def of(cls, settings: EngineSettings) -> "AllowedHosts":
        public = urlsplit(settings.public_url or "").hostname
        names = frozenset({*settings.allowed_hosts, *([public] if public else [])})
        return cls(names, settings.listens_on_loopback)

    def include(self, host: str) -> bool:
        """Return whether a request with this `Host` header, in lower case, is for the engine."""
        if not self.are_judged:
            return True
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port  # which raises, where it is no number
        except ValueError:
            return False
        if "@" in host:
            return False
        return name in self.names or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Return whether a name or an address is one of loopback."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False

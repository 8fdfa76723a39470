"""The network that an agent and its tools may reach: everything, public hosts, nothing, or the hosts of a list."""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Final

from labrats.model.record import Record

OPEN: Final = "open"
PUBLIC: Final = "public"
"""All hosts with public addresses, at any port, through a proxy; not the machine itself and no private network."""

NONE: Final = "none"
WORDS: Final = (OPEN, PUBLIC, NONE)
NETWORK_FORMS: Final = f"must be '{OPEN}', '{PUBLIC}', '{NONE}' or {{\"allow\": [hosts]}}"
"""The message for a rule in another form."""

MOST_HOSTS: Final = 100
MOST_REFUSED_HOSTS: Final = 50
"""Refused hosts that a job lists. Further ones are neither listed nor counted."""

PRESETS: Final[Mapping[str, tuple[str, ...]]] = {
    "npm": ("registry.npmjs.org", "registry.yarnpkg.com"),
    "pypi": ("pypi.org", "files.pythonhosted.org"),
    "go": ("proxy.golang.org", "sum.golang.org"),
    "crates": ("crates.io", "index.crates.io", "static.crates.io"),
    "debian": ("deb.debian.org", "security.debian.org"),
    "github": ("github.com", "api.github.com", "codeload.github.com", "*.githubusercontent.com"),
}
"""Names that stand for several hosts in `allow`."""

DEFAULT_PORTS: Final = (80, 443)
"""Ports of an allowed host that names none."""

_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_ENTRY: Final = re.compile(rf"(?P<host>(\*\.)?{_LABEL}(\.{_LABEL})*)(:(?P<port>[0-9]{{1,5}}))?")
_DIGITS: Final = re.compile(r"[0-9.]+")
_ADDRESS: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""A host that resolvers take for an IPv4 address: its last part is a number."""
_OWN_MACHINE: Final = "localhost"


class AllowedHosts(Record):
    """Hosts that may be reached. allow: names, `*.` names, names with a port, or presets."""

    allow: tuple[str, ...]


Network = str | AllowedHosts


def problem_of_network(network: Network) -> str | None:
    """Return the problem of a rule that a person has written; None if it is valid."""
    if problem := problem_of_stored_network(network):
        return problem
    return None if isinstance(network, str) else next(filter(None, map(_problem_of_name, network.allow)), None)


def problem_of_stored_network(network: Network) -> str | None:
    """Return the problem of a rule that an earlier version, with fewer checks, may have stored; None if it is valid."""
    if isinstance(network, str):
        if network in WORDS:
            return None
        return NETWORK_FORMS
    if len(network.allow) > MOST_HOSTS:
        return f"must allow at most {MOST_HOSTS} hosts"
    return next(filter(None, map(_problem_of_form, network.allow)), None)


def _problem_of_name(entry: str) -> str | None:
    """Return the problem of an entry in a valid form whose name is probably a mistake."""
    host, _, port = entry.lower().partition(":")
    if host in WORDS and not port:
        return f"cannot allow {entry!r} in a list: it is a rule of its own, without other entries"
    if _ADDRESS.fullmatch(host):
        return f"cannot allow {entry!r}: it is a number, which stands for an IP address; name a host"
    if host in PRESETS and entry not in PRESETS:
        return f"cannot allow {entry!r}: write the preset as `{host}`; its hosts have the ports 80 and 443"
    if port or "." in host or host == _OWN_MACHINE or entry in PRESETS:
        return None
    return (
        f"cannot allow {entry!r}: it is neither a preset ({', '.join(PRESETS)}) nor a host with a domain; "
        f"add a port (`{host}:443`) for a host of your own network"
    )


def _problem_of_form(entry: str) -> str | None:
    if entry in PRESETS:
        return None
    parts = _ENTRY.fullmatch(entry.lower())
    if parts is None or len(parts["host"]) > 253 or _DIGITS.fullmatch(parts["host"]):
        return f"cannot allow {entry[:100]!r}: {_advice_on(entry)}"
    if "." not in parts["host"].removeprefix("*.") and parts["host"].startswith("*."):
        return f"cannot allow {entry!r}: a whole top-level domain is too much"
    if parts["port"] and not 0 < int(parts["port"]) < 65536:
        return f"cannot allow {entry!r}: the port must be 1 to 65535"
    return None


def _advice_on(entry: str) -> str:
    """Return the mistake in an entry that is no name of a host, and what to write."""
    if "://" in entry:
        return "it is a URL; name only its host"
    if _is_address(entry):
        return "it is an IP address, and rules are about names; give the address a name"
    if entry.isprintable() and not entry.isascii():
        ascii_form = _ascii_form(entry)
        return f"write the name in its ASCII form, {f'`{ascii_form}`' if ascii_form else 'which begins with `xn--`'}"
    if _ENTRY.fullmatch(entry.lower().removesuffix(".")):
        return "write it without the dot at its end"
    return f"name a host such as `pypi.org`, `*.pypi.org` or `pypi.org:8443`, or {', '.join(PRESETS)}"


def _is_address(entry: str) -> bool:
    """Return whether the entry is an IP address in any notation, or a network, perhaps with a port."""
    if _ADDRESS.fullmatch(entry.lower().partition(":")[0]):
        return True
    host = re.sub(r"^\[(.*)\](:[0-9]+)?$|^([0-9.]+):[0-9]+$", r"\1\3", entry)
    try:
        ip_network(host, strict=False)
    except ValueError:
        return False
    return True


def _ascii_form(entry: str) -> str | None:
    """Return the entry with its labels as `xn--…`; None if the codec, which knows only IDNA 2003, changes the name."""
    try:
        encoded = entry.lower().encode("idna")
        return encoded.decode() if encoded.decode("idna") == entry.lower() else None
    except UnicodeError:
        return None


def read_network(text: str) -> Network:
    """Read a rule as in a setting or an option: one of WORDS, or names of hosts with commas. Raises ValueError."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    network: Network = text.strip() if text.strip() in WORDS else AllowedHosts(allow=words)
    if not words or (problem := problem_of_network(network)):
        raise ValueError(
            problem if words else f"must be `{OPEN}`, `{PUBLIC}`, `{NONE}`, or names of hosts with commas between them"
        )
    return network


def is_restricted(network: Network | None) -> bool:
    """Return whether the rule restricts anything."""
    return network is not None and network != OPEN


def limits_hosts(network: Network | None) -> bool:
    """Return whether the rule is about names of hosts, so that no server may reach others for the agent."""
    return is_restricted(network) and network != PUBLIC


def limits_model_server(network: Network | None, endpoint: str | None) -> bool:
    """Return whether the server of the model must not reach other hosts for the agent.

    With `public`, one that the operator has named could reach private ones. endpoint: None for the provider's own.
    """
    return limits_hosts(network) or (network == PUBLIC and endpoint is not None)


def allows(network: Network | None, host: str, port: int) -> bool:
    """Return whether the rule allows connections to a host, by its name."""
    if isinstance(network, AllowedHosts):
        return any(_matches(entry, host.lower().rstrip("."), port) for entry in _entries(network))
    return not limits_hosts(network)


def names(network: Network | None, host: str, port: int) -> bool:
    """Return whether the rule allows connections to a host by its own name, and not by a `*.` name or as any host."""
    host = host.lower().rstrip(".")
    entries = _entries(network) if isinstance(network, AllowedHosts) else ()
    return any(not entry.startswith("*.") and _matches(entry, host, port) for entry in entries)


def _entries(network: AllowedHosts) -> Iterator[str]:
    for entry in network.allow:
        yield from PRESETS.get(entry, (entry.lower(),))


def _matches(entry: str, host: str, port: int) -> bool:
    name, _, own_port = entry.partition(":")
    if port not in ((int(own_port),) if own_port else DEFAULT_PORTS):
        return False
    return host.endswith(name[1:]) and host != name[1:] if name.startswith("*.") else host == name

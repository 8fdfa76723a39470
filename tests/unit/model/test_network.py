"""Rules for the network of agents."""

import re
from pathlib import Path

import pytest

from labrats.model.network import (
    PRESETS,
    AllowedHosts,
    Network,
    allows,
    is_restricted,
    limits_hosts,
    limits_model_server,
    names,
    problem_of_network,
    problem_of_stored_network,
    read_network,
)

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "sandbox.md"
LIST = AllowedHosts(allow=("npm", "*.Example.com", "internal.test:8443"))


@pytest.mark.parametrize(
    ("network", "host", "port", "expected"),
    [
        (None, "anything.test", 22, True),
        ("open", "anything.test", 22, True),
        ("none", "registry.npmjs.org", 443, False),
        (LIST, "registry.npmjs.org", 443, True),
        (LIST, "REGISTRY.npmjs.org.", 80, True),
        (LIST, "registry.npmjs.org", 22, False),
        (LIST, "registry.npmjs.org.evil.test", 443, False),
        (LIST, "evil-registry.npmjs.org", 443, False),
        (LIST, "a.example.com", 443, True),
        (LIST, "a.b.example.com", 443, True),
        (LIST, "example.com", 443, False),
        (LIST, ".example.com", 443, False),
        (LIST, "evilexample.com", 443, False),
        (LIST, "internal.test", 8443, True),
        (LIST, "internal.test", 443, False),
    ],
)
def test_rule_allows_its_hosts_and_no_others(network: Network | None, host: str, port: int, expected: bool) -> None:
    assert allows(network, host, port) is expected


@pytest.mark.parametrize(
    ("network", "host", "port", "expected"),
    [
        (None, "anything.test", 443, False),
        ("open", "anything.test", 443, False),
        (LIST, "REGISTRY.npmjs.org.", 443, True),
        (LIST, "internal.test", 8443, True),
        (LIST, "internal.test", 443, False),
        (LIST, "a.example.com", 443, False),
    ],
)
def test_rule_names_hosts_without_a_wildcard(network: Network | None, host: str, port: int, expected: bool) -> None:
    assert names(network, host, port) is expected


def test_presets_are_those_of_the_documentation() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (`[\w.*-]+\.[\w.`, *-]+) \|$", DOCUMENTATION.read_text(), re.MULTILINE)
    assert {name: tuple(re.findall("`(.+?)`", hosts)) for name, hosts in rows} == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_allows_its_hosts_and_no_others(preset: str) -> None:
    rule = AllowedHosts(allow=(preset,))
    hosts = {host: host.replace("*", "any") for each in PRESETS.values() for host in each}
    allowed = {host for host, name in hosts.items() if allows(rule, name, 443) and allows(rule, name, 80)}
    assert allowed == set(PRESETS[preset])


def test_presets_name_valid_hosts() -> None:
    hosts = tuple(host for preset in PRESETS.values() for host in preset)
    assert problem_of_network(AllowedHosts(allow=hosts)) is None


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("https://pypi.org", "cannot allow 'https://pypi.org': it is a URL; name only its host"),
        ("10.0.0.1", "cannot allow '10.0.0.1': it is an IP address, and rules are about names"),
        ("10.0.0.1:443", "cannot allow '10.0.0.1:443': it is an IP address"),
        ("10.0.0.0/8", "cannot allow '10.0.0.0/8': it is an IP address"),
        ("[::1]", "cannot allow '[::1]': it is an IP address"),
        ("[::1]:443", "cannot allow '[::1]:443': it is an IP address"),
        ("::1", "cannot allow '::1': it is an IP address"),
        ("Bücher.example", "cannot allow 'Bücher.example': write the name in its ASCII form, `xn--bcher-kva.example`"),
        ("*.bücher.example:443", "cannot allow '*.bücher.example:443': write the name in its ASCII form, `*.xn--bche"),
        ("straße.example", "cannot allow 'straße.example': write the name in its ASCII form, which begins with `xn--`"),
        ("ü" * 300, f"cannot allow '{'ü' * 100}': write the name in its ASCII form, which begins with `xn--`"),
        ("pypi.org.", "cannot allow 'pypi.org.': write it without the dot at its end"),
        ("pypi.org/simple", "cannot allow 'pypi.org/simple': name a host"),
        ("*", "cannot allow '*': name a host"),
        ("a.*.com", "cannot allow 'a.*.com': name a host"),
        ("*.com", "cannot allow '*.com': a whole top-level domain is too much"),
        ("pypi.org:0", "cannot allow 'pypi.org:0': the port must be 1 to 65535"),
        ("pypi.org:70000", "cannot allow 'pypi.org:70000': the port must be 1 to 65535"),
        ("pypi.org\n", "cannot allow 'pypi.org\\n': name a host"),
    ],
)
def test_invalid_entry_has_a_problem(entry: str, problem: str) -> None:
    assert (problem_of_network(AllowedHosts(allow=("npm", entry))) or "").startswith(problem)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("nmp", "it is neither a preset (npm, pypi, go, crates, debian, github) nor a host with a domain; add a port "),
        ("nmp", "(`nmp:443`) for a host of your own network"),
        ("open", "cannot allow 'open' in a list: it is a rule of its own"),
        ("None", "cannot allow 'None' in a list: it is a rule of its own"),
        ("NPM", "write the preset as `npm`; its hosts have the ports 80 and 443"),
        ("npm:443", "write the preset as `npm`; its hosts have the ports 80 and 443"),
        ("0x7f000001", "it is a number, which stands for an IP address"),
        ("0x7f000001:443", "it is a number, which stands for an IP address"),
        ("0X7F.1", "it is a number, which stands for an IP address"),
        ("0177.0.0.0x1", "it is a number, which stands for an IP address"),
    ],
)
def test_probable_mistake_is_refused_where_it_is_written_and_not_in_a_stored_rule(entry: str, problem: str) -> None:
    rule = AllowedHosts(allow=("npm", entry))
    assert problem in (problem_of_network(rule) or "")
    assert problem_of_stored_network(rule) is None


@pytest.mark.parametrize("entry", ["2130706433", "2130706433:443"])
def test_decimal_number_is_refused_as_before(entry: str) -> None:
    assert "it is an IP address" in (problem_of_network(AllowedHosts(allow=(entry,))) or "")


@pytest.mark.parametrize(
    "entry",
    [
        "localhost",
        "localhost:8080",
        "registry:5000",
        "none:8080",
        "api.internal",
        "svc.team.svc.cluster.local:80",
        "x.0xyz",
    ],
)
def test_host_of_an_own_network_is_allowed(entry: str) -> None:
    assert problem_of_network(AllowedHosts(allow=("npm", entry))) is None


def test_other_word_and_too_many_hosts_have_a_problem() -> None:
    assert problem_of_network("closed") == "must be 'open', 'public', 'none' or {\"allow\": [hosts]}"
    many = AllowedHosts(allow=tuple(f"host-{number}.test" for number in range(101)))
    assert problem_of_network(many) == "must allow at most 100 hosts"


def test_text_is_read_as_a_rule() -> None:
    assert (read_network(" open "), read_network("none")) == ("open", "none")
    assert read_network("npm, *.example.com") == AllowedHosts(allow=("npm", "*.example.com"))


@pytest.mark.parametrize("text", ["", " , ", "npm,open!", "http://x", "open,npm", "none,", "nmp"])
def test_text_that_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot allow|must be"):
        read_network(text)


@pytest.mark.parametrize(
    ("network", "endpoint", "limited"),
    [
        (None, "http://127.0.0.1:8000/v1", False),
        ("open", "http://127.0.0.1:8000/v1", False),
        ("public", "http://127.0.0.1:8000/v1", True),
        ("public", None, False),
        ("none", None, True),
        (AllowedHosts(allow=("npm",)), None, True),
    ],
)
def test_server_of_the_model_is_limited_where_it_could_reach_more_than_the_agent(
    network: Network | None, endpoint: str | None, limited: bool
) -> None:
    assert limits_model_server(network, endpoint) is limited


def test_public_network_is_a_rule_that_allows_each_host_and_port() -> None:
    assert is_restricted("public")
    assert not limits_hosts("public")
    assert allows("public", "example.com", 5432)
    assert not names("public", "example.com", 443)
    assert read_network(" public ") == "public"
    assert problem_of_network(AllowedHosts(allow=("public",)))

"""The policy for addresses that users choose."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.net import address_policy
from labrats.net.address_policy import (
    LOOKUPS_AT_ONCE,
    Forbidden,
    Unresolvable,
    is_allowed,
    is_public,
    parse_networks,
    resolve_allowed,
)
from tests.support.waiting import DEADLINE_SECONDS

SPECIAL_V4 = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32 168.63.129.16/32
""".split()
SPECIAL_V6 = """
    ::/128 ::1/128 ::/96 ::ffff:0.0.0.0/104 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64
    2001::/32 2001:1::1/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28
    2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
""".split()
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 140.82.112.3
    168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255
    192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 2001:200::1 2001:4860:4860::8888 2606:4700:4700::1111
    2a00:1450:4001:81b::200e ::ffff:8.8.8.8
""".split()


@pytest.mark.parametrize("network", SPECIAL_V4 + SPECIAL_V6)
def test_no_special_network_is_public(network: str) -> None:
    addresses = ip_network(network)
    for address in (addresses[0], addresses[addresses.num_addresses // 2], addresses[-1]):
        assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_ordinary_hosts_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_address_is_as_public_as_its_mapped_form(address: IPv4Address) -> None:
    assert is_public(IPv6Address(f"::ffff:{address}")) == is_public(address)


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_no_other_form_that_embeds_an_address_is_public(address: IPv4Address) -> None:
    embedded = int(address)
    for prefix in ("::", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"):
        assert not is_public(IPv6Address(int(IPv6Address(prefix)) | embedded))
    assert not is_public(IPv6Address((0x2002 << 112) | (embedded << 80)))  # 6to4
    assert not is_public(IPv6Address((0x20010000 << 96) | (embedded ^ 0xFFFFFFFF)))  # Teredo


@pytest.mark.parametrize(
    ("address", "cidr", "allowed"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.0/30", True),
        ("10.1.2.4", "10.1.2.0/30", False),
        ("127.0.0.1", "10.0.0.0/8", False),
        ("127.0.0.1", "::/0", False),
        ("::1", "0.0.0.0/0", False),
        ("::1", "::1/128", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:127.0.0.1", "10.0.0.0/8", False),
        ("8.8.8.8", "10.0.0.0/8", True),
        ("fe80::1%eth0", "fc00::/7", False),
        ("fe80::1%eth0", "fe80::/10", True),
    ],
)
def test_networks_are_allowed_by_cidr(address: str, cidr: str, allowed: bool) -> None:
    assert is_allowed(ip_address(address), parse_networks([cidr])) is allowed
    assert is_allowed(ip_address(address), parse_networks(["192.0.2.0/24", cidr])) is allowed


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("2600:1f13:abc:d00::5", False), ("2600:1f13:abc:e00::5", True), ("198.41.0.4", False), ("198.41.1.4", True)],
)
def test_networks_are_forbidden_by_cidr(address: str, allowed: bool) -> None:
    forbidden = parse_networks(["2600:1f13:abc:d00::/56", "198.41.0.0/24"])
    assert is_allowed(ip_address(address), [], forbidden) is allowed
    assert is_allowed(ip_address(address), parse_networks([address]), forbidden)  # named by the operator


def test_no_special_address_is_allowed_by_default() -> None:
    assert not is_allowed(ip_address("127.0.0.1"), parse_networks([]))


@pytest.mark.parametrize("cidr", ["10.0.0.0/33", "10.0.0", "example.com", "10.0.0.0/8/8", "::/129"])
def test_an_invalid_cidr_is_named(cidr: str) -> None:
    with pytest.raises(ValueError, match=cidr.replace(".", r"\.")):
        parse_networks(["10.0.0.0/8", cidr])


# Names and spellings

LOOPBACK_SPELLINGS = """
    127.0.0.1 127.1 127.0.1 127.000.000.001 0177.0.0.1 0177.1 0x7f.0.0.1 0x7f.1 0x7f000001 0X7F000001 2130706433
    017700000001 127.0.0.255 127.255.255.254 localhost LOCALHOST ::1 0:0:0:0:0:0:0:1 0000:0000::0001 ::ffff:127.0.0.1
    ::ffff:7f00:1 ::127.0.0.1 ::7f00:1 64:ff9b::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: 2001:0:0:0:0:0:80ff:fffe
    ::ffff:0:127.0.0.1 0 0.0.0.0 0x0 00 :: １２７.０.０.１ 127。0。0。1 127．0．0．1 127｡0｡0｡1 ①②⑦.0.0.1
""".split()
METADATA_SPELLINGS = """
    169.254.169.254 169.254.43518 169.16689662 2852039166 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe 0251.0376.0251.0376
    0251.254.169.254 169.254.0xa9fe ::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::169.254.169.254 64:ff9b::a9fe:a9fe
    64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe:: fd00:ec2::254 fe80::a9fe:a9fe fe80::1%1 192.0.0.192 100.100.100.200
    168.63.129.16 １６９.２５４.１６９.２５４
""".split()
PRIVATE_SPELLINGS = """
    10.0.0.1 10.1 0xa000001 167772161 012.0.0.1 192.168.1 192.168.257 3232235777 0300.0250.1.1 172.16.1 172.31.255.255
    100.64.0.1 ::ffff:10.0.0.1 ::ffff:c0a8:101 fc00::1 fd12:3456::1 fec0::1 ff02::1 224.0.0.1 255.255.255.255
    198.18.0.1 192.88.99.1
""".split()


@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS + METADATA_SPELLINGS + PRIVATE_SPELLINGS)
async def test_no_spelling_of_a_forbidden_address_resolves(host: str) -> None:
    """The result of the resolver is checked. A spelling that it does not understand cannot be reached either."""
    with pytest.raises((Forbidden, Unresolvable)):
        await resolve_allowed(host, 80)


def test_there_are_at_least_60_spellings() -> None:
    assert len({*LOOPBACK_SPELLINGS, *METADATA_SPELLINGS, *PRIVATE_SPELLINGS}) >= 60


@pytest.mark.parametrize(
    "host",
    ["", ".", "..", "no-such-name.invalid", "a" * 64, "a." * 200, "a\0b", "[::1]", "127.0.0.1:80", "\udc80", "%31"],
)
async def test_an_invalid_name_is_unresolvable(host: str) -> None:
    with pytest.raises(Unresolvable):
        await resolve_allowed(host, 80)


async def test_an_allowed_address_resolves() -> None:
    assert await resolve_allowed("127.0.0.1", 80, ["127.0.0.0/8"]) == ["127.0.0.1"]
    assert await resolve_allowed("0x7f000001", 80, ["127.0.0.0/8"]) == ["127.0.0.1"]


# Answers of name servers


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["2606:4700:4700::1111", "8.8.8.8", "169.254.169.254"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%2"],
        [],
    ],
)
async def test_one_forbidden_address_forbids_its_name(monkeypatch: pytest.MonkeyPatch, answers: list[str]) -> None:
    name_server_says(monkeypatch, *answers)
    with pytest.raises(Forbidden):
        await resolve_allowed("mixed.example", 443)


async def test_each_address_is_returned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    name_server_says(monkeypatch, "8.8.8.8", "8.8.4.4", "8.8.8.8", "2606:4700:4700::1111")
    assert await resolve_allowed("good.example", 443) == ["8.8.8.8", "8.8.4.4", "2606:4700:4700::1111"]


async def test_a_refusal_does_not_reveal_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name_server_says(monkeypatch, "10.11.12.13")
    with pytest.raises(Forbidden) as refusal:
        await resolve_allowed("internal.example", 443)
    assert "10.11.12.13" not in str(refusal.value)


def name_server_says(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


class SilentNameServer:
    """Answers only for the name good.example, until `answers_all` is set."""

    def __init__(self) -> None:
        self.answers_all = threading.Event()
        self.begun = 0

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        if host != "good.example":
            self.begun += 1
            self.answers_all.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentNameServer]:
    server = SilentNameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answers_all.set()
    for thread in threading.enumerate():
        if thread.name == "lookup":
            thread.join()


async def look_up_in_vain(silent: SilentNameServer, names: int) -> None:
    """Look up names without an answer, until all lookups have begun and all callers have given up."""
    lookups = [asyncio.create_task(resolve_allowed(f"h{number}.example", 443)) for number in range(names)]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while silent.begun < names:
            await asyncio.sleep(0.01)
    for lookup in lookups:
        lookup.cancel()
    await asyncio.gather(*lookups, return_exceptions=True)


async def test_names_without_an_answer_delay_no_other_name(silent: SilentNameServer) -> None:
    await look_up_in_vain(silent, LOOKUPS_AT_ONCE - 1)
    assert await resolve_allowed("good.example", 443) == ["8.8.8.8"]


async def test_lookups_beyond_the_limit_fail_until_others_have_ended(silent: SilentNameServer) -> None:
    await look_up_in_vain(silent, LOOKUPS_AT_ONCE)
    with pytest.raises(Unresolvable):
        await resolve_allowed("good.example", 443)
    silent.answers_all.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with suppress(Unresolvable):
                assert await resolve_allowed("good.example", 443) == ["8.8.8.8"]
                return
            await asyncio.sleep(0.01)


def test_lookup_that_is_given_up_before_it_begins_asks_nobody(silent: SilentNameServer) -> None:
    found: Future[list[Any]] = Future()
    found.cancel()
    assert address_policy._free_lookups.acquire(blocking=False)
    address_policy._run_lookup(found, "silent.example", 443)
    assert silent.begun == 0


def test_a_process_ends_while_a_name_has_no_answer() -> None:
    program = """
import asyncio, socket, threading
from labrats.net import address_policy
address_policy.RESOLVE_SECONDS = 0.05
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
try:
    asyncio.run(address_policy.resolve_allowed("silent.example", 443))
except address_policy.Unresolvable:
    print("unresolvable")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=DEADLINE_SECONDS)
    assert ended.stdout == b"unresolvable\n"

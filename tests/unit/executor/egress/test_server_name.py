"""The server's name in the first message of a TLS client."""

import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.executor.egress.server_name import Incomplete, server_name


def hello(host: str | None, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """Return the first message of OpenSSL's client."""
    context = ssl.create_default_context()
    context.check_hostname, context.maximum_version = host is not None, maximum
    if host is None:
        context.verify_mode = ssl.CERT_NONE
    output = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), output, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return output.read()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_name_is_found(version: ssl.TLSVersion) -> None:
    assert server_name(hello("Registry.Example", version)) == "registry.example"


def test_message_without_a_name_has_none() -> None:
    assert server_name(hello(None)) is None


def test_every_beginning_of_the_message_is_incomplete() -> None:
    message = hello("registry.example")
    for size in range(len(message)):
        with pytest.raises(Incomplete):
            server_name(message[:size])


def test_message_in_several_records_is_put_together() -> None:
    message = hello("registry.example")[5:]
    records = [message[start : start + 7] for start in range(0, len(message), 7)]
    data = b"".join(b"\x16\x03\x01" + len(record).to_bytes(2) + record for record in records)
    assert server_name(data) == "registry.example"


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x00\x01x", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"]
)
def test_other_messages_have_no_name(data: bytes) -> None:
    assert server_name(data) is None


@given(st.integers(0, 300), st.binary(min_size=1, max_size=20))
def test_damaged_message_raises_nothing_but_incomplete(position: int, damage: bytes) -> None:
    message = hello("registry.example")
    with suppress(Incomplete):
        server_name(message[:position] + damage + message[position + len(damage) :])

"""The server's name in the first message of a TLS client."""

import ssl
from contextlib import suppress
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labrats.executor.egress.server_name import ClientHello


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


def fed(*parts: bytes) -> tuple[bool, str | None]:
    """Return whether the parts are a complete message, and the name in it."""
    message = ClientHello()
    is_complete = False
    for part in parts:
        is_complete = message.feed(part)
    return is_complete, message.server_name if is_complete else None


def in_records(message: bytes, size: int) -> bytes:
    """Return a message in records of this many bytes."""
    records = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(record).to_bytes(2) + record for record in records)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_name_is_found(version: ssl.TLSVersion) -> None:
    assert fed(hello("Registry.Example", version)) == (True, "registry.example")


def test_message_without_a_name_has_none() -> None:
    assert fed(hello(None)) == (True, None)


def test_message_is_complete_with_its_last_byte() -> None:
    message = hello("registry.example")
    for size in range(len(message)):
        assert fed(message[:size]) == (False, None)
        assert fed(message[:size], message[size:]) == (True, "registry.example")


@pytest.mark.parametrize("size", [1, 7, 300])
def test_message_in_several_records_is_put_together(size: int) -> None:
    data = in_records(hello("registry.example")[5:], size)
    assert fed(data) == (True, "registry.example")
    assert fed(*(data[start : start + 1] for start in range(len(data)))) == (True, "registry.example")


def test_message_in_bytes_takes_little_time() -> None:
    """One client must not occupy the proxy of all attempts: each byte was parsed again with each later one."""
    message = b"\x01\x00\xff\xff" + bytes(2700)
    data = in_records(message, 1)
    started = process_time()
    assert fed(*(data[start : start + 1] for start in range(len(data)))) == (False, None)
    assert process_time() - started < 1.0


def test_message_with_many_extensions_takes_little_time() -> None:
    extensions = b"\xff\xff\x00\x00" * 16_000
    body = bytes(34) + b"\x00" + b"\x00\x00" + b"\x00" + len(extensions).to_bytes(2) + extensions
    data = in_records(b"\x01" + len(body).to_bytes(3) + body, 16_384)
    started = process_time()
    assert fed(data) == (True, None)
    assert process_time() - started < 1.0


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x00\x01x", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"]
)
def test_other_messages_have_no_name(data: bytes) -> None:
    assert fed(data) == (True, None)


@given(st.integers(0, 300), st.binary(min_size=1, max_size=20))
def test_damaged_message_raises_nothing(position: int, damage: bytes) -> None:
    message = hello("registry.example")
    fed(message[:position] + damage + message[position + len(damage) :])

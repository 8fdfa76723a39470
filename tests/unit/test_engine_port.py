"""The engine's port, which it shares with the reservation of an earlier engine and with no program that listens."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from labrats.engine_port import listen, reserved

IN_USE = "Address already in use"
ADDRESSES = ["127.0.0.1", "0.0.0.0", "::1", "::"]


@pytest.fixture
def reserved_port() -> Iterator[int]:
    """A port that an engine has reserved, and at which it listens no more."""
    listener = listen("127.0.0.1", 0)
    with reserved(listener):
        port = listener.getsockname()[1]
        listener.close()
        yield port


@pytest.mark.parametrize("address", ADDRESSES)
def test_reserved_port_is_taken_for_others(reserved_port: int, address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match=IN_USE):
            other.bind((address, reserved_port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_port_of_an_engine_on_all_addresses_is_reserved_in_both_families(host: str, address: str) -> None:
    """Clients prefer an address of IPv6, on which an agent could listen. No socket listens in this test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listener: Any = SimpleNamespace(getsockname=lambda: (host, port), setsockopt=lambda *_: None)
    other = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with reserved(listener), other, pytest.raises(OSError, match=IN_USE):
        other.bind((address, port))


def test_engine_listens_on_a_port_that_an_earlier_one_has_reserved(reserved_port: int) -> None:
    with (
        listen("127.0.0.1", reserved_port) as listener,
        reserved(listener),
        socket.create_connection(("127.0.0.1", reserved_port)),
    ):
        listener.accept()[0].close()


def test_engine_does_not_share_a_reserved_port_with_another_engine(reserved_port: int) -> None:
    with listen("127.0.0.1", reserved_port), pytest.raises(OSError, match=IN_USE):
        listen("127.0.0.1", reserved_port)


def test_engine_does_not_share_a_port_with_a_program_that_would_share_it() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other, pytest.raises(OSError, match=IN_USE):
        listen("127.0.0.1", other.getsockname()[1])

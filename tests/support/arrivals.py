"""A listener on every address of the machine, which counts what arrives."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def everything_that_arrives() -> Iterator[tuple[str, int, list[bytes]]]:
    """Listen with TCP and UDP on every address of the machine. Yield one of them, the port, and what arrives."""
    arrived: list[bytes] = []
    with socket.socket(socket.AF_INET6) as tcp, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        for each in (tcp, udp):
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        tcp.bind(("::", 0))
        port = tcp.getsockname()[1]
        udp.bind(("::", port))
        tcp.listen()

        def accept() -> None:
            while True:
                with tcp.accept()[0] as client:
                    if (first := client.recv(100)) == b"stop":
                        return
                arrived.append(first)

        def receive() -> None:
            while (data := udp.recv(100)) != b"stop":
                arrived.append(data)

        threads = [threading.Thread(target=each) for each in (accept, receive)]
        for thread in threads:
            thread.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            address = probe.getsockname()[0]
        try:
            yield address, port, arrived
        finally:
            with socket.create_connection(("127.0.0.1", port)) as last:
                last.sendall(b"stop")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"stop", ("127.0.0.1", port))
            for thread in threads:
                thread.join()

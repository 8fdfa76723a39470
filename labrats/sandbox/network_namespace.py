"""A network namespace in which only loopback exists, with sockets that this process accepts connections from."""

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from labrats.libc import CLONE_NEWNET, unshare_user

_SET_FLAGS: Final = 0x8914
_UP_AND_RUNNING: Final = 0x1 | 0x40
_BACKLOG: Final = 128
_REASON_BYTES: Final = 500
_FURTHER_TESTS: Final = 2
_LOST_MOUNT: Final = "Can't bind mount"
_TEST_PORT: Final = 3128
_TEST_SECONDS: Final = 30.0
LOOPBACK: Final = "127.0.0.1"


class NetworkNamespace:
    """A network namespace that a child process enters before it executes its program.

    The child opens listening sockets on loopback there and sends them to this process. Connections to them are the only
    way out of the namespace. ports: their ports.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = ports
        self._ours, self._childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def enter(self) -> None:
        """Enter a new namespace and send its sockets. For the child, between fork and exec. Raises OSError."""
        user, group = os.geteuid(), os.getegid()
        try:
            unshare_user(CLONE_NEWNET)  # the secrets in this copy of the memory, now readable, end with the exec
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{user} {user} 1")
            _write("/proc/self/gid_map", f"{group} {group} 1")
            _bring_up_loopback()
            listeners = [socket.create_server((LOOPBACK, port), backlog=_BACKLOG) for port in self.ports]
            socket.send_fds(self._childs, [b"ready"], [each.fileno() for each in listeners])
        except OSError as error:
            self._childs.send(f"{error.filename or error.strerror}: {os.strerror(error.errno or 0)}".encode())
            raise

    def fileno(self) -> int:
        """Return the descriptor that is readable once the child has sent its sockets."""
        return self._ours.fileno()

    def listeners(self) -> list[socket.socket]:
        """Receive the sockets of the namespace, in the order of `ports`. Raises OSError with the child's reason."""
        message, descriptors, _, _ = socket.recv_fds(self._ours, _REASON_BYTES, len(self.ports))
        if message != b"ready":
            raise OSError(message.decode("utf-8", "replace"))
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def close(self) -> None:
        self._ours.close()
        self._childs.close()


def namespace_problem(bubblewrap: str) -> str | None:
    """Test whether a process can enter a namespace here and start a sandbox in it. Return the problem, if any.

    A mount of the machine that ends during the test makes bubblewrap fail. Then it is tested again, three times in all.

    bubblewrap: path of the program.
    """
    problem = _problem_in_test(bubblewrap)
    for _ in range(_FURTHER_TESTS):
        if problem is None or _LOST_MOUNT not in problem:
            break
        problem = _problem_in_test(bubblewrap)
    return problem


def _problem_in_test(bubblewrap: str) -> str | None:
    namespace = NetworkNamespace([_TEST_PORT])
    command = [bubblewrap, "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "--", "true"]
    with closing(namespace):
        try:
            test = subprocess.run(
                command, preexec_fn=namespace.enter, capture_output=True, text=True, timeout=_TEST_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"bwrap did not end within {_TEST_SECONDS:g} seconds"
        except subprocess.SubprocessError:
            test = None
        try:
            for listener in namespace.listeners():
                listener.close()
        except OSError as error:
            return str(error)
    return test.stderr.strip() or "bwrap failed" if test and test.returncode else None


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def _bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH22x", b"lo", _UP_AND_RUNNING))

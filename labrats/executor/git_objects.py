"""Read git's objects, and check that they have the content that belongs to their names.

Git itself does not check that: it believes the files of objects, to which an agent can write any content.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from labrats.executor.engine_repository import DiffFailed, EngineRepository

_BATCH: Final = ("cat-file", "--batch", "--buffer")
_SHA256_DIGITS: Final = 64


class GitObject(NamedTuple):
    """An object. kind: `blob`, `tree`, `commit` or `tag`."""

    name: str
    kind: str
    content: bytes


async def read_objects(repository: EngineRepository, names: Iterable[bytes], most_bytes: int) -> Iterator[GitObject]:
    """Return the objects, in this order. Raises DiffFailed if they have more than `most_bytes`.

    The iterator raises DiffFailed for an object that is missing, or has other content than its name says.
    """
    return _objects_in(await repository.git(*_BATCH, stdin=_lines(names), most_bytes=most_bytes))


async def require_intact(repository: EngineRepository, names: Iterable[bytes]) -> None:
    """Raise DiffFailed if an object is missing, or has other content than its name says. They may be of any size."""
    if request := _lines(names):
        await repository.git(*_BATCH, stdin=request, take=_Checker().take)


def _lines(names: Iterable[bytes]) -> bytes:
    return b"".join(b"%s\n" % name for name in names)


def _objects_in(printed: bytes) -> Iterator[GitObject]:
    at = 0
    while at < len(printed):
        end = printed.index(b"\n", at)
        check = _Check(printed[at:end])
        at = end + 1 + check.left
        content = printed[end + 1 : at]
        check.take(content)
        check.end()
        at += 1
        yield GitObject(check.name, check.kind, content)


class _Check:
    """The check of one object. left: the bytes of its content that are still to come."""

    def __init__(self, head: bytes) -> None:
        self.name, self.kind, *size = head.decode().split()
        if not size:
            raise DiffFailed(f"the object {self.name} is {self.kind}")
        self.left = int(size[0])
        algorithm = "sha256" if len(self.name) == _SHA256_DIGITS else "sha1"
        self._digest = hashlib.new(algorithm, f"{self.kind} {self.left}\0".encode(), usedforsecurity=False)

    def take(self, content: bytes) -> None:
        self._digest.update(content)
        self.left -= len(content)

    def end(self) -> None:
        if self._digest.hexdigest() != self.name:
            raise DiffFailed(f"the agent has changed objects of its repository: {self.name} has other content")


class _Checker:
    """Checks each object in an output that comes in parts of any length."""

    def __init__(self) -> None:
        self._head = b""
        self._check: _Check | None = None

    def take(self, part: bytes) -> None:
        while part:
            if self._check is None:
                beginning, line_break, part = part.partition(b"\n")
                self._head += beginning
                if line_break:
                    self._check, self._head = _Check(self._head), b""
                continue
            content, part = part[: self._check.left], part[self._check.left :]
            self._check.take(content)
            if part:  # the line break after the content
                self._check.end()
                self._check, part = None, part[1:]

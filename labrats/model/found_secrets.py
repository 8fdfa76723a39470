"""Secrets that GitHub has found in the commits of a job: where they stand, and digests by which texts are redacted.

A job stores no secret, only the length, the first characters and the hash of each.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, Self

from labrats.model.record import Record

_START_LENGTH: Final = 4
_SHORTEST: Final = 12
_RANDOM_LENGTH: Final = 24
"""The shortest possible secret, and the length from which a word counts as one even without digits."""

_MOST_KEY_LINES: Final = 100
_WORDS: Final = tuple(
    map(re.compile, (r"[A-Za-z0-9_-]{12,}", r"[A-Za-z0-9_+/.~-]{12,}={0,2}", r"(?<=:)[^\s:@/'\"]{12,}(?=@)"))
)
_REST: Final = re.compile(r"[^\s'\"`<>(){}\[\],;\\]{8,}")


class SecretDigest(Record):
    """A recognisable, but not readable form of a secret. start: its first characters, of `length` in all."""

    start: str
    length: int
    sha256: str

    @classmethod
    def of(cls, secret: str) -> Self:
        return cls(start=secret[:_START_LENGTH], length=len(secret), sha256=_hash(secret))

    def places_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each occurrence in a text."""
        at = text.find(self.start)
        while at >= 0:
            end = at + self.length
            if end <= len(text) and _hash(text[at:end]) == self.sha256:
                yield at, end
            at = text.find(self.start, at + 1)


class FoundSecret(Record):
    """A secret in a commit. kind: GitHub's name of it, such as `GitHub Personal Access Token`.

    digests: of what looks like a secret there; empty if nothing does, or if GitHub names no place.
    """

    kind: str
    path: str
    line: int
    commit: str
    digests: tuple[SecretDigest, ...] = ()


def digests_of(secrets: Iterable[FoundSecret]) -> tuple[SecretDigest, ...]:
    """Return the digests of all these secrets, each once."""
    return tuple(dict.fromkeys(digest for secret in secrets for digest in secret.digests))


def digests_in(lines: Sequence[str]) -> tuple[SecretDigest, ...]:
    """Return the digests of all that looks like a secret on the first line: of a private key, on all of its lines."""
    if not lines:
        return ()
    if "-----BEGIN" in lines[0]:
        words = {line.strip() for line in _until_end(lines) if len(line.strip()) >= _SHORTEST}
    else:
        words = {word[0] for pattern in _WORDS for word in pattern.finditer(lines[0])}
        words = {word for word in words if _looks_random(word)} or {word[0] for word in _REST.finditer(lines[0])}
    return tuple(map(SecretDigest.of, sorted(words)))


def _until_end(lines: Sequence[str]) -> Iterator[str]:
    for line in lines[1:_MOST_KEY_LINES]:
        if "-----END" in line:
            return
        yield line


def _looks_random(word: str) -> bool:
    return len(word) >= _RANDOM_LENGTH or (bool(re.search(r"\d", word)) and bool(re.search("[A-Za-z]", word)))


def _hash(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()

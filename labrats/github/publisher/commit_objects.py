"""Rewrite commits: with other parents, harmless messages, or signatures.

The same commits get the same new ids.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

from labrats.github.client.signer import Signer
from labrats.github.reports.markdown import neutralised_message

_HEADER_END: Final = re.compile(rb"\n(?! )")
"""A header continues in lines that begin with a space."""

_SIGNATURES: Final = (b"gpgsig", b"gpgsig-sha256", b"mergetag")
_REPLAYED: Final = (b"tree", b"author", b"committer")
_PEOPLE: Final = (b"author", b"committer")
_ENCODING: Final = b"encoding"
_KNOWN_ENCODINGS: Final = re.compile(
    rb"iso-?8859-\d\d?|latin-?1|(?:windows-|cp)(?:125\d|932|949)|koi8-[ru]|shift[-_]jis|sjis|euc-(?:jp|kr)|gb2312|gbk"
    rb"|gb18030|big5",
    re.IGNORECASE,
)
"""Encodings in which ASCII has its own bytes, which git demands of the names of people."""


class Git(Protocol):
    """Runs git in a repository, and returns its output."""

    def __call__(self, arguments: Sequence[str], *, stdin: bytes = b"") -> bytes: ...


@dataclass(frozen=True)
class CommitObject:
    """A commit as git stores it. headers: each is a name, a space and a value, which may have several lines."""

    headers: tuple[bytes, ...]
    message: bytes

    @classmethod
    def read(cls, git: Git, sha: str) -> Self:
        """Return a commit of the repository."""
        head, _, message = git(["cat-file", "commit", sha]).partition(b"\n\n")
        return cls(tuple(_HEADER_END.split(head)), message)

    def write(self, git: Git, signer: Signer | None) -> str:
        """Store the commit, signed if there is a signer. Return its id. Raises CannotSign."""
        content = self._signed(signer).raw if signer else self.raw
        written = git(["hash-object", "-t", "commit", "-w", "--stdin"], stdin=content)
        return written.decode().strip()

    @property
    def raw(self) -> bytes:
        """The bytes of the commit."""
        return b"\n".join([*self.headers, b"", self.message])

    def with_parents(self, written: dict[str, str]) -> Self:
        """Return the commit with the new ids of its parents. written: ids, old to new."""
        return replace(self, headers=tuple(_with_new_parent(header, written) for header in self.headers))

    def in_utf8(self) -> Self:
        """Return the commit with its texts in UTF-8, and no header by which a reader would decode them differently."""
        declared = next((_value(header) for header in self.headers if _name(header) == _ENCODING), b"utf-8")
        others = (header for header in self.headers if _name(header) != _ENCODING)
        headers = tuple(_in_utf8(header, declared) if _name(header) in _PEOPLE else header for header in others)
        return replace(self, headers=headers, message=_in_utf8(self.message, declared))

    def with_harmless_message(self, known_hosts: Collection[str]) -> Self:
        """Return the commit, which is in UTF-8, with a message that notifies nobody and closes nothing."""
        return replace(self, message=neutralised_message(self.message.decode(), known_hosts).encode())

    def replayed_on(self, parent: str) -> Self:
        """Return a commit with the same files and message after another one."""
        tree, *others = [header for header in self.headers if _name(header) in _REPLAYED]
        return replace(self, headers=(tree, b"parent " + parent.encode(), *others))

    def with_tree(self, tree: str) -> Self:
        """Return the commit with other files."""
        return replace(self, headers=(b"tree " + tree.encode(), *self.headers[1:]))

    def without_signatures(self) -> Self:
        """Return the commit without signatures, which hold only for what they sign."""
        return replace(self, headers=tuple(header for header in self.headers if _name(header) not in _SIGNATURES))

    def _signed(self, signer: Signer) -> Self:
        committed = tuple(_committed_by(header, signer) for header in self.without_signatures().headers)
        unsigned = replace(self, headers=committed)
        signature = signer.sign(unsigned.raw).replace(b"\n", b"\n ")
        return replace(self, headers=(*committed, b"gpgsig " + signature))


def rewrite_commits(git: Git, commits: str, known_hosts: Collection[str], signer: Signer | None) -> dict[str, str]:
    """Rewrite commits where they, or commits before them, have active parts or are not in UTF-8.

    Return the ids, old to new.

    commits: the range, as of `git rev-list`. signer: signs all of them. Raises CannotSign.
    """
    written: dict[str, str] = {}
    for sha in git(["rev-list", "--reverse", "--topo-order", commits]).decode().split():
        found = CommitObject.read(git, sha)
        changed = found.with_parents(written).in_utf8().with_harmless_message(known_hosts)
        if signer or changed != found:
            written[sha] = changed.without_signatures().write(git, signer)
    return written


def _name(header: bytes) -> bytes:
    return header.partition(b" ")[0]


def _value(header: bytes) -> bytes:
    return header.partition(b" ")[2]


def _in_utf8(text: bytes, declared: bytes) -> bytes:
    """Return a text in UTF-8. declared: the name of its encoding; a text that contradicts it is read as Latin-1."""
    name = declared.decode() if _KNOWN_ENCODINGS.fullmatch(declared) else "utf-8"
    try:
        return text.decode(name).encode()
    except (LookupError, UnicodeError):
        return text.decode("latin-1").encode()


def _with_new_parent(header: bytes, written: dict[str, str]) -> bytes:
    name, _, value = header.partition(b" ")
    return b"parent " + written.get(value.decode(), value.decode()).encode() if name == b"parent" else header


def _committed_by(header: bytes, signer: Signer) -> bytes:
    """Return the header of the committer with the signer's name and the former time."""
    if _name(header) != b"committer":
        return header
    return b" ".join([b"committer", signer.committer.encode(), *header.rsplit(b" ", 2)[1:]])

"""Commits of an agent with messages that notify nobody and close nothing."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from labrats.reports.markdown import neutralised_message

_FILE: Final = "commit"
_SIGNATURES: Final = (b"gpgsig", b"mergetag")


def neutralise_messages(
    git: Callable[[Sequence[str]], bytes], folder: Path, commits: str, known_hosts: Collection[str]
) -> dict[str, str]:
    """Write commits anew where their messages, or commits before them, have active parts. Return the ids, old to new.

    The same commits always get the same ids. commits: the range, as of `git rev-list`. folder: in which `git` runs.
    """
    written: dict[str, str] = {}
    for sha in git(["rev-list", "--reverse", "--topo-order", commits]).decode().split():
        raw = git(["cat-file", "commit", sha])
        if (changed := _rewritten(raw, written, known_hosts)) == raw:
            continue
        (folder / _FILE).write_bytes(changed)
        written[sha] = git(["hash-object", "-t", "commit", "-w", "--no-filters", _FILE]).decode().strip()
    return written


def _rewritten(raw: bytes, written: dict[str, str], known_hosts: Collection[str]) -> bytes:
    """Return a commit with its new parents and message. It loses its signature if it changes."""
    head, _, message = raw.partition(b"\n\n")
    headers = [_with_new_parent(header, written) for header in head.split(b"\n")]
    text = neutralised_message(message.decode(errors="surrogateescape"), known_hosts).encode(errors="surrogateescape")
    changed = b"\n\n".join([b"\n".join(headers), text])
    return raw if changed == raw else b"\n\n".join([b"\n".join(_without_signature(headers)), text])


def _with_new_parent(header: bytes, written: dict[str, str]) -> bytes:
    name, _, value = header.partition(b" ")
    return b"parent " + written.get(value.decode(), value.decode()).encode() if name == b"parent" else header


def _without_signature(headers: Sequence[bytes]) -> Sequence[bytes]:
    """Return the headers without signatures. A header goes on in lines that begin with a space."""
    kept: list[bytes] = []
    is_kept = True
    for header in headers:
        if not header.startswith(b" "):
            is_kept = not header.startswith(_SIGNATURES)
        if is_kept:
            kept.append(header)
    return kept

"""Active parts of texts on GitHub: what notifies people, loads something, leads elsewhere, or closes an issue."""

import re
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MENTION: Final = re.compile(r"(?<![\w`])@[A-Za-z0-9][\w/-]*")
_CLOSING: Final = re.compile(
    r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+(?:[\w.-]+/[\w.-]+)?(?:#|GH-|https?://\S+/)\d+", re.IGNORECASE
)
_ADDRESS: Final = re.compile(r"(?:\bhttps?:)?//[\w.:@-]+|\bwww\.[\w.-]+", re.IGNORECASE)
_HARMLESS_TAGS: Final = frozenset({"details", "summary", "sub"})


def active_in_text(text: str, known_hosts: Collection[str]) -> Iterator[str]:
    """Yield the active parts of a text that GitHub shows without Markdown, such as a title.

    known_hosts: hosts to which it may lead.
    """
    yield from _MENTION.findall(text)
    yield from _CLOSING.findall(text)
    yield from (address for address in _ADDRESS.findall(text) if not _is_known(address, known_hosts))


def active_in_markdown(text: str, known_hosts: Collection[str]) -> Iterator[str]:
    """Yield the active parts of Markdown. Code has none."""
    for token in MarkdownIt("commonmark", {"html": True}).parse(text):
        if token.type == "html_block":
            yield from _active_in_html(token.content)
        elif token.type == "inline":
            yield from _active_in_inline(token.children or [], known_hosts)


def _active_in_inline(tokens: Collection[Token], known_hosts: Collection[str]) -> Iterator[str]:
    visible = "".join({"text": token.content, "softbreak": "\n"}.get(token.type, "") for token in tokens)
    yield from active_in_text(visible, known_hosts)
    for token in tokens:
        address = token.attrGet("href") or token.attrGet("src")
        if address and not _is_known(str(address), known_hosts):
            yield f"{token.type} {address}"
        if token.type == "html_inline":
            yield from _active_in_html(token.content)


def _active_in_html(html: str) -> Iterator[str]:
    tags = _Tags()
    tags.feed(html)
    yield from (tag for tag in tags.found if tag not in _HARMLESS_TAGS)


def _is_known(address: str, known_hosts: Collection[str]) -> bool:
    host = urlsplit(address).hostname
    return (host is None and not address.startswith(("//", "www."))) or host in known_hosts


class _Tags(HTMLParser):
    """The tags of HTML; those with attributes have them in their name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(" ".join([tag, *(f"{name}={value}" for name, value in attrs)]))

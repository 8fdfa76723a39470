"""Neutralise Markdown that an agent wrote: nobody is mentioned, nothing is loaded, and nothing is hidden.

GitHub loads the images of a comment, notifies the people it mentions, and renders HTML. An agent that obeys an attacker
could use each of them. A zero-width space breaks the active syntax and leaves the text readable.
"""

import re
from collections.abc import Collection, Iterator
from functools import reduce
from typing import Final

from labrats.model.outside_text import without_hidden

BREAK: Final = "\u200b"
"""Splits syntax without being seen."""

_ESCAPED: Final = re.compile(r"(?<!\\)\\+([/:@<&!#.])")
"""Backslashes before punctuation, which Markdown removes after it has looked for links."""

_ENTITY: Final = re.compile(r"&(?=#|[A-Za-z][A-Za-z0-9]{1,31};)(?!(?:amp|lt|gt|quot);)")
_ESCAPE: Final = "\x1b"
"""It starts a command of a terminal. To a reader that guesses encodings, it switches to another one."""

_MENTION: Final = re.compile(r"@(?=[0-9A-Za-z])")
_MENTION_IN_MESSAGE: Final = re.compile(r"(?<!\w)@(?=[0-9A-Za-z])")
_TAG: Final = re.compile(r"<(?=[A-Za-z/!?])(?!https?://[^\s<>]*>)")
_ADDRESS: Final = re.compile(r"(?:\b([a-z]+):)?//(?=([0-9a-z\[][^\s/?#()<>\"'`\\]*)?)|\b(https?|ftp):", re.IGNORECASE)
"""The start of an address: with or without its scheme, or the scheme alone, which some readers complete."""

_WWW: Final = re.compile(r"\bwww\.", re.IGNORECASE)
_CLOSING: Final = re.compile(
    r"\b((?:close[sd]?|duplicate\s{1,9}of|fix(?:e[sd])?|resolve[sd]?):?[\s*_~`\[(]++)((?:[\w.-]{1,100}+/[\w.-]{1,100}+)?#|GH-|https?://)",
    re.IGNORECASE,
)
"""Names have at most 100 characters. Without such limits, an agent could write a text that takes hours to read."""
_SKIPPING: Final = re.compile(
    r"(\[(?:skip|ci|no|actions)|^[ \t]*skip-checks)( (?:ci|skip|actions)\]|[ \t]*:)", re.IGNORECASE | re.MULTILINE
)
"""Words that keep GitHub Actions from running for a commit: in brackets, or a trailer."""

_COMMAND: Final = re.compile(r"^([ \t>*+-]*+(?:/(?=[a-z][\w-]*+(?!\S))|b(?=ors\s)))", re.IGNORECASE | re.MULTILINE)
"""The start of a line with a command for another bot, such as `/approve` or `bors r+`, which looks in code, too.

Such bots obey whoever has written a comment, and that is a person where the engine has a personal token.
"""

_OTHER_REPOSITORY: Final = re.compile(r"(?<=[\w.-])#(?=\d)")
_FENCE: Final = re.compile(r"(`{3,})[^`\n]*|(~{3,})[^\n]*")
_CLOSING_FENCE: Final = re.compile(r"(`{3,}|~{3,})[ \t]*")
_RENDERED: Final = "mermaid|geojson|topojson|stl|math"
"""Languages of blocks that GitHub shows as diagrams, maps, models and formulas. These may have links."""

_RENDERED_INFO: Final = re.compile(rf"\b(?:{_RENDERED})\b|&", re.IGNORECASE)
"""A rendered language in the text after a fence, where an entity may stand for any of its letters."""

_RENDERED_FENCE: Final = re.compile(rf"((?:```|~~~)[^\S\n]*+)(?=(?:{_RENDERED})\b)", re.IGNORECASE)
_MATH_LINK: Final = re.compile(r"\\(?=(?:href|csname)(?![A-Za-z]))")
"""Commands of TeX that link, or build the name of another command. Macros can build an address from harmless parts."""

_INDENTED_FENCE: Final = re.compile(r"^[ \t>*+\-0-9.)]+(?:```|~~~)", re.MULTILINE)
_LONGEST_FENCE: Final = 100
"""The bound on fences, and so on the lines that close them. A zero-width space breaks longer ones."""

_LONG_FENCE: Final = re.compile(rf"(`{{{_LONGEST_FENCE}}}(?=`)|~{{{_LONGEST_FENCE}}}(?=~))")
_MOST_END_BYTES: Final = 400
"""The bound on the lines at the end of a text that close its last block of code."""


def neutralised(text: str, known_hosts: Collection[str], most_bytes: int, *, is_last: bool = False) -> str:
    """Return `text` without active parts, in at most `most_bytes` of UTF-8. A note says where it was cut.

    No block of code is open at the end, so that text and code can follow after an empty line.

    known_hosts: hosts to which links and images stay as they are. So do fenced blocks of code, except for commands to
    bots, unless the text has indented ones, whose end GitHub and this function could see at different places. A block
    that GitHub would render, such as a diagram, becomes plain code.
    is_last: whether nothing follows. A block may then be open at the end.
    """
    size = len(text.encode())
    start = _LONG_FENCE.sub(rf"\1{BREAK}", _with_line_feeds(without_hidden(_first_bytes(text, most_bytes))))
    blocks = [(False, start)] if _INDENTED_FENCE.search(start) else _blocks(start)
    neutral = without_commands(
        "\n".join(_plain(block) if is_code else _neutralised_text(block, known_hosts) for is_code, block in blocks)
    )
    whole = neutral if is_last else neutral + _end_of(neutral)
    if size <= most_bytes and len(whole.encode()) <= most_bytes:
        return whole
    note = f"\n\n[cut here: of {size} bytes the rest does not fit]\n"
    cut = _first_bytes(neutral, max(most_bytes - _MOST_END_BYTES - len(note), 0))
    return (cut + _end_of(cut) + note)[:most_bytes]  # there may be no room for the whole note


def _first_bytes(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _end_of(text: str) -> str:
    """Return the lines after which no block of code of `text` is open; empty if it needs none.

    Whether an indented fence belongs to a list depends on much of the text before it, and on footnotes, which GitHub
    adds to CommonMark. The lines after such a text are therefore right in both cases. If a block is open, `<!--` is
    code, and the fence closes the block. If none is open, all lines are one invisible comment.
    """
    if _INDENTED_FENCE.search(text):
        longest = (max(re.findall(run, text), key=len, default="") for run in ("`{3,}", "~{3,}"))
        closing = (f"<!-- The next line closes a block of code.\n{fence}\n" for fence in longest if fence)
        return f"\n\n{''.join(closing)}<!-- -->"
    fence = reduce(_fence_after, text.split("\n"), "")
    return f"\n{fence}" if fence else ""


def _blocks(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the text in parts, with whether each is a block of code. All fences are at the start of a line."""
    fence, block = "", list[str]()
    for line in text.split("\n"):
        before, fence = fence, _fence_after(fence, line)
        if fence and not before and block:
            yield False, "\n".join(block)
            block = []
        block.append(line)
        if before and not fence:
            yield True, "\n".join(block)
            block = []
    if block:
        yield bool(fence), "\n".join(block)


def _fence_after(fence: str, line: str) -> str:
    """Return the fence of the block of code that is open after `line`; empty if none is. fence: the one before it."""
    if not fence:
        opened = _FENCE.fullmatch(line)
        return (opened[1] or opened[2]) if opened else ""
    closing = _CLOSING_FENCE.fullmatch(line)
    return "" if closing and closing[1].startswith(fence) else fence


def _plain(block: str) -> str:
    """Return a block of code without the name of its language, if GitHub would render it."""
    opening, _, rest = block.partition("\n")
    info = opening.lstrip(opening[0])
    return block if not _RENDERED_INFO.search(info) else f"{opening.removesuffix(info)}\n{rest}"


def _neutralised_text(text: str, known_hosts: Collection[str]) -> str:
    text = _ESCAPED.sub(r"\1", text)
    text = _ENTITY.sub(f"&{BREAK}", text)
    text = _RENDERED_FENCE.sub(rf"\1{BREAK}", text)
    text = _MATH_LINK.sub(rf"\\{BREAK}", text)
    text = _without_keywords(text)
    text = _MENTION.sub(f"@{BREAK}", text)
    text = _TAG.sub(f"<{BREAK}", text)
    return _without_addresses(text, known_hosts)


def without_commands(text: str) -> str:
    """Return `text` in which other bots find no command."""
    return _COMMAND.sub(rf"\1{BREAK}", text)


def neutralised_message(text: str, known_hosts: Collection[str]) -> str:
    """Return a commit message without active parts. GitHub reads no Markdown in it. E-mail addresses stay as they are.

    known_hosts: hosts to which links stay as they are.
    """
    text = _without_keywords(text.replace(_ESCAPE, ""))
    text = _MENTION_IN_MESSAGE.sub(f"@{BREAK}", text)
    return _without_addresses(text, known_hosts)


def _without_keywords(text: str) -> str:
    """Return `text` that closes nothing, skips no checks, and refers to no issue of another repository."""
    text = _SKIPPING.sub(rf"\1{BREAK}\2", text)
    text = _CLOSING.sub(rf"\1{BREAK}\2{BREAK}", text)
    return _OTHER_REPOSITORY.sub(f"#{BREAK}", text)


def _without_addresses(text: str, known_hosts: Collection[str]) -> str:
    def address(found: re.Match[str]) -> str:
        if scheme := found[3]:
            return f"{scheme}{BREAK}:"
        host = (found[2] or "").partition(":")[0].rstrip(".,;!*_~]").lower()
        if host in known_hosts and "@" not in found[2]:
            return found[0]
        return f"{found[1]}{BREAK}:/{BREAK}/" if found[1] else f"/{BREAK}/"

    return _ADDRESS.sub(address, _WWW.sub(f"www{BREAK}.", text))


def one_line(text: str, known_hosts: Collection[str], most_characters: int) -> str:
    """Return `text` as one neutralised line of at most so many characters."""
    line = " ".join(text.split())
    cut = line if len(line) <= most_characters else f"{line[: most_characters - 1].rstrip()}…"
    return without_commands(_neutralised_text(without_hidden(cut), known_hosts))[:most_characters]


def code_block(text: str, language: str = "") -> str:
    """Return `text` between fences that it cannot close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"

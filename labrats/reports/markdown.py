"""Neutralise Markdown that an agent wrote: nobody is mentioned, nothing is loaded, and nothing is hidden.

GitHub loads the images of a comment, notifies the people it mentions, and renders HTML. An agent that obeys an attacker
could use each of them. A zero-width space breaks the active syntax and leaves the text readable.
"""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Final

from labrats.model.outside_text import shortened, without_hidden

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
_OUTER_FENCE: Final = re.compile(r"^( {0,3})(?=```|~~~)", re.MULTILINE)
"""A fence whose block lasts until another one, and not only as long as the list or quotation that it is in."""


def neutralised(text: str, known_hosts: Collection[str], most_bytes: int, *, is_followed_by_code: bool = False) -> str:
    """Return `text` without active parts, cut to `most_bytes`.

    known_hosts: hosts to which links and images stay as they are. So do fenced blocks of code, except for commands to
    bots, unless the text has indented ones, whose end GitHub and this function could see at different places. A block
    that GitHub would render, such as a diagram, becomes plain code. One that nothing closes becomes text.
    is_followed_by_code: whether a block of code follows, which must not be within one that the text leaves open. In a
    text with indented blocks, others become text then.
    """
    visible = without_hidden(shortened(text, most_bytes)).replace("\r\n", "\n").replace("\r", "\n")
    if _INDENTED_FENCE.search(visible):
        plain = _neutralised_text(visible, known_hosts)
        return without_commands(_without_fences(plain) if is_followed_by_code else plain)[:most_bytes]
    parts, room = list[str](), most_bytes  # the inserted spaces may make it longer
    for is_code, block in _blocks(visible):
        part = without_commands(_plain(block) if is_code else _without_fences(_neutralised_text(block, known_hosts)))
        if len(part) > room:
            parts += [] if is_code else [part[:room]]
            break
        parts.append(part)
        room -= len(part) + len("\n")
    return "\n".join(parts)


def _without_fences(text: str) -> str:
    return _OUTER_FENCE.sub(rf"\1{BREAK}", text)


def _blocks(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the text in parts, with whether each is a closed block of code between fences at the start of a line."""
    lines, start, number = text.split("\n"), 0, 0
    closing = [(at, found[1]) for at, line in enumerate(lines) if (found := _CLOSING_FENCE.fullmatch(line))]
    unclosed = {"`": len(text), "~": len(text)}  # the length of the shortest fence that no later line closes
    while number < len(lines):
        opened = _FENCE.fullmatch(lines[number])
        fence = opened and (opened[1] or opened[2])
        number += 1
        if not fence or len(fence) >= unclosed[fence[0]]:
            continue
        end = _end_of_code(closing, number, fence)
        if end is None:
            unclosed[fence[0]] = len(fence)
            continue
        if start < number - 1:
            yield False, "\n".join(lines[start : number - 1])
        yield True, "\n".join(lines[number - 1 : end + 1])
        start = number = end + 1
    if start < len(lines):
        yield False, "\n".join(lines[start:])


def _end_of_code(closing: Sequence[tuple[int, str]], first: int, fence: str) -> int | None:
    """Return the number of the line that closes the fence; None if there is none.

    closing: the number and fence of each line that may close one. first: the first line after the opening fence.
    """
    begin = bisect_left(closing, first, key=itemgetter(0))
    return next((closing[at][0] for at in range(begin, len(closing)) if closing[at][1].startswith(fence)), None)


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
    return neutralised(cut, known_hosts, 4 * most_characters + 200)[:most_characters]


def code_block(text: str, language: str = "") -> str:
    """Return `text` between fences that it cannot close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"

"""Reads a PDF: `python -I -m labrats.executor.pdf_reader FILE` prints its sections as JSON.

A PDF is the work of somebody outside and its parser is native code, so this is a program of its own, which can take
neither much time nor much memory, writes nothing and has no network. It knows nothing of the attempt.
"""

import contextlib
import ctypes
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from labrats.model.record import Record, encode

CPU_SECONDS: Final = 10
MEMORY_BYTES: Final = 1024**3
UNTITLED: Final = "Untitled"
MAX_PAGES: Final = 5_000
MAX_SECTIONS: Final = 1_000
MAX_TEXT_CHARACTERS: Final = 20_000_000

_MAX_DEPTH: Final = 6
_TITLE_CHARACTERS: Final = 300
_HEADING_CHARACTERS: Final = 120
_HEADING_HEIGHT: Final = 1.12
"""How much taller than the text around it a line is that is a heading. Measured on manuals of known outline."""

_NAMESPACES: Final = 0x10000000 | 0x40000000
"""A user namespace, and in it a network namespace, which has no interface but a loopback that is down."""


class Section(Record):
    """A part of the document. Pages count from 1."""

    title: str
    level: int
    page_start: int
    page_end: int
    text: str


class Document(Record):
    """What was found in the file, or why it could not be read."""

    title: str = ""
    sections: tuple[Section, ...] = ()
    unreadable: str | None = None


@dataclass(frozen=True)
class Heading:
    """Where a section begins: on a page (from 0) and there at a height; None means its top."""

    title: str
    level: int
    page: int
    top: float | None = None


class UnreadablePdf(Exception):
    """The file cannot be read; the text says why, for whoever sent it."""


def main(path: str) -> int:
    limit_this_process()
    try:
        document = read(path)
    except UnreadablePdf as reason:
        document = Document(unreadable=str(reason))
    sys.stdout.buffer.write(encode(document))
    return 0


def limit_this_process() -> None:
    """From here on: little time, bounded memory, no file to write, and where the kernel allows it, no network."""
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    ctypes.CDLL(None).unshare(_NAMESPACES)  # where it fails, what is around the attempt keeps it from the network


def read(path: str) -> Document:
    """The PDF's title and sections. Raises Unreadable."""
    import pypdfium2  # native code: nothing else may load it

    try:
        document = pypdfium2.PdfDocument(path)
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        raise UnreadablePdf(_reason(str(error))) from error
    if not 0 < pages <= MAX_PAGES:
        raise UnreadablePdf("it has no pages" if pages <= 0 else f"it has {pages} pages, more than {MAX_PAGES}")
    try:
        headings = list(_outline(document)) or list(_headings_by_height(document))
        title = _one_line(document.get_metadata_value("Title")) or next((each.title for each in headings), "")
        sections = list(_sections(document, headings, title or UNTITLED))
    except pypdfium2.PdfiumError as error:
        raise UnreadablePdf("one of its pages is broken") from error
    if not any(section.text.strip() for section in sections):
        raise UnreadablePdf("there is no text in it; pictures of text are not read")
    return Document(title=title or UNTITLED, sections=tuple(sections))


def _reason(message: str) -> str:
    return "it is encrypted; a password is needed to open it" if "assword" in message else "it is broken, or no PDF"


def _outline(document: Any) -> Iterator[Heading]:
    """The document's own table of contents, as far as it leads to pages, in the order of the pages."""
    found = []
    for entry in document.get_toc(max_depth=_MAX_DEPTH):
        title, destination = _one_line(entry.get_title()), entry.get_dest()
        page = destination.get_index() if destination else None
        if title and page is not None and 0 <= page < len(document):
            found.append(Heading(title, entry.level + 1, page, _top_of(destination)))
        if len(found) > MAX_SECTIONS:
            raise UnreadablePdf(f"its outline has more than {MAX_SECTIONS} entries")
    yield from sorted(found, key=lambda heading: heading.page)


def _top_of(destination: Any) -> float | None:
    """How high on its page a destination is, in points from the bottom, where it says so."""
    import pypdfium2.raw as pdfium

    mode, position = destination.get_view()
    if mode == pdfium.PDFDEST_VIEW_XYZ and len(position) > 1:
        return float(position[1]) or None
    return None


def _headings_by_height(document: Any) -> Iterator[Heading]:
    """Lines that are taller than most of the text. The tallest are of level 1, and there are three levels."""
    lines = [(page, *line) for page in range(len(document)) for line in _lines(document, page)]
    heights: Counter[float] = Counter()
    for _, text, height, _ in lines:
        heights[height] += len(text)
    body = heights.most_common(1)[0][0] if heights else 0.0
    tall = [line for line in lines if line[2] > body * _HEADING_HEIGHT and len(line[1]) <= _HEADING_CHARACTERS]
    levels = {height: min(rank, 3) for rank, height in enumerate(sorted({each[2] for each in tall}, reverse=True), 1)}
    for page, text, height, top in tall[:MAX_SECTIONS]:
        yield Heading(_one_line(text), levels[height], page, top)


def _lines(document: Any, number: int) -> Iterator[tuple[str, float, float]]:
    """The lines of a page that say something: text, height of a letter in half points, and how high it stands."""
    with _text_of(document, number) as text_page:
        start = 0
        for line in text_page.get_text_range().split("\r\n"):
            letter = next((at for at, character in enumerate(line) if character.isalnum()), None)
            if letter is not None:
                _, bottom, _, top = text_page.get_charbox(start + letter, loose=True)
                yield line.strip(), round((top - bottom) * 2) / 2, top
            start += len(line) + 2


@contextlib.contextmanager
def _text_of(document: Any, number: int) -> Iterator[Any]:
    page = document[number]
    text_page = page.get_textpage()
    try:
        yield text_page
    finally:
        text_page.close()
        page.close()


def _sections(document: Any, headings: Sequence[Heading], title: str) -> Iterator[Section]:
    """What is between the headings, and what is before the first one where that is anything."""
    whole = Heading(title, 1, 0)
    starts = list(headings) or [whole]
    end = Heading("", 0, len(document))
    left = MAX_TEXT_CHARACTERS
    begins_later = starts[0].page > 0 or starts[0].top is not None
    if begins_later and (front := _between(document, whole, starts[0])).text:
        yield front
        left -= len(front.text)
    for start, following in zip(starts, [*starts[1:], end], strict=True):
        section = _between(document, start, following)
        left -= len(section.text)
        if left < 0:
            raise UnreadablePdf(f"it has more than {MAX_TEXT_CHARACTERS} characters of text")
        yield section


def _between(document: Any, start: Heading, end: Heading) -> Section:
    """From where `start` stands to where `end` does."""
    ends_inside = end.page < len(document) and end.top is not None
    last = end.page if ends_inside else max(start.page, end.page - 1)
    texts = []
    for number in range(start.page, last + 1):
        top = start.top if number == start.page else None
        bottom = end.top if ends_inside and number == end.page else None
        with _text_of(document, number) as text_page:
            texts.append(_tidy(text_page.get_text_bounded(top=top, bottom=bottom)))
    while len(texts) > 1 and not texts[-1]:  # the next one begins at the top of its page
        texts.pop()
    return Section(
        title=start.title,
        level=start.level,
        page_start=start.page + 1,
        page_end=start.page + len(texts),
        text="\n".join(texts).strip(),
    )


def _tidy(text: str) -> str:
    lines = (line.rstrip() for line in text.replace("\r\n", "\n").replace("\0", "").split("\n"))
    return "\n".join(lines).strip()


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:_TITLE_CHARACTERS]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

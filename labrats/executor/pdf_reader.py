"""Read a PDF: `python -I -m labrats.executor.pdf_reader < FILE` prints its sections as JSON.

A PDF is untrusted and its parser is native code. This is therefore a separate program with limited time and memory
and without a network, in the attempt's sandbox. It knows nothing about the attempt.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from labrats.executor.limited_program import limit_this_process
from labrats.model.record import Record, encode

UNTITLED: Final = "Untitled"
MAX_PAGES: Final = 5_000
MAX_SECTIONS: Final = 1_000
MAX_TEXT_CHARACTERS: Final = 20_000_000

_MAX_DEPTH: Final = 6
_TITLE_CHARACTERS: Final = 300
_HEADING_CHARACTERS: Final = 120
_HEADING_HEIGHT: Final = 1.12
"""Ratio to the height of the body text from which a line is a heading. Measured on manuals with a known outline."""


class Section(Record):
    """A part of the document. Page numbers start at 1."""

    title: str
    level: int
    page_start: int
    page_end: int
    text: str


class Document(Record):
    """The content of the file. unreadable: the reason why it could not be read."""

    title: str = ""
    sections: tuple[Section, ...] = ()
    unreadable: str | None = None


@dataclass(frozen=True)
class Heading:
    """The start of a section. page: starts at 0. top: height on the page in points; None for the top of the page."""

    title: str
    level: int
    page: int
    top: float | None = None


class UnreadablePdf(Exception):
    """The file cannot be read. The message is shown to the user."""


def main() -> int:
    limit_this_process()
    try:
        document = read(sys.stdin.buffer)
    except UnreadablePdf as reason:
        document = Document(unreadable=str(reason))
    sys.stdout.buffer.write(encode(document))
    return 0


def read(pdf: BinaryIO) -> Document:
    """Return the title and sections of a PDF. Raises UnreadablePdf."""
    import pypdfium2  # native code, which no other process may load

    try:
        document = pypdfium2.PdfDocument(pdf)
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
        raise UnreadablePdf("one of its pages is damaged") from error
    if not any(section.text.strip() for section in sections):
        raise UnreadablePdf("it contains no text; text in images is not recognised")
    return Document(title=title or UNTITLED, sections=tuple(sections))


def _reason(message: str) -> str:
    return (
        "it is encrypted; upload a copy without a password" if "assword" in message else "it is damaged, or not a PDF"
    )


def _outline(document: Any) -> Iterator[Heading]:
    """Yield the entries of the document's outline that point to a page, in the order of the pages."""
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
    """Return the height of a destination on its page, in points from the bottom, or None if it has none."""
    import pypdfium2.raw as pdfium

    mode, position = destination.get_view()
    if mode == pdfium.PDFDEST_VIEW_XYZ and len(position) > 1:
        return float(position[1]) or None
    return None


def _headings_by_height(document: Any) -> Iterator[Heading]:
    """Yield the lines that are taller than most of the text, as headings of three levels by their height."""
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
    """Yield the non-blank lines of a page: text, height of a letter to half a point, and position of the top."""
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
    """Yield the sections between the headings, and the text before the first heading if there is any."""
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
    """Return the section from heading `start` to heading `end`."""
    ends_inside = end.page < len(document) and end.top is not None
    last = end.page if ends_inside else max(start.page, end.page - 1)
    texts = []
    for number in range(start.page, last + 1):
        top = start.top if number == start.page else None
        bottom = end.top if ends_inside and number == end.page else None
        with _text_of(document, number) as text_page:
            texts.append(_tidy(text_page.get_text_bounded(top=top, bottom=bottom)))
    while len(texts) > 1 and not texts[-1]:  # the next section starts at the top of its page
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
    sys.exit(main())

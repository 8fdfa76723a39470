"""PDFs for tests, written without a library so that a test controls every object in the file."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A line of text on a page. y: distance from the bottom, in points."""

    text: str
    y: float
    size: float = 10


@dataclass(frozen=True)
class Entry:
    """An entry of the outline. page: from 0. y: the position on the page; None to point to the page as a whole."""

    title: str
    page: int
    y: float | None = None
    children: Sequence["Entry"] = ()


def a_pdf(pages: Sequence[Sequence[Line]], outline: Sequence[Entry] = (), title: str = "A manual") -> bytes:
    """Return a PDF of A4 pages with text in Helvetica."""
    objects: dict[int, bytes] = {3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"}
    objects[4] = b"<< /Title (%s) >>" % title.encode()
    kids = []
    for lines in pages:
        content = b"".join(
            b"BT /F1 %g Tf 50 %g Td (%s) Tj ET\n" % (each.size, each.y, each.text.encode()) for each in lines
        )
        stream, page = len(objects) + 3, len(objects) + 4
        objects[stream] = a_stream(content)
        objects[page] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % stream
        )
        kids.append(page)
    objects[2] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(b"%d 0 R" % kid for kid in kids), len(kids))
    outlines = b""
    if outline:
        root = max(objects) + 1
        objects[root] = b""
        first, last = _add_entries(objects, outline, root, kids)
        objects[root] = b"<< /Type /Outlines /First %d 0 R /Last %d 0 R /Count %d >>" % (first, last, len(outline))
        outlines = b"/Outlines %d 0 R" % root
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R %s >>" % outlines
    return a_file(objects, trailer=b"/Info 4 0 R")


def _add_entries(
    objects: dict[int, bytes], entries: Sequence[Entry], parent: int, pages: Sequence[int]
) -> tuple[int, int]:
    numbers = [max(objects) + 1 + place for place in range(len(entries))]
    objects |= dict.fromkeys(numbers, b"")
    for place, (number, entry) in enumerate(zip(numbers, entries, strict=True)):
        view = b"/Fit" if entry.y is None else b"/XYZ 0 %g 0" % entry.y
        parts = [b"/Title (%s) /Parent %d 0 R" % (entry.title.encode(), parent)]
        parts.append(b"/Dest [%d 0 R %s]" % (pages[entry.page], view))
        if place > 0:
            parts.append(b"/Prev %d 0 R" % numbers[place - 1])
        if place < len(numbers) - 1:
            parts.append(b"/Next %d 0 R" % numbers[place + 1])
        if entry.children:
            first, last = _add_entries(objects, entry.children, number, pages)
            parts.append(b"/First %d 0 R /Last %d 0 R /Count %d" % (first, last, len(entry.children)))
        objects[number] = b"<< %s >>" % b" ".join(parts)
    return numbers[0], numbers[-1]


def a_stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), entries, content)


def a_file(objects: dict[int, bytes], trailer: bytes = b"") -> bytes:
    """Return a PDF with these objects. Object 1 is the catalog."""
    body, offsets = b"%PDF-1.7\n", {}
    parts = [body]
    length = len(body)
    for number, content in sorted(objects.items()):
        offsets[number] = length
        part = b"%d 0 obj\n%s\nendobj\n" % (number, content)
        parts.append(part)
        length += len(part)
    size = max(objects) + 1
    entries = [
        b"%010d 00000 n \n" % offsets[each] if each in offsets else b"0000000000 65535 f \n" for each in range(size)
    ]
    parts.append(b"xref\n0 %d\n%s" % (size, b"".join(entries)))
    parts.append(b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, length))
    return b"".join(parts)


def a_manual() -> bytes:
    """Return a PDF with a front page, two further pages, a two-level outline, and sections that begin mid-page."""
    pages = [
        [Line("The front page", 700)],
        [Line("One", 700), Line("What one says.", 650), Line("One, closer", 400), Line("Details of one.", 350)],
        [Line("More details.", 700), Line("Two", 400), Line("What two says.", 350)],
    ]
    return a_pdf(pages, [Entry("One", 1, 715, [Entry("One, closer", 1, 415)]), Entry("Two", 2, 415)])


def without_outline() -> bytes:
    """Return a PDF without an outline, whose headings have a larger font than its text."""
    text = [Line(f"An ordinary line of the text, number {number}.", 600 - 20 * number) for number in range(10)]
    return a_pdf([[Line("Introduction", 700, 20), *text], [Line("Methods", 700, 20), Line("A detail", 650, 14), *text]])


def encrypted() -> bytes:
    """Return a PDF that is encrypted with an unknown password."""
    key = b"<" + b"41" * 32 + b">"
    handler = b"/Encrypt << /Filter /Standard /V 2 /R 3 /Length 128 /P -44 /O %s /U %s >> /ID [<00><00>]" % (key, key)
    return a_manual().replace(b"/Info 4 0 R", handler)


def an_inflating_page(size: int) -> bytes:
    """Return a PDF whose page has two layers of compression and inflates to `size` bytes. size: several MiB."""
    packer = zlib.compressobj(9)
    head = packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)  # self-contained, so it can be repeated
    packed = head + again * (size // 2**20 - 2) + packer.compress(b" " * 2**20) + packer.flush()
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R >>"
    return a_file(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            3: page,
            4: a_stream(zlib.compress(packed, 9), b"/Filter [/FlateDecode /FlateDecode]"),
        }
    )


def many_pages(count: int) -> bytes:
    """Return a PDF that lists the same page `count` times in its page tree."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b"3 0 R " * count, count),
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>",
    }
    return a_file(objects)


def deep_pages(depth: int) -> bytes:
    """Return a PDF of one page, in a page tree with `depth` levels."""
    objects = {1: b"<< /Type /Catalog /Pages 2 0 R >>"}
    for number in range(2, depth + 2):
        objects[number] = b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (number + 1)
    objects[depth + 2] = b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] >>" % (depth + 1)
    return a_file(objects)


def endless_outline() -> bytes:
    """Return a PDF whose outline is a cycle: its last entry leads back to the first one."""
    manual = a_pdf([[Line("Text", 700)]], [Entry("One", 0), Entry("Two", 0)])
    first = manual.index(b"/Title (Two)")
    prev = manual.index(b"/Prev ", first)
    number = manual[prev + 6 : manual.index(b" 0 R", prev)]
    return manual.replace(b"/Prev %s 0 R" % number, b"/Next %s 0 R" % number)

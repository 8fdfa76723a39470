"""The redaction of the key in a stream, which delays no more than the key's beginning."""

import pytest

from labrats.executor.key_proxy.responses import KeyRedactor

KEY = b"sk-test-a/b"
HIDDEN = b"*" * len(KEY)


@pytest.mark.parametrize(
    "text", [b"before %s after", b"%s", b"s sk sk-test %s sk-test-a", b"\\u0073k-test-a\\/b and %s"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_key_is_hidden_in_pieces_of_any_size(text: bytes, size: int) -> None:
    whole = text.replace(b"%s", KEY)
    redactor = KeyRedactor(KEY)
    parts = [redactor.feed(whole[at : at + size]) for at in range(0, len(whole), size)]
    sent = b"".join([*parts, redactor.flush()])
    assert KEY not in sent
    assert sent.count(HIDDEN) >= 1
    assert len(sent) == len(whole)


@pytest.mark.parametrize("part", [b'data: {"type":"ping"}\n\n', b"nothing of it", b"ask-test-b", b""])
def test_text_with_which_no_key_can_begin_is_sent_at_once(part: bytes) -> None:
    assert KeyRedactor(KEY).feed(part) == part


@pytest.mark.parametrize(("part", "sent"), [(b"x sk-t", b"x "), (b"x \\u0073k-", b"x "), (b"x \\u00", b"x ")])
def test_possible_beginning_of_the_key_waits_for_what_follows(part: bytes, sent: bytes) -> None:
    redactor = KeyRedactor(KEY)
    assert redactor.feed(part) == sent
    assert redactor.feed(b" other") == part[len(sent) :] + b" other"


def test_empty_key_delays_and_hides_nothing() -> None:
    assert KeyRedactor(b"").feed(b"***") == b"***"

"""Compression of objects that resemble each other."""

import os

from hypothesis import given
from hypothesis import strategies as st

from labrats.backends.kubernetes.packing import Packer


@given(st.lists(st.binary(max_size=2_000), max_size=5))
def test_unpacked_texts_equal_the_packed_ones(texts: list[bytes]) -> None:
    packer = Packer()
    packed = [packer.pack(text) for text in texts]
    assert [packer.unpack(each) for each in packed] == texts


def test_texts_longer_than_the_window_are_unpacked_completely() -> None:
    packer, texts = Packer(), [os.urandom(20_000) * 2, b"x" * 100_000, os.urandom(10_000)]
    packed = [packer.pack(text) for text in texts]
    assert [packer.unpack(each) for each in packed] == texts


def test_text_that_resembles_the_first_takes_a_fraction_of_its_size() -> None:
    packer = Packer()
    packer.pack(_job("first", "opus"))
    text = _job("second", "haiku")
    assert len(packer.pack(text)) * 4 < len(text)


def _job(name: str, model: str) -> bytes:
    return (
        f'{{"metadata":{{"name":"{name}","uid":"{os.urandom(16).hex()}"}},"spec":{{"source":"github","type":"fix",'
        f'"config":{{"provider":"claude","model":"{model}","timeoutMs":3300000}}}},"status":{{"phase":"Succeeded",'
        f'"attempts":1,"startedAt":"2026-11-27T01:56:27Z","finishedAt":"2026-11-27T01:57:27Z"}}}}'
    ).encode()

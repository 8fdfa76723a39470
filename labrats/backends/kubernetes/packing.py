"""Compression of many similar, small texts."""

import zlib
from typing import Final

_WINDOW_BITS: Final = -12
"""A window of 4 KiB without header or checksum. Larger windows cost far more time to set up than they save."""

_MEMORY_LEVEL: Final = 5

_LEVEL: Final = 3
"""For such texts, smaller and faster than level 1. Higher levels take more time."""


class Packer:
    """Compresses texts that resemble each other. The first one becomes the dictionary of all others."""

    def __init__(self) -> None:
        self._dictionary = b""

    def pack(self, text: bytes) -> bytes:
        """Return the text in compressed form, which only this packer can unpack."""
        self._dictionary = self._dictionary or text
        packer = zlib.compressobj(
            _LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, self._dictionary
        )
        return packer.compress(text) + packer.flush()

    def unpack(self, packed: bytes) -> bytes:
        """Return the text that was packed."""
        return zlib.decompressobj(_WINDOW_BITS, self._dictionary).decompress(packed)

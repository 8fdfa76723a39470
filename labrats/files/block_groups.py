"""Placement of folders on an ext4 file system, which divides its disk into block groups."""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

# From <linux/fs.h>. The kernel reads and writes 32 bits, although the calls are declared with a long.
_GET_FLAGS: Final = 0x8008_6601
_SET_FLAGS: Final = 0x4008_6602
_TOP_OF_HIERARCHIES: Final = 0x0002_0000
_FLAGS: Final = struct.Struct("Ixxxx")


def spread_subfolders(folder: Path) -> None:
    """Create `folder`, and let ext4 spread its new subfolders over the disk, like `chattr +T`.

    By default, ext4 puts a subfolder and its files beside its siblings, and searches the inodes there one by one for a
    free one that was not deleted in the last minutes. Right after the deletion of old attempts, that took a third of
    the processor time of all new ones. Other file systems have no such flag. Any error is ignored, since only the speed
    depends on the flag, and later writes report what is wrong with the folder.
    """
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            (flags,) = _FLAGS.unpack(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(_FLAGS.size)))
            fcntl.ioctl(descriptor, _SET_FLAGS, _FLAGS.pack(flags | _TOP_OF_HIERARCHIES))
        finally:
            os.close(descriptor)

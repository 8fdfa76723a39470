"""Tests of the standard error of an agent's program."""

import asyncio
import os

from labrats.executor.providers.standard_error import MOST_BYTES, StandardError

LINE = b"x" * 65535 + b"\n"


def test_beginning_and_end_are_kept() -> None:
    with StandardError() as errors:
        for part in (b"first\n", *[LINE] * 5, b"last\n"):
            os.write(errors.writable, part)
            errors.finish()

        assert errors.beginning.startswith("first\n")
        assert errors.end.endswith("\nlast\n")
        assert len(errors.beginning) == len(errors.end) == 65536


def test_text_that_was_just_written_is_read() -> None:
    with StandardError() as errors:
        os.write(errors.writable, b"failed \xff\n")

        assert errors.end == "failed \N{REPLACEMENT CHARACTER}\n"


async def test_writer_of_much_output_is_reported_and_not_blocked() -> None:
    overflowed = asyncio.Event()
    with StandardError() as errors:
        errors.follow(overflowed.set)
        writer = asyncio.to_thread(
            lambda: [os.write(errors.writable, LINE) for _ in range(MOST_BYTES // len(LINE) + 1)]
        )
        await asyncio.wait_for(writer, 60)
        await asyncio.wait_for(overflowed.wait(), 60)

        assert errors.has_overflowed

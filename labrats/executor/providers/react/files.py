"""The tools that read and write files, in the workspace and nowhere else."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.executor.providers.react.arguments import EditFile, InvalidToolCall, ListFiles, ReadFile, WriteFile
from labrats.files.safe_paths import folder_beneath, open_to_read, write_beneath

_FILE_BYTES: Final = 16 * 1024 * 1024
_ENTRIES: Final = 1000


@dataclass(frozen=True)
class FileTools:
    """workspace: where the model works. notes: a folder that it may read besides. page_characters: what it is shown
    of a file at once.
    """

    workspace: Path
    notes: Path
    page_characters: int

    def read(self, call: ReadFile) -> str:
        """The lines asked for, as many as fit."""
        lines = _decoded(self._content(call.path)).removesuffix("\n").split("\n")
        return page_of(lines, call.offset, call.limit, self.page_characters)

    def write(self, call: WriteFile) -> str:
        """Says how much was written."""
        content = call.content.encode("utf-8", "replace")
        write_beneath(self.workspace, self.name(call.path), content)
        return f"{len(content)} bytes were written to {call.path}."

    def edit(self, call: EditFile) -> str:
        """Says what was done. Raises InvalidToolCall where the piece is not there exactly once."""
        name = self.name(call.path)
        with open_to_read(self.workspace, name) as file:
            text = _decoded(_bounded(file.read(_FILE_BYTES + 1), call.path), "strict")
        if (count := text.count(call.old)) != 1:
            where = "does not occur" if count == 0 else f"occurs {count} times"
            raise InvalidToolCall(
                f"`old` {where} in {call.path}. Give a piece of it exactly as it is, with enough around it."
            )
        write_beneath(self.workspace, name, text.replace(call.old, call.new).encode("utf-8", "replace"))
        return f"{call.path} was edited."

    def list(self, call: ListFiles) -> str:
        """One entry a line: folders end in a slash, links show where they lead."""
        with folder_beneath(self.workspace, self.name(call.path)) as folder:
            entries = sorted(_described(entry, folder) for entry in os.scandir(folder))
        more = [f"[{len(entries) - _ENTRIES} more]"] if len(entries) > _ENTRIES else []
        return "\n".join(entries[:_ENTRIES] + more) or "The folder is empty."

    def name(self, path: str) -> str:
        """`path` relative to the workspace; empty for the workspace itself."""
        return _below(self.workspace, path) if path.startswith("/") else _tidy(path)

    def _content(self, path: str) -> bytes:
        root = self.notes if path.startswith(f"{self.notes}/") else self.workspace
        with open_to_read(root, _below(root, path) if path.startswith("/") else _tidy(path)) as file:
            return _bounded(file.read(_FILE_BYTES + 1), path)


def page_of(lines: Sequence[str], offset: int, limit: int, characters: int) -> str:
    """Lines from `offset` (1 is the first) on, at most `limit` of them and about `characters` in all, but at least one.
    A note says what is missing.
    """
    if lines == [""]:
        return "The file is empty."
    if offset > len(lines):
        return f"The file has only {len(lines)} lines."
    shown = list(_fitting(lines[offset - 1 : offset - 1 + limit], characters))
    last = offset - 1 + len(shown)
    if offset == 1 and last == len(lines):
        return "\n".join(shown)
    onward = f"; go on with offset {last + 1}" if last < len(lines) else ""
    return "\n".join([*shown, f"[lines {offset} to {last} of {len(lines)}{onward}]"])


def _fitting(lines: Sequence[str], characters: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number and len(line) > characters:
            return
        cut = len(line) > characters
        yield f"{line[:characters]} [… the line has {len(line)} characters]" if cut else line
        characters -= len(line) + 1


def _below(root: Path, path: str) -> str:
    if not f"{path}/".startswith(f"{root}/"):
        raise InvalidToolCall(f"{path!r} is not inside the workspace. Paths are relative to it.")
    return _tidy(path.removeprefix(str(root)))


def _tidy(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _bounded(content: bytes, path: str) -> bytes:
    if len(content) > _FILE_BYTES:
        raise InvalidToolCall(
            f"{path} is larger than {_FILE_BYTES // 1024**2} MiB. Read a part of it with run_command."
        )
    return content


def _decoded(content: bytes, errors: str = "replace") -> str:
    if b"\0" in content:
        raise InvalidToolCall(f"This is no text, but {len(content)} bytes of something else.")
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise InvalidToolCall("The file is not UTF-8, so it cannot be edited as text.") from error


def _described(entry: "os.DirEntry[str]", folder: int) -> str:
    if entry.is_symlink():
        return f"{entry.name} -> {os.readlink(entry.name, dir_fd=folder)}"
    return f"{entry.name}/" if entry.is_dir() else entry.name

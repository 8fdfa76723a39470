"""The tools that read and write files, confined to the workspace."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.executor.providers.react.arguments import EditFile, InvalidToolCall, ListFiles, ReadFile, WriteFile
from labrats.executor.providers.react.observations import FOLDER
from labrats.files.safe_paths import open_folder_inside, open_inside, write_inside

_FILE_BYTES: Final = 16 * 1024 * 1024
_ENTRIES: Final = 1000


@dataclass(frozen=True)
class FileTools:
    """Reads and writes files.

    workspace:       the folder in which the model works.
    scratch:         the folder of the model's programs with `observations`, which the model may read, too.
    page_characters: the size of the part of a file that the model is shown at once.
    """

    workspace: Path
    scratch: Path
    page_characters: int

    def read(self, call: ReadFile) -> str:
        """Return the requested lines, as many as fit."""
        lines = _decode(self._content(call.path)).removesuffix("\n").split("\n")
        return page_of(lines, call.offset, call.limit, self.page_characters)

    def write(self, call: WriteFile) -> str:
        """Write the file, and return a message with its size."""
        content = call.content.encode("utf-8", "replace")
        write_inside(self.workspace, self.name(call.path), content)
        return f"Wrote {len(content)} bytes to {call.path}."

    def edit(self, call: EditFile) -> str:
        """Replace a part of the file, and return a message. Raises InvalidToolCall unless it occurs exactly once."""
        name = self.name(call.path)
        with open_inside(self.workspace, name) as file:
            text = _decode(_check_size(file.read(_FILE_BYTES + 1), call.path), "strict")
        if (count := text.count(call.old)) != 1:
            problem = "does not occur" if count == 0 else f"occurs {count} times"
            raise InvalidToolCall(
                f"`old` {problem} in {call.path}. Give a piece of it exactly as it is, long enough to be unique."
            )
        write_inside(self.workspace, name, text.replace(call.old, call.new).encode("utf-8", "replace"))
        return f"Edited {call.path}."

    def list(self, call: ListFiles) -> str:
        """Return one entry per line. Folders end with a slash, links are shown with their targets."""
        with open_folder_inside(self.workspace, self.name(call.path)) as folder:
            entries = sorted(_describe(entry, folder) for entry in os.scandir(folder))
        more = [f"[{len(entries) - _ENTRIES} more]"] if len(entries) > _ENTRIES else []
        return "\n".join(entries[:_ENTRIES] + more) or "The folder is empty."

    def name(self, path: str) -> str:
        """Return `path` relative to the workspace; an empty string for the workspace itself."""
        return _relative_to(self.workspace, path) if path.startswith("/") else _normalize(path)

    def _content(self, path: str) -> bytes:
        # From the scratch folder on: a program of the model may have replaced the folder in it by a link.
        root = self.scratch if path.startswith(f"{self.scratch / FOLDER}/") else self.workspace
        with open_inside(root, _relative_to(root, path) if path.startswith("/") else _normalize(path)) as file:
            return _check_size(file.read(_FILE_BYTES + 1), path)


def page_of(lines: Sequence[str], offset: int, limit: int, characters: int) -> str:
    """Return the lines from `offset` (starting at 1): at most `limit` lines and about `characters`, but at least one.

    If lines are missing, a note with their numbers follows.
    """
    if lines == [""]:
        return "The file is empty."
    if offset > len(lines):
        return f"The file has only {len(lines)} lines."
    shown = list(_fitting(lines[offset - 1 : offset - 1 + limit], characters))
    last = offset - 1 + len(shown)
    if offset == 1 and last == len(lines):
        return "\n".join(shown)
    hint = f"; continue with offset {last + 1}" if last < len(lines) else ""
    return "\n".join([*shown, f"[lines {offset} to {last} of {len(lines)}{hint}]"])


def _fitting(lines: Sequence[str], characters: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number and len(line) > characters:
            return
        cut = len(line) > characters
        yield f"{line[:characters]} [… the line has {len(line)} characters]" if cut else line
        characters -= len(line) + 1


def _relative_to(root: Path, path: str) -> str:
    if not f"{path}/".startswith(f"{root}/"):
        raise InvalidToolCall(f"{path!r} is not inside the workspace. Paths are relative to it.")
    return _normalize(path.removeprefix(str(root)))


def _normalize(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _check_size(content: bytes, path: str) -> bytes:
    if len(content) > _FILE_BYTES:
        raise InvalidToolCall(
            f"{path} is larger than {_FILE_BYTES // 1024**2} MiB. Read a part of it with run_command."
        )
    return content


def _decode(content: bytes, errors: str = "replace") -> str:
    if b"\0" in content:
        raise InvalidToolCall(f"This is not a text file. It has {len(content)} bytes.")
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise InvalidToolCall("The file is not UTF-8, so it cannot be edited as text.") from error


def _describe(entry: "os.DirEntry[str]", folder: int) -> str:
    if entry.is_symlink():
        return f"{entry.name} -> {os.readlink(entry.name, dir_fd=folder)}"
    return f"{entry.name}/" if entry.is_dir() else entry.name

"""YAML as kubectl reads it: strictly, and nothing but JSON's kinds of values."""

import re
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final

import yaml

from labrats.cli.exits import CommandError, ExitCode

MAX_BYTES: Final = 8 * 2**20
MAX_VALUES: Final = 200_000
"""A document holds no more values than this, each one counted wherever an alias repeats it."""

SUFFIXES: Final = (".yaml", ".yml", ".json")
_ODD_BREAKS: Final = re.compile("[\r\x85\u2028\u2029\ufeff]")
"""What would be read as another line's end than it is, or not at all, unless it is escaped."""

_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True)
class Document:
    """One document, and where it stands: `agents.yaml, line 12`."""

    place: str
    value: Any


def read_documents(source: str) -> Iterator[Document]:
    """The documents in a file, in the files of a folder, or, for `-`, on standard input. Raises CommandError."""
    if source == "-":
        yield from parse_documents("standard input", sys.stdin.buffer.read(MAX_BYTES + 1))
        return
    for path in _files_at(Path(source)):
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise _wrong(f"{path}: {error.strerror}") from error
        yield from parse_documents(str(path), text)


def parse_documents(name: str, text: bytes) -> Iterator[Document]:
    """The documents in `text`, which is called `name`; empty ones are left out. Raises CommandError."""
    if len(text) > MAX_BYTES:
        raise _wrong(f"{name}: is larger than {MAX_BYTES // 2**20} MiB")
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()):
            place = f"{name}, line {node.start_mark.line + 1}"
            value = loader.construct_document(node)
            _check_values(place, value)
            if value is not None:
                yield Document(place, value)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _wrong(f"{name}{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # what is no text, or no number as it pretends to be
        raise _wrong(f"{name}: is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise _wrong(f"{name}: is nested too deeply") from error


def as_yaml(value: Any) -> str:
    """`value`, made of JSON's kinds of values, as one document that people read: texts of several lines as blocks."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _files_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not (files := sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)):
        raise _wrong(f"{path}: no file in it ends in {', '.join(SUFFIXES)}")
    return files


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice, and takes what looks like a date for a text, as kubectl does."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


class _Dumper(yaml.SafeDumper):
    """Repeats what occurs twice, rather than refer to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        if _ODD_BREAKS.search(data):
            style: str | None = '"'
        else:
            style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _check_values(place: str, value: Any) -> None:
    """Raises CommandError for what JSON has no word for, and for more than is sensible, repeated by aliases or not."""
    count, level = 1, [value]
    while level:
        children: list[Any] = []
        for each in level:
            _check_value(place, each)
            if isinstance(each, dict):
                children.extend(each.values())
            elif isinstance(each, list):
                children.extend(each)
            if count + len(children) > MAX_VALUES:
                raise _wrong(f"{place}: holds more than {MAX_VALUES} values, those that aliases repeat included")
        count += len(children)
        level = children


def _check_value(place: str, value: Any) -> None:
    if isinstance(value, dict):
        if stray := [key for key in value if not isinstance(key, str)]:
            raise _wrong(f"{place}: the key {stray[0]!r} must be a text; put it in quotes")
    elif isinstance(value, float):
        if not isfinite(value):
            raise _wrong(f"{place}: {value} is no number that JSON has")
    elif value is not None and not isinstance(value, str | int | list):
        raise _wrong(f"{place}: holds a {type(value).__name__}, for which JSON has no word; put it in quotes")


def _wrong(sentence: str) -> CommandError:
    return CommandError(sentence, ExitCode.USAGE)

"""Strict YAML as kubectl reads it, limited to the types of JSON."""

import re
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final

import yaml

from labrats.cli.errors import CommandError, ExitCode

MAX_BYTES: Final = 8 * 2**20
MAX_VALUES: Final = 200_000
"""The maximum number of values in a document. A value counts again for each alias of it."""

SUFFIXES: Final = (".yaml", ".yml", ".json")
_MUST_BE_ESCAPED: Final = re.compile("[\r\x85\u2028\u2029\ufeff]")
"""Characters that a YAML reader changes or drops unless they are escaped."""

_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True)
class YamlDocument:
    """A document and its position, such as `agents.yaml, line 12`."""

    place: str
    value: Any


def read_documents(source: str) -> Iterator[YamlDocument]:
    """Yield the documents in a file, in the files of a folder or, for `-`, on standard input. Raises CommandError."""
    if source == "-":
        yield from parse_documents("standard input", sys.stdin.buffer.read(MAX_BYTES + 1))
        return
    for path in _files_at(Path(source)):
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise _usage_error(f"{path}: {error.strerror}") from error
        yield from parse_documents(str(path), text)


def parse_documents(name: str, text: bytes) -> Iterator[YamlDocument]:
    """Yield the documents in `text` except empty ones. Messages call it `name`. Raises CommandError."""
    if len(text) > MAX_BYTES:
        raise _usage_error(f"{name}: is larger than {MAX_BYTES // 2**20} MiB")
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()):
            place = f"{name}, line {node.start_mark.line + 1}"
            value = loader.construct_document(node)
            _check_values(place, value)
            if value is not None:
                yield YamlDocument(place, value)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _usage_error(f"{name}{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # not text, or an invalid number
        raise _usage_error(f"{name}: is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise _usage_error(f"{name}: is nested too deeply") from error


def as_yaml(value: Any) -> str:
    """Format a JSON value as a YAML document for people: texts of several lines become blocks."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _files_at(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not (files := sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)):
        raise _usage_error(f"{path}: the folder has no file that ends in {', '.join(SUFFIXES)}")
    return files


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys and reads dates as text, as kubectl does."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"duplicate key {key.value!r}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that writes repeated values in full instead of using aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        if _MUST_BE_ESCAPED.search(data):
            style: str | None = '"'
        else:
            style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _check_values(place: str, value: Any) -> None:
    """Raise CommandError for types that JSON lacks, and for more than MAX_VALUES values."""
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
                raise _usage_error(f"{place}: has more than {MAX_VALUES} values, counting those that aliases repeat")
        count += len(children)
        level = children


def _check_value(place: str, value: Any) -> None:
    if isinstance(value, dict):
        if invalid := [key for key in value if not isinstance(key, str)]:
            raise _usage_error(f"{place}: the key {invalid[0]!r} must be a string; put it in quotes")
    elif isinstance(value, float):
        if not isfinite(value):
            raise _usage_error(f"{place}: {value} is not a JSON number")
    elif value is not None and not isinstance(value, str | int | list):
        raise _usage_error(f"{place}: has a value of type {type(value).__name__}, which JSON lacks; put it in quotes")


def _usage_error(sentence: str) -> CommandError:
    return CommandError(sentence, ExitCode.USAGE)

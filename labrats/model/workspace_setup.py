"""The preparation of a workspace before the agent starts: commands, and folders that jobs share."""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from labrats.model.errors import Problem
from labrats.model.network import Network, problem_of_stored_network
from labrats.model.record import Record

FIELD: Final = "workspaceSetup"
MOST_COMMANDS: Final = 20
MOST_WORDS: Final = 100
LONGEST_WORD: Final = 8 * 1024
COMMANDS_BYTES: Final = 32 * 1024
"""The limit on all commands of a job together, as JSON."""
MOST_CACHES: Final = 10
LONGEST_SETUP_MS: Final = 24 * 3600 * 1000
DEFAULT_SETUP_MS: Final = 10 * 60 * 1000

_PATH: Final = re.compile(
    r"(?!(?:.*/)?(?:\.\.?|\.git)(?:/|$))[^/\0-\x1f\\\x7f]+(?:/[^/\0-\x1f\\\x7f]+)*", re.IGNORECASE
)
_LONGEST_PATH: Final = 500


class CachedFolder(Record):
    """A folder of the workspace that later jobs get as it was after the commands.

    key:  a file in the workspace. Jobs share the folder while its content is the same.
    path: the folder.
    """

    key: str
    path: str


class Setup(Record):
    """The preparation of a workspace. None where a job or an agent sets nothing.

    setup:            commands, each the list of a program and its arguments. They run one after the other.
    setup_timeout_ms: the time for all commands together.
    setup_network:    the network rule of the commands; None for that of the agent.
    cache:            folders that the commands fill.
    """

    setup: tuple[tuple[str, ...], ...] | None = None
    setup_timeout_ms: int | None = None
    setup_network: Network | None = None
    cache: tuple[CachedFolder, ...] | None = None

    def over(self, other: "Setup") -> "Setup":
        """Return this setup, with the values of `other` for the fields that are not set."""
        return Setup(**(other.as_fields() | self.as_fields()))

    def as_fields(self) -> dict[str, Any]:
        """Return the values that are set, by field."""
        values = {name: getattr(self, name) for name in Setup.__struct_fields__}
        return {name: value for name, value in values.items() if value is not None}


def problem_of_setup(setup: Setup) -> Problem | None:
    """Return the first problem of a setup, with its field; None if it is valid."""
    return next(_problems(setup), None)


def _problems(setup: Setup) -> Iterator[Problem]:
    commands = setup.setup or ()
    if len(commands) > MOST_COMMANDS:
        yield Problem(f"{FIELD}.setup", f"must have at most {MOST_COMMANDS} commands")
    for number, command in enumerate(commands):
        if problem := _problem_of_command(command):
            yield Problem(f"{FIELD}.setup[{number}]", problem)
    if len(msgspec.json.encode(commands)) > COMMANDS_BYTES:
        yield Problem(f"{FIELD}.setup", f"must be at most {COMMANDS_BYTES // 1024} KiB in total")
    if setup.setup_timeout_ms is not None and not 1 <= setup.setup_timeout_ms <= LONGEST_SETUP_MS:
        yield Problem(f"{FIELD}.setupTimeoutMs", f"must be 1 to {LONGEST_SETUP_MS} milliseconds")
    if setup.setup_network is not None and (problem := problem_of_stored_network(setup.setup_network)):
        yield Problem(f"{FIELD}.setupNetwork", problem)
    yield from _problems_of_caches(setup)


def _problem_of_command(command: tuple[str, ...]) -> str | None:
    if not command or not command[0].strip():
        return 'must be a program and its arguments, such as ["npm", "ci"]'
    if len(command) > MOST_WORDS or any(len(word.encode()) > LONGEST_WORD for word in command):
        return f"must have at most {MOST_WORDS} words of at most {LONGEST_WORD // 1024} KiB"
    if any("\0" in word for word in command):
        return "must not contain the character NUL"
    return None


def _problems_of_caches(setup: Setup) -> Iterator[Problem]:
    caches = setup.cache or ()
    if caches and not setup.setup:
        yield Problem(f"{FIELD}.cache", "needs commands in `setup`, which fill the folders")
    if len(caches) > MOST_CACHES:
        yield Problem(f"{FIELD}.cache", f"must have at most {MOST_CACHES} folders")
    seen: list[str] = []
    for number, cached in enumerate(caches):
        for name, value in (("key", cached.key), ("path", cached.path)):
            if len(value) > _LONGEST_PATH or not _PATH.fullmatch(value):
                message = "must be a relative path inside the workspace, without `.`, `..`, `.git` or empty parts"
                yield Problem(f"{FIELD}.cache[{number}].{name}", message)
        if any(_overlap(cached.path, other) for other in seen):
            yield Problem(f"{FIELD}.cache[{number}].path", "is in another folder of `cache`, or contains one")
        seen.append(cached.path)


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")

"""Read the files in which Claude Code records a session.

They contain the messages of subagents, which it does not print in full, and at the end the cost of the session.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Final

import msgspec

from labrats.executor.providers.cli_events import decode_line
from labrats.executor.providers.session_lines import MOST_BYTES, complete_lines, open_in_home
from labrats.files.trees import is_plain_folder
from labrats.model.job import Usage

_COST_STATE: Final = b'"cost-state"'
_ASSISTANT: Final = b'"assistant"'


class TokenCounts(msgspec.Struct, frozen=True):
    """Tokens as the Messages API counts them."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0

    def as_usage(self, turns: int = 0) -> Usage:
        """Return the counts as usage. Tokens that are written to a cache count as input."""
        written = self.cache_creation_input_tokens or 0
        return Usage(
            input_tokens=(self.input_tokens or 0) + written,
            output_tokens=self.output_tokens or 0,
            cache_read_tokens=self.cache_read_input_tokens or 0,
            cache_write_tokens=written,
            turns=turns,
        )


class ModelUsage(msgspec.Struct, frozen=True, rename="camel"):
    """The usage of one model of a session."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cost_usd: float = msgspec.field(name="costUSD", default=0.0)
    cost_basis: str = ""

    @property
    def known_cost_usd(self) -> float | None:
        """The cost; None if Claude Code does not know the model and has only estimated it."""
        return None if self.cost_basis == "unknown" else self.cost_usd


def usage_of_models(models: Mapping[str, ModelUsage]) -> Usage:
    """Return the total usage of all models."""
    each = models.values()
    written = sum(model.cache_creation_input_tokens for model in each)
    costs = [model.known_cost_usd for model in each]
    return Usage(
        input_tokens=sum(model.input_tokens for model in each) + written,
        output_tokens=sum(model.output_tokens for model in each),
        cache_read_tokens=sum(model.cache_read_input_tokens for model in each),
        cache_write_tokens=written,
        cost_usd=None if None in costs else sum(filter(None, costs)),
    )


class _Message(msgspec.Struct, frozen=True):
    id: str
    usage: TokenCounts


class _AssistantEntry(msgspec.Struct, frozen=True):
    message: _Message


class _CostState(msgspec.Struct, frozen=True, rename="camel"):
    """The totals of a session, including earlier runs."""

    type: str
    model_usage: dict[str, ModelUsage] = {}
    total_cost: float = msgspec.field(name="totalCostUSD", default=0.0)
    has_unknown_model_cost: bool = False


_ASSISTANT_DECODER: Final = msgspec.json.Decoder(_AssistantEntry)
_COST_DECODER: Final = msgspec.json.Decoder(_CostState)


_LONG_SEARCH_SECONDS: Final = 0.05
_PAUSE_FACTOR: Final = 20
_MOST_FILES: Final = 1000
"""Limits on the search for files, of which an agent can make any number."""


class SessionFiles:
    """The files of the session in which a run works. session_id: set once the session has started."""

    def __init__(self, home: Path, session_id: str | None = None) -> None:
        """Open the files of a session.

        home:       the agent's home, in which Claude Code stores its sessions.
        session_id: the session to resume, if any. Usage that it has already recorded does not count.
        """
        self.session_id = session_id or ""
        self._home, self._projects = home, home / ".claude" / "projects"
        self._positions: dict[Path, int] = {}
        self._readable_bytes = MOST_BYTES
        self._search_after = 0.0
        self._before = self._totals() or Usage(cost_usd=0.0)
        for _ in self.new_subagent_messages():
            pass

    def new_subagent_messages(self) -> Iterator[tuple[str, Usage]]:
        """Yield the id and usage of each message of a subagent that was recorded since the last call."""
        if (began := time.monotonic()) < self._search_after:
            return
        paths = self._find("*.jsonl", f"{self.session_id}/subagents")
        if (took := time.monotonic() - began) > _LONG_SEARCH_SECONDS:
            self._search_after = began + took * _PAUSE_FACTOR
        for path in paths:
            for line in self._new_lines(path):
                if _ASSISTANT in line and (entry := decode_line(_ASSISTANT_DECODER, line)):
                    yield entry.message.id, entry.message.usage.as_usage(turns=1)

    def usage(self) -> Usage | None:
        """Return the run's total usage of all models; None if Claude Code was killed before it could record it."""
        if (totals := self._totals()) is None or totals == self._before:
            return None
        return _difference(totals, self._before)

    def _totals(self) -> Usage | None:
        """Return the latest totals of the whole session."""
        latest = None
        for path in self._find(f"{self.session_id}.jsonl"):
            if (file := open_in_home(self._home, path)) is None:
                continue
            with file:
                for line in complete_lines(file):
                    if (
                        _COST_STATE in line
                        and (state := decode_line(_COST_DECODER, line))
                        and state.type == "cost-state"
                    ):
                        latest = state
        if latest is None:
            return None
        cost = None if latest.has_unknown_model_cost else latest.total_cost
        return msgspec.structs.replace(usage_of_models(latest.model_usage), cost_usd=cost)

    def _find(self, pattern: str, folder: str = "") -> list[Path]:
        """Return the files of the session. Folders that are links may lead out of the home."""
        if not self.session_id:
            return []
        with suppress(OSError):  # an agent can take the permissions of its home from itself
            if is_plain_folder(self._projects.parent) and is_plain_folder(self._projects):
                folders = (each / folder for each in islice(self._projects.iterdir(), _MOST_FILES))
                plain = (each for each in folders if all(map(is_plain_folder, self._up_to_projects(each))))
                return sorted(islice(chain.from_iterable(each.glob(pattern) for each in plain), _MOST_FILES))
        return []

    def _up_to_projects(self, folder: Path) -> Sequence[Path]:
        """Return a folder and those above it, up to the folder with all projects."""
        return [each for each in (folder, *folder.parents) if self._projects in each.parents]

    def _new_lines(self, path: Path) -> Iterator[bytes]:
        """Yield the complete lines that were added to a file. It is not left open, since there may be many files.

        All files together are read up to MOST_BYTES, as an agent can fill any number of them.
        """
        if (file := open_in_home(self._home, path)) is None:
            return
        with file:
            start = self._positions.get(path, 0)
            added = os.fstat(file.fileno()).st_size - start
            if not 0 < added <= self._readable_bytes:
                return
            self._readable_bytes -= added
            file.seek(start)
            yield from complete_lines(file)
            self._positions[path] = file.tell()


def _difference(after: Usage, before: Usage) -> Usage:
    known = after.cost_usd is not None and before.cost_usd is not None
    return Usage(
        input_tokens=after.input_tokens - before.input_tokens,
        output_tokens=after.output_tokens - before.output_tokens,
        cache_read_tokens=after.cache_read_tokens - before.cache_read_tokens,
        cache_write_tokens=after.cache_write_tokens - before.cache_write_tokens,
        cost_usd=(after.cost_usd or 0.0) - (before.cost_usd or 0.0) if known else None,
    )

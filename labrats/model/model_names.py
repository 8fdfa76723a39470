"""The names of models: which of them an attempt may use, and which model an alias stands for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from labrats.model.config import JobConfig
from labrats.model.provider_spec import provider_spec

_DATE: Final = r"(-\d{8}|-\d{4}-\d{2}-\d{2}|-latest)?"
_WINDOW: Final = re.compile(r"\[\w+\]$")
"""Suffix with which Claude Code requests a context window. It does not send the suffix to the API."""

_LONGEST_NAME: Final = 256
_COMPOUND_ALIASES: Final = {"opusplan": ("opus", "sonnet")}
_ANY: Final = frozenset({"best", "default", "inherit"})


@dataclass(frozen=True)
class AllowedModels:
    """The models of one attempt. pattern: matches their names; None if the job leaves the choice to the program."""

    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, config: JobConfig) -> "AllowedModels":
        """Return the job's model, its `fallbackModel`, and the models that its provider's program uses on its own."""
        provider = config.provider or ""
        model = _WINDOW.sub("", config.model or "")
        if model in ("", provider) or (provider == "claude" and model in _ANY):
            return cls(None)
        spec = provider_spec(provider)
        fallbacks = (config.fallback_model or "").split(",") if "fallback_model" in spec.settings else []
        names = [model, *(_WINDOW.sub("", name.strip()) for name in fallbacks), *spec.background_models]
        patterns = [pattern for name in names if name for pattern in _patterns_of(name, provider)]
        return cls(re.compile("|".join(patterns)))

    def __contains__(self, model: str) -> bool:
        if len(model) > _LONGEST_NAME:
            return False
        return self.pattern is None or self.pattern.fullmatch(model) is not None


def is_named(model: str, name: str, provider: str | None = None) -> bool:
    """Return whether a name stands for the model in a request.

    provider: whose aliases count, too, but not those of several models; None for none.
    """
    patterns = _patterns_of(_WINDOW.sub("", name), provider or "")
    return name not in _COMPOUND_ALIASES and any(re.fullmatch(pattern, model) for pattern in patterns)


def _patterns_of(name: str, provider: str) -> Iterator[str]:
    """Yield patterns of the names that stand for a model in requests: itself, also with a date; an alias's versions."""
    yield re.escape(name) + _DATE
    if provider == "claude" and re.fullmatch("[a-z]+", name):
        for alias in _COMPOUND_ALIASES.get(name, (name,)):
            # The first group has no `*+`: before 3.11.5, Python matches groups with choices in them wrongly by it.
            yield rf"(?:(?!claude)[\w-]++[./])*claude-(?:[0-9a-z.]++-)*{alias}(?:-[\w.:@-]*)?"

"""The reasoning effort of a model, by the names that Claude Code and Codex have for it."""

from typing import Literal

Effort = Literal["low", "medium", "high", "xhigh", "max"]

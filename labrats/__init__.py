"""Labrats: turns requests and events into runs of AI agents."""

__version__ = "0.2.0"

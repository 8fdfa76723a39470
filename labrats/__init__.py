"""Labrats: turns requests and events into runs of AI agents."""

__version__ = "0.1.0"

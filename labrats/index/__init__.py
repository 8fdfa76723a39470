"""Indexes that answer lists, counts and history: of jobs, of jobs over time, and of agents and their settings.

Each follows the store's watches. Callers rely on the answers, never on where an index keeps its data.
"""

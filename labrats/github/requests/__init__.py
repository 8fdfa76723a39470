"""Carries out what people ask for in threads on GitHub: commands in comments, and replies to pull requests."""

"""Formatting of durations for people."""


def describe_seconds(seconds: float) -> str:
    """Format a duration with two units at most: `0.4s`, `42s`, `3m05s`, `2h07m`, `4d03h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"

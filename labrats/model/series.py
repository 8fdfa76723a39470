"""How something went over time: what can be asked for, over which steps, and the answer's one shape."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class Metric(StrEnum):
    """What is measured. Jobs are seen when they end, and waits when they are over."""

    JOBS = "jobs"
    DURATION = "duration"
    QUEUE_WAIT = "queueWait"
    TOKENS = "tokens"
    COST = "cost"


LABEL: Final[Mapping[Metric, tuple[str, tuple[str, ...]]]] = {
    Metric.JOBS: ("status", ("completed", "failed", "cancelled")),
    Metric.TOKENS: ("kind", ("input", "output", "cache_read")),
}
"""What a metric is told apart by, and the values of that: each has a series. Any other metric has one series."""

MEANS: Final = frozenset({Metric.DURATION, Metric.QUEUE_WAIT})
"""Means, of which there is none for a step in which nothing happened. The others are sums, and there are then 0."""

WHOLE: Final = frozenset({Metric.JOBS, Metric.TOKENS})
"""What is counted in whole numbers."""


@dataclass(frozen=True)
class Steps:
    """So many steps of so many seconds, the last of which ends at `end`.

    A step holds the moment at which it ends, and not the one at which it begins.
    """

    seconds: int
    count: int
    end: int

    @classmethod
    def until(cls, now: datetime, seconds: int, count: int) -> "Steps":
        """Those of which the last holds `now`. They begin at multiples of their length, and so stay the same as time
        goes on."""
        return cls(seconds, count, -(-int(now.timestamp()) // seconds) * seconds)

    @property
    def begin(self) -> int:
        return self.end - self.seconds * self.count

    @property
    def ends(self) -> range:
        """When each ends, in order."""
        return range(self.begin + self.seconds, self.end + 1, self.seconds)


@dataclass(frozen=True)
class Value:
    """What one step came to. label: the value of what the metric is told apart by, empty where it is not."""

    label: str
    end: int
    value: float


@dataclass(frozen=True)
class Series:
    """labels: what it is of. points: the end of each step in Unix seconds, and what the step came to."""

    labels: Mapping[str, str]
    points: list[tuple[int, float]]


def series_of(metric: Metric, steps: Steps, values: Iterable[Value]) -> list[Series]:
    """All series of the metric, whatever `values` there are."""
    known = {(each.label, each.end): round(each.value) if metric in WHOLE else each.value for each in values}
    if metric not in LABEL:
        return [Series({}, _points(metric, steps, known, ""))]
    name, labels = LABEL[metric]
    return [Series({name: label}, _points(metric, steps, known, label)) for label in labels]


def _points(
    metric: Metric, steps: Steps, known: Mapping[tuple[str, int], float], label: str
) -> list[tuple[int, float]]:
    if metric in MEANS:
        return [(end, known[label, end]) for end in steps.ends if (label, end) in known]
    return [(end, known.get((label, end), 0)) for end in steps.ends]

"""Time series of metrics: the metrics, the steps of a series, and its format."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class Metric(StrEnum):
    """The metrics. A job counts when it ends, a wait when it is over."""

    JOBS = "jobs"
    DURATION = "duration"
    QUEUE_WAIT = "queueWait"
    TOKENS = "tokens"
    COST = "cost"


LABEL: Final[Mapping[Metric, tuple[str, tuple[str, ...]]]] = {
    Metric.JOBS: ("status", ("completed", "failed", "cancelled")),
    Metric.TOKENS: ("kind", ("input", "output", "cache_read")),
}
"""The label of a metric and its values, each of which has a series. The other metrics have a single series."""

MEANS: Final = frozenset({Metric.DURATION, Metric.QUEUE_WAIT})
"""Metrics whose steps are means, and missing where nothing happened. All others are sums, and then 0."""

WHOLE: Final = frozenset({Metric.JOBS, Metric.TOKENS})
"""Metrics that are whole numbers."""


@dataclass(frozen=True)
class Steps:
    """A sequence of time steps of equal length, the last of which ends at `end`.

    A step includes the time at which it ends, and excludes the time at which it begins.
    """

    seconds: int
    count: int
    end: int

    @classmethod
    def until(cls, now: datetime, seconds: int, count: int) -> "Steps":
        """Return the steps of which the last contains `now`.

        They begin at multiples of their length, so that later calls return the same steps.
        """
        return cls(seconds, count, -(-math.ceil(now.timestamp()) // seconds) * seconds)

    @property
    def begin(self) -> int:
        return self.end - self.seconds * self.count

    @property
    def ends(self) -> range:
        """The end of each step, in order."""
        return range(self.begin + self.seconds, self.end + 1, self.seconds)


@dataclass(frozen=True)
class Value:
    """The value of a metric in one step. label: the value of the metric's label; empty without one."""

    label: str
    end: int
    value: float


@dataclass(frozen=True)
class Series:
    """A time series. labels: of the series. points: the end of each step in Unix seconds, and its value."""

    labels: Mapping[str, str]
    points: list[tuple[int, float]]


def points_of(metric: Metric, steps: Steps, values: Iterable[Value]) -> list[tuple[int, float]]:
    """Return the points of one series without labels."""
    known = {("", each.end): round(each.value) if metric in WHOLE else each.value for each in values}
    return _points(metric, steps, known, "")


def series_of(metric: Metric, steps: Steps, values: Iterable[Value]) -> list[Series]:
    """Return all series of the metric, even those without `values`."""
    if metric not in LABEL:
        return [Series({}, points_of(metric, steps, values))]
    known = {(each.label, each.end): round(each.value) if metric in WHOLE else each.value for each in values}
    name, labels = LABEL[metric]
    return [Series({name: label}, _points(metric, steps, known, label)) for label in labels]


def _points(
    metric: Metric, steps: Steps, known: Mapping[tuple[str, int], float], label: str
) -> list[tuple[int, float]]:
    if metric in MEANS:
        return [(end, known[label, end]) for end in steps.ends if (label, end) in known]
    return [(end, known.get((label, end), 0)) for end in steps.ends]

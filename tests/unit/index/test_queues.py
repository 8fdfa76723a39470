"""When a waiting job is expected to start."""

from collections.abc import Sequence

import pytest

from labrats.index.queues import RunTimes

MINUTES_5 = [300.0] * 5


@pytest.mark.parametrize(
    ("ended", "running", "position", "slots", "expected"),
    [
        pytest.param(MINUTES_5[:4], [0.0], 1, 1, None, id="too few have ended"),
        pytest.param(MINUTES_5, [], 1, 0, None, id="no slots"),
        pytest.param(MINUTES_5, [], 1, 1, 0, id="a free slot"),
        pytest.param(MINUTES_5, [100.0], 1, 1, 200, id="the holder's remaining time"),
        pytest.param(MINUTES_5, [100.0], 3, 1, 800, id="behind two others"),
        pytest.param(MINUTES_5, [100.0, 250.0], 2, 2, 200, id="the second holder to end"),
        pytest.param(MINUTES_5, [1560.0], 1, 1, None, id="the holder has run longer than all others"),
        pytest.param(MINUTES_5, [10.0, 1560.0], 1, 2, None, id="one of the holders has"),
        pytest.param([60.0] * 5 + [600.0], [100.0], 1, 1, 500, id="a long job ends like the long ones before it"),
        pytest.param(MINUTES_5, [100.0, 200.0], 1, 1, 200, id="more holders than slots"),
    ],
)
def test_the_start_counts_the_holders_run_times(
    ended: Sequence[float], running: Sequence[float], position: int, slots: int, expected: float | None
) -> None:
    assert RunTimes(ended, running).seconds_until_start(position, slots) == expected

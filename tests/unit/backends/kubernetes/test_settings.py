"""The limits that executors enforce on a cluster, from the engine's settings."""

import pytest

from labrats.backends.kubernetes.settings import executor_limits
from labrats.model.protocol import NO_LIMITS, ResourceLimits

MIB = 2**20
OF_VOLUME = ResourceLimits(disk_bytes=20 * MIB, disk_setting="executor.scratch")


@pytest.mark.parametrize(
    ("limits", "scratch", "enforced"),
    [
        (NO_LIMITS, "20Mi", OF_VOLUME),
        (ResourceLimits(disk_bytes=21 * MIB), "20Mi", OF_VOLUME),
        (ResourceLimits(disk_bytes=19 * MIB), "20Mi", ResourceLimits(disk_bytes=19 * MIB)),
        (NO_LIMITS, "1e9", NO_LIMITS),
    ],
    ids=["no limit", "above the volume", "below the volume", "unknown size"],
)
def test_the_size_of_the_volume_is_a_limit(limits: ResourceLimits, scratch: str, enforced: ResourceLimits) -> None:
    assert executor_limits(limits, scratch) == enforced

"""Settings of the engine that cannot be met, by the levels of isolation and the network of the machine."""

from pathlib import Path
from typing import Any

import pytest

from labrats.intake.unmet_settings import unmet_settings
from labrats.model.isolation import PROCESS_ONLY, Isolation, IsolationLevels
from labrats.settings import EngineSettings

BOTH = IsolationLevels((Isolation.PROCESS, Isolation.SANDBOX), Isolation.SANDBOX)
PROCESS_BY_DEFAULT = IsolationLevels((Isolation.PROCESS, Isolation.SANDBOX), Isolation.PROCESS)


@pytest.mark.parametrize(
    ("settings", "levels", "network_problem", "expected"),
    [
        ({}, PROCESS_ONLY, "must be open: no sandbox", {}),
        ({"network": "open"}, PROCESS_ONLY, "must be open: no sandbox", {}),
        ({"network": "none"}, BOTH, None, {}),
        ({"network": "none"}, BOTH, "must be open: x", {"LABRATS_NETWORK": "must be open: x"}),
        ({"network": "npm"}, PROCESS_BY_DEFAULT, None, {"LABRATS_NETWORK": "must be open: agents have no sandbox"}),
        ({"untrusted_isolation": "sandbox"}, BOTH, None, {}),
        ({"untrusted_isolation": "vm"}, BOTH, None, {"LABRATS_UNTRUSTED_ISOLATION": "cannot be vm: the levels here"}),
    ],
)
def test_setting_that_cannot_be_met_is_named_with_the_reason(
    tmp_path: Path,
    settings: dict[str, Any],
    levels: IsolationLevels,
    network_problem: str | None,
    expected: dict[str, str],
) -> None:
    found = dict(unmet_settings(EngineSettings(data_dir=tmp_path, **settings), levels, network_problem))
    assert found.keys() == expected.keys()
    assert all(found[name].startswith(reason) for name, reason in expected.items())

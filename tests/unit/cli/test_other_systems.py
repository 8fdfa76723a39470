"""The command line on a system other than Linux."""

import pytest

from tests.unit.cli.engines import Labrats


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_command_of_the_engine_names_linux_in_one_sentence(
    labrats: Labrats, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    result = labrats(command)
    assert result.code == 2
    assert f"labrats {command} needs Linux, and this is Darwin: run the engine on Linux" in result.err
    assert len(result.err.strip().splitlines()) <= 3


def test_commands_of_a_client_work_on_other_systems(labrats: Labrats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert labrats("--help").code == 0

"""The commands that pause and resume the engine."""

from tests.unit.cli.engines import Labrats, ScriptedEngine


def test_pause_and_resume_send_the_wanted_state(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("PUT /api/pause", {"paused": True, "reason": "", "by": "admin", "since": None})

    paused = labrats("pause", "--reason", "the bill")
    resumed = labrats("resume")

    assert (paused[0], resumed[0]) == (0, 0)
    assert [each.json for each in engine.requests] == [{"paused": True, "reason": "the bill"}, {"paused": False}]

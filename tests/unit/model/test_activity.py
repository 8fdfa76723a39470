"""The activity of an agent, as one short line."""

from typing import Any

import pytest

from labrats.model.activity import ACTIVITY_LENGTH, activity_of
from labrats.model.job import Usage
from labrats.model.protocol import AnyEvent, LogEvent, StatusEvent, ToolEvent, UsageEvent
from tests.fakes.clock import NOON
from tests.support.builders import a_result

HEAD: dict[str, Any] = {"seq": 1, "at": NOON}


@pytest.mark.parametrize(
    ("event", "activity"),
    [
        (ToolEvent(id="c", name="Bash", input={"timeout": 9, "command": "npm \n test"}, **HEAD), "Bash: npm test"),
        (ToolEvent(id="c", name="Read", input="tests/a.ts", **HEAD), "Read: tests/a.ts"),
        (ToolEvent(id="c", name="Stop", input={"code": 3}, **HEAD), "Stop"),
        (ToolEvent(id="c", output="ok", **HEAD), None),
        (LogEvent(text="Let me see.", origin="agent", **HEAD), "Let me see."),
        (LogEvent(text="of an earlier version", **HEAD), "of an earlier version"),
        (LogEvent(text="→ Bash: npm test", origin="tool", **HEAD), None),
        (LogEvent(text="[retrying]", origin="engine", **HEAD), None),
        (LogEvent(text=" \t", origin="agent", **HEAD), None),
        (StatusEvent(state="workspace", message="cloning the repository", **HEAD), "cloning the repository"),
        (StatusEvent(state="running", **HEAD), "starting the agent"),
        (StatusEvent(state="new", **HEAD), "new"),
        (UsageEvent(usage=Usage(), **HEAD), None),
        (a_result(), None),
    ],
)
def test_activity_is_the_call_the_words_or_the_state(event: AnyEvent, activity: str | None) -> None:
    assert activity_of(event) == activity


def test_long_activity_is_cut() -> None:
    activity = activity_of(ToolEvent(id="c", name="Bash", input={"command": "x" * 100_000}, **HEAD))
    assert activity
    assert len(activity) == ACTIVITY_LENGTH
    assert activity.endswith("x…")

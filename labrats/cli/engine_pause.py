"""The commands that pause and resume the whole engine: pause, resume."""

from typing import Annotated

from cyclopts import Parameter

from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_text


def pause(*, reason: Annotated[str, Parameter(show_default=False)] = "", options: ApiOptions = DEFAULTS) -> None:
    """Pause the engine: no attempt starts until `labrats resume`, also after a restart.

    Running attempts go on, and submissions are accepted. Needs an administrator's key.

    Args:
        reason: The reason, which others see.
    """
    _set({"paused": True, "reason": reason}, "the engine is paused until `labrats resume`", options)


def resume(*, options: ApiOptions = DEFAULTS) -> None:
    """End the pause of the engine. Needs an administrator's key."""
    _set({"paused": False}, "the engine is not paused: waiting jobs start", options)


def _set(body: dict[str, object], done: str, options: ApiOptions) -> None:
    with options.connect() as client:
        answer = client.put("/api/pause", body)
    if options.json:
        print_text(answer.text)
    else:
        print_stderr(done)

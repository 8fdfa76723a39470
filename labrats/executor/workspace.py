"""Prepares the folder an agent works in."""

from labrats.executor.run import Run


async def prepare_workspace(run: Run) -> None:
    """Make the workspace as the task describes it. Raises GiveUp with the code `git_clone` or `workspace`."""
    run.workspace.mkdir(parents=True, exist_ok=True)

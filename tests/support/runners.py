"""Questions to a Runner."""

from labrats.model.attempt_name import AttemptName
from labrats.ports import Runner


async def retained_by(runner: Runner) -> list[AttemptName]:
    """Return the names of all attempts that the runner retains anything of."""
    return [name async for names in runner.retained() for name in names]

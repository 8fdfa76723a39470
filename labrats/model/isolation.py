"""Levels of isolation of an agent, named by what separates its processes from everything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Isolation(StrEnum):
    """A level of isolation. The weakest comes first."""

    PROCESS = "process"
    """A process of the engine's user: nothing is stopped."""
    SANDBOX = "sandbox"
    """A bubblewrap sandbox on the engine's machine."""
    CONTAINER = "container"
    """A restricted pod, which shares the kernel of its node."""
    VM = "vm"
    """A restricted pod with a kernel of its own."""


_BY_STRENGTH: Final = tuple(Isolation)


def strength(level: Isolation) -> int:
    """Return a number that is larger for a stronger level."""
    return _BY_STRENGTH.index(level)


@dataclass(frozen=True)
class IsolationLevels:
    """The levels that a backend offers here.

    available: the weakest first.
    default:   the level of a job for which no layer of settings names one.
    untrusted: the minimum for jobs of external contributors.
    advice:    sentence about the other levels: why they are missing, and what to do.
    no_sandbox: reason why agents have no sandbox although the settings ask for one where it works; empty otherwise.
    network:   the network rule of a job with more isolation than a process, if no layer names one.
    """

    available: Sequence[Isolation]
    default: Isolation
    untrusted: Isolation = Isolation.SANDBOX
    advice: str = ""
    no_sandbox: str = ""
    network: str | None = None

    def at_least(self, level: Isolation) -> Isolation | None:
        """Return the weakest available level that stops as much as `level`; None if there is none."""
        return next((each for each in self.available if strength(each) >= strength(level)), None)

    def default_network(self, level: Isolation) -> str | None:
        """Return the network rule of a job with this level, if no layer of its settings names one."""
        return None if level is Isolation.PROCESS else self.network

    def problem_of(self, level: Isolation) -> str | None:
        """Return why a job cannot have `level`, as part of a sentence; None if it can."""
        if self.at_least(level):
            return None
        available = " or ".join(self.available)
        return f"cannot be {level}: the levels here are {available}. {self.advice}".rstrip()

    def problem_without_sandbox(self, level: Isolation, provider: str, *, by_admin: bool) -> str | None:
        """Return why a job of this level must not run without a sandbox, as part of a sentence; None if it may.

        Without a sandbox the agent can do all that the engine's user can, so only administrators may start one. The
        provider `mock` starts no program.
        """
        if not self.no_sandbox or level is not Isolation.PROCESS or by_admin or provider == "mock":
            return None
        return (
            f"cannot be process for the jobs of callers who are not administrators: no sandbox works here "
            f"({self.no_sandbox}). Install bubblewrap 0.8 or newer and allow unprivileged user namespaces, or set "
            "LABRATS_SANDBOX=false to run the agents of all callers without one"
        )


PROCESS_ONLY: Final = IsolationLevels((Isolation.PROCESS,), Isolation.PROCESS)

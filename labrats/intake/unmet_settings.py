"""Settings of the engine that cannot be met here, so that it refuses jobs to which they apply."""

from collections.abc import Iterator

from labrats.model.isolation import Isolation, IsolationLevels
from labrats.model.network import is_restricted
from labrats.settings import EngineSettings


def unmet_settings(
    settings: EngineSettings, levels: IsolationLevels, network_problem: str | None
) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that cannot be met, and the reason as part of a sentence.

    `LABRATS_ISOLATION` and `LABRATS_SANDBOX` are not among them: with these, the engine does not start.

    levels:          the levels of isolation here.
    network_problem: the reason why the network of agents cannot be restricted here; None if it can.
    """
    if settings.untrusted_isolation and (problem := levels.problem_of(settings.untrusted_isolation)):
        yield "LABRATS_UNTRUSTED_ISOLATION", problem
    if not is_restricted(settings.network):
        return
    if network_problem:
        yield "LABRATS_NETWORK", network_problem
    elif levels.default is Isolation.PROCESS:
        yield "LABRATS_NETWORK", "must be open: agents have no sandbox by default; set LABRATS_ISOLATION=sandbox"

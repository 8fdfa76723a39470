"""What a cluster of the tests' own is made of: made once, in minutes, and kept."""

from tests.cluster import packages
from tests.cluster.product import ENGINE, EXECUTOR
from tests.cluster.programs import build_helm, build_programs
from tests.cluster.shell import Failed


def prepare(*, node: bool = True, helm: bool = True, engine: bool = True) -> None:
    """Make what is not there yet. Raises Failed where this machine cannot have a cluster.

    node: for pods to run. helm: to install with. engine: an image of the engine.
    """
    if reason := packages.why_impossible():
        raise Failed(reason)
    build_programs()
    if node:
        packages.require(packages.API, packages.NODE)
        EXECUTOR.archive()
    if helm:
        build_helm()
    if engine:
        ENGINE.archive()

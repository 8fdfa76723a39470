"""The preparation of test clusters: programs and images that are built once, which takes minutes."""

from tests.cluster import packages
from tests.cluster.images import pause_image
from tests.cluster.product import AGENTS, ENGINE, EXECUTOR, build
from tests.cluster.programs import build_helm, build_kube_router, build_programs
from tests.cluster.shell import Failed


def prepare(*, node: bool = True, helm: bool = True, engine: bool = True, agents: bool = False) -> None:
    """Build what is missing. Raises Failed if this machine cannot run a cluster.

    node: also prepare a node that runs pods. helm: also Helm. engine: also an image of the engine.
    agents: also an image of the executor with the agent CLIs.
    """
    if reason := packages.reason_unsupported():
        raise Failed(reason)
    build_programs()
    if node:
        packages.require(packages.API, packages.NODE)
        build_kube_router()
        pause_image()
    if helm:
        build_helm()
    wanted = {EXECUTOR: node, ENGINE: engine, AGENTS: agents}
    build(*(product for product, is_wanted in wanted.items() if is_wanted))

"""A real one-node Kubernetes cluster on this machine, for tests and experiments. It needs Linux and root.

build            build the programs (once, takes minutes; stored in ~/.cache/labrats-test-cluster)
prepare          build, and install everything else that tests on a cluster need: Debian packages, Helm, images
api              start etcd, API server and garbage collector: custom resources, watches, leases, RBAC
up               start a node as well, with all images built so far: scheduler, kubelet, containerd, kube-proxy
image TAG DIR    build DIR/Dockerfile (`ARG BASE`) on a local Debian base, and load the image into the node
enter CMD ...    run CMD in the cluster's network, from which pods and Services can be reached
down             stop the cluster and delete its data; programs and images stay

`api` and `up` print the path of the kubeconfig, which works inside and outside of the cluster's network.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from tests.cluster.cluster import Cluster
from tests.cluster.images import build_image, image_archives
from tests.cluster.node import Node, start_node
from tests.cluster.prepare import prepare
from tests.cluster.programs import build_programs
from tests.cluster.shell import Failed

CLUSTER: Final = Cluster("shell")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["build", "prepare", "api", "up", "image", "enter", "down"])
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        run(options.command, options.arguments)
    except Failed as failure:
        sys.exit(f"cluster: {failure}")


def run(command: str, arguments: list[str]) -> None:
    match command, arguments:
        case "build", []:
            print(build_programs())
        case "prepare", []:
            prepare()
        case "api", []:
            print(f"KUBECONFIG={CLUSTER.start_api()}")
        case "up", []:
            print(f"KUBECONFIG={start_node(CLUSTER, image_archives())}")
        case "image", [tag, folder]:
            archive = build_image(tag, Path(folder))
            if (node := Node(CLUSTER, 1)).socket.exists():
                node.load(archive)
        case "enter", [_, *_]:
            CLUSTER.enter(arguments)
        case "down", []:
            CLUSTER.stop()
        case _:
            raise Failed(f"wrong arguments for `{command}`; see --help")


if __name__ == "__main__":
    main()

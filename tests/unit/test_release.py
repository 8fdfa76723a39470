"""The script of a release refuses a tag that disagrees with a file, and images without the digest of their base."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.release_tree import VERSION, write_release_tree

REGISTRY: Final = "ghcr.io/labrats-work/apps.ai-agents"
DIGEST: Final = f"sha256:{'0123456789abcdef' * 4}"
BASE: Final = f"docker.io/library/python:3.13-slim-bookworm@{DIGEST}"
PATHS: Final = ("scripts/release.py", "labrats/__init__.py", "labrats/manifests", "charts", "docker", "docs", "*.md")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of VERSION, which is a repository."""
    folder = write_release_tree(tmp_path / "tree", PATHS)
    subprocess.run(("git", "init", "-q", folder), check=True)
    identity = ("-c", "user.name=Release", "-c", "user.email=release@example.com")
    subprocess.run(("git", "-C", folder, *identity, "commit", "-q", "--allow-empty", "-m", "Release"), check=True)
    return folder


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for `docker` that logs its arguments, one a line, and answers the digest in the file `answer`."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/log\ncat {tmp_path}/answer\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    (tmp_path / "answer").write_text(f'"{DIGEST}"\n')
    return tmp_path


def release(tree: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, tree / "scripts/release.py", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tag_that_agrees_with_all_files_is_accepted(tree: Path) -> None:
    done = release(tree, "check", f"v{VERSION}", REGISTRY)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        ("labrats/__init__.py", VERSION, "9.9.8", "__version__ is 9.9.8, and the tag v9.9.9 needs 9.9.9"),
        ("charts/labrats/Chart.yaml", f"\nversion: {VERSION}", "\nversion: 9.9.8", "version is 9.9.8"),
        ("charts/labrats/Chart.yaml", f"appVersion: {VERSION}", 'appVersion: "9.9.8"', "appVersion is 9.9.8"),
        ("charts/labrats/values.yaml", f"{REGISTRY}/engine", "example.com/engine", f"no image is {REGISTRY}/engine"),
        ("labrats/manifests/install.yaml", VERSION, "9.9.8", "run `make manifests`"),
        ("CHANGELOG.md", f"## {VERSION}", "## Unreleased", "the first section is Unreleased"),
        ("CHANGELOG.md", f"## {VERSION}\n", f"## {VERSION}\n\n## 9.9.8\n", f"the section {VERSION} is empty"),
        ("docs/upgrade.md", f"## {VERSION}", "## Unreleased", f"rename it to {VERSION}"),
    ],
)
def test_file_that_disagrees_with_the_tag_is_named(
    tree: Path, file: str, before: str, after: str, message: str
) -> None:
    text = (tree / file).read_text()
    assert before in text
    (tree / file).write_text(text.replace(before, after))
    done = release(tree, "check", f"v{VERSION}", REGISTRY)
    assert done.returncode == 1
    assert f"release: {file}" in done.stderr
    assert message in done.stderr


def test_tag_of_another_form_is_refused(tree: Path) -> None:
    done = release(tree, "check", "v9.9.9rc1", REGISTRY)
    assert done.returncode == 1
    assert "the tag v9.9.9rc1 is not vN.N.N, such as v9.9.9" in done.stderr


def test_notes_are_the_section_of_the_version(tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text(f"# Changelog\n\n## {VERSION}\n\n- New.\n\n## 0.1.0\n\n- Old.\n")
    assert release(tree, "notes").stdout == "- New.\n"


def test_base_of_the_images_gets_its_digest(tree: Path, docker: Path) -> None:
    assert release(tree, "base").stdout == f"base={BASE}\n"


@pytest.mark.parametrize("answer", ["", "<no value>", '"sha256:0123"'])
def test_release_ends_if_the_registry_answers_no_digest(tree: Path, docker: Path, answer: str) -> None:
    (docker / "answer").write_text(answer)
    done = release(tree, "base")
    assert (done.returncode, done.stdout) == (1, "")
    assert "for the digest of docker.io/library/python:3.13-slim-bookworm; try again" in done.stderr


def test_release_ends_if_the_registry_does_not_answer(tree: Path, docker: Path) -> None:
    (docker / "answer").unlink()
    done = release(tree, "base")
    assert (done.returncode, done.stdout) == (1, "")
    assert "imagetools inspect" in done.stderr


def test_images_with_several_bases_are_refused(tree: Path, docker: Path) -> None:
    dockerfile = tree / "docker/engine/Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("3.13-slim", "3.14-slim"))
    assert "the Dockerfiles name several bases" in release(tree, "base").stderr


@pytest.mark.parametrize("base", ["python:3.13", "python:3.13@sha256:0", "python:3.13@"])
def test_base_without_a_digest_builds_no_image(tree: Path, docker: Path, base: str) -> None:
    done = release(tree, "build-images", REGISTRY, base, "amd64")
    assert done.returncode == 1
    assert "has no digest" in done.stderr
    assert not (docker / "log").exists()


def test_each_image_is_built_from_the_digest_and_has_it_in_its_labels(tree: Path, docker: Path) -> None:
    assert release(tree, "build-images", REGISTRY, BASE, "arm64").returncode == 0
    builds = [build.splitlines() for build in (docker / "log").read_text().split("buildx\n")[1:]]
    names = sorted(dockerfile.parent.name for dockerfile in (tree / "docker").glob("*/Dockerfile"))
    assert [build[-1] for build in builds] == [f"build/{name}" for name in names]
    revision = subprocess.run(("git", "-C", tree, "rev-parse", "HEAD"), capture_output=True, text=True, check=True)
    labels = {
        "version": VERSION,
        "revision": revision.stdout.strip(),
        "base.name": "docker.io/library/python:3.13-slim-bookworm",
        "base.digest": DIGEST,
    }
    for name, build in zip(names, builds, strict=True):
        assert {f"--build-arg=BASE={BASE}", "--sbom=true", "--push", "--platform=linux/arm64"} <= set(build)
        assert f"--tag={REGISTRY}/{name}:{VERSION}-arm64" in build
        assert {f"--label=org.opencontainers.image.{key}={value}" for key, value in labels.items()} <= set(build)


def test_published_images_join_both_architectures_and_are_named_by_digest(tree: Path, docker: Path) -> None:
    done = release(tree, "publish-images", REGISTRY, docker)
    assert f"{REGISTRY}/engine@{DIGEST}" in done.stdout.splitlines()
    log = (docker / "log").read_text().splitlines()
    assert {f"{REGISTRY}/engine:{VERSION}-amd64", f"{REGISTRY}/engine:{VERSION}-arm64"} <= set(log)
    assert (docker / "engine.sbom.json").exists()

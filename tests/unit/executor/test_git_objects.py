"""Tests of reading git's objects and of the check of their content."""

import zlib
from contextlib import nullcontext
from pathlib import Path

import pytest

from labrats.executor.engine_repository import DiffFailed, EngineRepository
from labrats.executor.git_objects import read_objects, require_intact
from tests.unit.executor.test_workspace_diff import git

CONTENTS = (b"", b"\n", b"text\n", b"blob 3\n" * 30_000, bytes(range(256)) * 1000)


@pytest.fixture(params=["sha1", "sha256"])
async def repository(tmp_path: Path, request: pytest.FixtureRequest) -> EngineRepository:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    git(workspace, "init", "-q", f"--object-format={request.param}")
    return EngineRepository(workspace, workspace / ".git", nullcontext)


def written(repository: EngineRepository) -> list[bytes]:
    """Write an object with each of the contents. Return their names."""
    return [git(repository.workspace, "hash-object", "-w", "--stdin", stdin=content).encode() for content in CONTENTS]


async def test_objects_are_read_in_the_order_of_their_names(repository: EngineRepository) -> None:
    names = written(repository)
    objects = list(await read_objects(repository, names, 10**6))
    assert objects == [(name.decode(), "blob", content) for name, content in zip(names, CONTENTS, strict=True)]
    await require_intact(repository, names)
    await require_intact(repository, [])


async def test_missing_object_is_named(repository: EngineRepository) -> None:
    names = [*written(repository), b"4567"]
    with pytest.raises(DiffFailed, match="the object 4567 is missing"):
        list(await read_objects(repository, names, 10**6))
    with pytest.raises(DiffFailed, match="the object 4567 is missing"):
        await require_intact(repository, names)


@pytest.mark.parametrize("number", range(len(CONTENTS)))
async def test_forged_object_is_named(repository: EngineRepository, number: int) -> None:
    names = written(repository)
    name = names[number].decode()
    file, content = repository.git_dir / "objects" / name[:2] / name[2:], CONTENTS[number] + b"x"
    file.chmod(0o600)
    file.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content))
    with pytest.raises(DiffFailed, match=f"{name} has other content"):
        list(await read_objects(repository, names, 10**6))
    with pytest.raises(DiffFailed, match=f"{name} has other content"):
        await require_intact(repository, names)

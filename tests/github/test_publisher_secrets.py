"""A push that GitHub refuses for a secret: the report names its place, and no text of the job has it any more."""

import asyncio
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from msgspec import to_builtins
from msgspec.structs import replace

from labrats.controller.found_secrets import FoundSecrets
from labrats.model.job import Job
from labrats.model.record import encode
from tests.github.test_publish_again import publish_again
from tests.github.test_publisher_branches import branches_of, published_by
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    PUBLICATION,
    World,
    a_pull_request,
    a_world,
    anyio_backend,
)
from tests.support.github import GitHubStandIn

SECRET: Final = "ghp_" + "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX"
KIND: Final = "GitHub Personal Access Token"


def a_bundle_with_secret(github: GitHubStandIn) -> bytes:
    """Return a bundle on top of the branch `fix`: a commit with a secret in line 3 of a file, and one without it."""

    def git(folder: Path, *arguments: str) -> None:
        identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as name:
        folder, checkout = Path(name), Path(name, "checkout")
        git(folder, "clone", "--quiet", "--branch", "fix", str(github.demo.git.folder), "checkout")
        for text in (f"a = 1\n\ntoken = '{SECRET}'\n", f"a = 2\nb = 3\n\ntoken = '{SECRET}'\n"):
            (checkout / "settings.py").write_text(text)
            git(checkout, "add", "--all")
            git(checkout, "commit", "--quiet", "--message", "Add settings")
        git(checkout, "update-ref", "refs/heads/labrats", "HEAD")
        git(checkout, "bundle", "create", "../it.bundle", "refs/heads/labrats", "^origin/fix")
        return (folder / "it.bundle").read_bytes()


async def a_world_with_secret(github: GitHubStandIn, *, sign: bool = False) -> World:
    """Return a world whose agent has written the secret into its commits and all of its texts."""
    github.demo.git.protect_from_secrets()
    world = await a_world(github, a_pull_request(github), sign=sign, bundle=a_bundle_with_secret(github))
    world.runner.publication_bytes = encode(to_builtins(PUBLICATION) | {"comment": f"I have set {SECRET}."})
    world.runner.patch_bytes = f"+token = '{SECRET}'\n".encode()
    job = await world.store.get(Job, world.job_id)
    status = replace(job.status, result=f"I have set {SECRET}.", logs=(f"TOKEN={SECRET}", "done"))
    await world.store.update(replace(job, status=status))
    return world


def written_by(github: GitHubStandIn) -> str:
    """Return all that the engine has sent to GitHub's API."""
    return "\n".join(json.dumps(call.body) for call in github.writes())


async def test_place_of_a_secret_is_posted_and_no_text_has_it(github: GitHubStandIn) -> None:
    world = await a_world_with_secret(github)
    await world.publish()
    refused = (await published_by(world)).refused
    assert f"secret: {KIND} in `settings.py`, line 3" in refused
    assert f"secret: {KIND} in `settings.py`, line 4" in refused
    written = written_by(github)
    assert "settings.py" in written
    assert "I have set [redacted]." in written
    assert SECRET not in written
    assert "```diff" not in written
    assert branches_of(github).keys() == {"main", "fix"}


async def test_secret_without_a_known_place_leads_to_no_patch(github: GitHubStandIn) -> None:
    world = await a_world_with_secret(github, sign=True)
    await world.publish()
    (refused,) = (await published_by(world)).refused
    assert refused.startswith("no pull request: GitHub has found secrets in the commits")
    written = written_by(github)
    assert "```diff" not in written
    assert SECRET not in written
    assert branches_of(github).keys() == {"main", "fix"}


async def test_commits_are_published_once_the_secret_is_allowed(github: GitHubStandIn) -> None:
    world = await a_world_with_secret(github)
    await world.publish()
    (github.demo.git.folder / "push-protection").unlink()
    await publish_again(world)
    published = await published_by(world)
    assert published.pull_request_url
    assert published.refused == ()
    assert SECRET not in written_by(github)


async def test_follow_up_names_the_secret_nowhere(github: GitHubStandIn) -> None:
    world = await a_world_with_secret(github)
    await world.publish()
    follow_up = await a_world(github, github.demo.issues[1], job_id="ir-00000002", store=world.store)
    follow_up.runner.publication_bytes = encode({"comment": f"I have removed {SECRET}."})
    job = await world.store.get(Job, follow_up.job_id)
    spec, status = replace(job.spec, follow_up_of=world.job_id), replace(job.status, result=f"No {SECRET}.")
    await world.store.update(replace(job, spec=spec, status=status))
    redacting = asyncio.create_task(FoundSecrets(world.store, follow_up.runner).run())
    await follow_up.publish()
    while not (job := await world.store.get(Job, follow_up.job_id)).is_settled:
        await asyncio.sleep(0.005)
    redacting.cancel()
    assert job.status.result == "No [redacted]."
    assert "I have removed [redacted]." in written_by(github)
    assert SECRET not in written_by(github)


async def test_stored_texts_are_redacted(github: GitHubStandIn) -> None:
    world = await a_world_with_secret(github)
    redacting = asyncio.create_task(FoundSecrets(world.store, world.runner).run())
    await world.publish()

    while (await world.store.get(Job, world.job_id)).unredacted:
        await asyncio.sleep(0.005)
    redacting.cancel()
    job = await world.store.get(Job, world.job_id)
    assert job.status.result == "I have set [redacted]."
    assert job.status.logs == ("TOKEN=[redacted]", "done")
    assert SECRET.encode() not in encode(job)
    assert job.is_settled

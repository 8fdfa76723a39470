"""Requests to run a job again."""

from pathlib import Path
from typing import Any

import pytest

from labrats.index.catalog import Catalog
from labrats.intake.reruns import Changes, chosen_settings, rerun_request
from labrats.intake.settings import settings_of
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.caller import Caller
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.config import RERUN_LAYER, ConfigLayer, JobConfig, resolve_config
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import IllegalMove, Invalid
from labrats.model.job import JobSpec, KeyReference, WorkspaceFile, WorkspaceSetup
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.variables import SecretKey
from labrats.model.workspace_setup import CachedFolder, Setup
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec, an_applied_spec

CALLER = Caller("caller", frozenset({"submit"}), secret="key-of-the-caller")
PROMPT = ConfigMap(metadata=Metadata(name="texts"), data={"prompt": "Say hello.", "instructions": "Be brief."})


def a_finished_spec(**fields: Any) -> JobSpec:
    config = JobConfig(provider="claude", model="opus", max_turns=7)
    layers = [ConfigLayer("trigger", config), ConfigLayer("agent", JobConfig(effort="high"))]
    return a_spec(
        prompt_ref=KeyReference(name="texts", key="prompt"),
        instructions_ref=KeyReference(name="texts", key="instructions"),
        resolved=resolve_config(layers),
        **fields,
    )


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore(FakeClock())
    await store.create(PROMPT)
    return store


@pytest.fixture
def stored_jobs(store: MemoryStore, tmp_path: Path) -> StoredJobs:
    return StoredJobs(store, tmp_path, FakeClock(), labelled_only=True)


async def test_request_belongs_to_the_caller_and_has_less_trust_than_the_first_job_never_more(
    stored_jobs: StoredJobs,
) -> None:
    job = a_job(spec=a_finished_spec(untrusted=True, callback_url="https://ci.example.com", owner="webhook"))

    request = await rerun_request(stored_jobs, job, Changes(), CALLER)

    assert (request.owner, request.api_key_ref, request.untrusted) == ("caller", "key-of-the-caller", True)
    assert (request.submitted.callback_url, request.chain, request.event) == (None, None, None)


async def test_result_schema_of_the_first_job_applies(stored_jobs: StoredJobs) -> None:
    job = a_job(spec=a_finished_spec(result_schema={"type": "array"}))

    request = await rerun_request(stored_jobs, job, Changes(), CALLER)

    assert request.result_schema == {"type": "array"}


async def test_settings_of_agents_and_the_engine_are_resolved_afresh() -> None:
    resolved = a_finished_spec().resolved
    assert resolved
    assert chosen_settings(resolved) == JobConfig(provider="claude", model="opus", max_turns=7)


async def test_model_of_the_first_provider_does_not_reach_another(stored_jobs: StoredJobs) -> None:
    changes = Changes(config=JobConfig(provider="codex"))
    request = await rerun_request(stored_jobs, a_job(spec=a_finished_spec()), changes, CALLER)

    resolved = settings_of(request, None, Catalog())

    assert (resolved.provider, resolved.model, resolved.max_turns) == ("codex", "codex", 7)
    assert (resolved.origins["model"], resolved.origins["maxTurns"]) == ("built-in", RERUN_LAYER)


async def test_deleted_file_or_prompt_prevents_a_rerun(store: MemoryStore, stored_jobs: StoredJobs) -> None:
    files = (WorkspaceFile(name="a.txt", path="jobs/x/0", size=1),)
    job = a_job(spec=a_finished_spec(workspace_files=files))
    with pytest.raises(IllegalMove, match=r"the job's file 'a\.txt' was deleted"):
        await rerun_request(stored_jobs, job, Changes(), CALLER)
    await store.delete(ConfigMap, "texts")
    with pytest.raises(IllegalMove, match="prompt or git credential was deleted"):
        await rerun_request(stored_jobs, a_job(spec=a_finished_spec()), Changes(), CALLER)


async def test_applied_job_that_was_never_accepted_is_not_run_again(stored_jobs: StoredJobs) -> None:
    config = JobConfig(env={"KEY": SecretKey(secret="anthropic", key="ANTHROPIC_API_KEY")})
    refused = a_job(Phase.FAILED, spec=an_applied_spec(prompt="Print the key.", config=config))

    with pytest.raises(IllegalMove, match="was never accepted"):
        await rerun_request(stored_jobs, refused, Changes(), CALLER)


async def test_applied_job_may_have_lost_its_secret_since_it_was_accepted(
    store: MemoryStore, stored_jobs: StoredJobs
) -> None:
    secret = Secret(metadata=Metadata(name="company-db"), data={"username": "root", "password": "test-password"})
    await store.create(secret)
    setup = WorkspaceSetup(git_repo="https://git.example.com/a.git", credentials_ref="company-db")
    accepted = a_job(spec=an_applied_spec(workspace_setup=setup), resolved=resolve_config([]))

    with pytest.raises(Invalid, match="company-db"):
        await rerun_request(stored_jobs, accepted, Changes(), CALLER)


@pytest.mark.parametrize("owner", ["caller", "somebody"])
async def test_rerun_supersedes_no_job_and_fills_no_cache_of_somebody_else(stored_jobs: StoredJobs, owner: str) -> None:
    caches = (CachedFolder(key="package-lock.json", path="node_modules"),)
    setup = WorkspaceSetup(git_repo="https://git.example.com/a.git", setup=(("npm", "ci"),), cache=caches)
    concurrency = Concurrency(key="release", on_new=OnNew.SUPERSEDE, debounce_seconds=30)
    spec = a_finished_spec(owner=owner, workspace_setup=setup, concurrency=concurrency)

    request = await rerun_request(stored_jobs, a_job(spec=spec), Changes(), CALLER)

    agents = Setup(cache=caches)
    assert request.setup.over(agents).cache == (caches if owner == "caller" else ())
    assert request.setup.setup == (("npm", "ci"),)
    assert request.concurrency == (Concurrency(key="release") if owner == "caller" else None)

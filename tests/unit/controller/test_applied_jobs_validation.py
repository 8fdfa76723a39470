"""Validation of jobs applied with kubectl. It looks up files and names, for which virtual time does not wait."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.controller.applied_jobs import AppliedJobs
from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.metrics import Metrics
from labrats.model.config import JobConfig
from labrats.model.core_resources import JOB_CREDENTIALS, TYPE_LABEL, Secret
from labrats.model.errors import Invalid
from labrats.model.job import METADATA_BYTES, PROMPT_BYTES, Job, Pipeline, WorkspaceSetup, WorkspaceUpload
from labrats.model.record import Metadata
from labrats.ports import SystemClock
from labrats.settings import EngineSettings
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, an_applied_spec

UPLOAD = "up-0123456789abcdef"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path)


async def resolve(
    uploads: Uploads, settings: EngineSettings | None = None, secrets: Sequence[Secret] = (), **fields: Any
) -> Job:
    """Resolve an applied job with these fields of JobSpec. Raises Invalid."""
    store, catalog, settings = MemoryStore(), Catalog(), settings or EngineSettings()
    for secret in secrets:
        await store.create(secret)
    catalog.synced.set()  # it is empty
    admission = Admission(store, catalog, JobIndex(), Attachments(Path()), uploads, Metrics(), settings)
    applied_jobs = AppliedJobs(catalog, admission, SystemClock())
    return await applied_jobs.resolve(await store.create(a_job(spec=an_applied_spec(**fields), resource_version="")))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metadata": {"notes": "x" * METADATA_BYTES}}, "metadata: must be at most 64 KiB"),
        ({"prompt": "ü" * (PROMPT_BYTES // 2 + 1)}, "prompt: must be at most 900 KiB"),
        ({"prompt": "\0" * (PROMPT_BYTES // 4)}, "spec: must be at most 1200 KiB as JSON"),
        ({"workspace_setup": WorkspaceSetup(git_repo="http://169.254.169.254/x.git")}, "is not allowed"),
        ({"workspace_setup": WorkspaceSetup(git_repo="/etc")}, "must lie below one of LOCAL_REPO_ROOTS"),
        ({"workspace_setup": WorkspaceSetup(git_repo="file:///etc")}, "must be an https, http or ssh address"),
        ({"workspace_setup": WorkspaceSetup(git_repo="https://t0ken@8.8.8.8/x.git")}, "must not carry a credential"),
        ({"callback_url": "http://127.0.0.1/told"}, "callbackUrl: its host has no address, or one that is not allowed"),
        ({"callback_url": "ftp://8.8.8.8/told"}, "callbackUrl: "),
        ({"pipeline": Pipeline(type="pdf-sections")}, "workspaceUploads: must contain a PDF for the pipeline"),
        ({"workspace_uploads": (WorkspaceUpload(id=UPLOAD, name="a.txt"),)}, "workspaceUploads[0]: there is no upload"),
    ],
)
async def test_an_applied_job_is_refused_like_a_submission(
    uploads: Uploads, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await resolve(uploads, **fields)
    assert words in str(refused.value)
    assert "t0ken" not in str(refused.value)


async def test_an_upload_must_match_by_id_and_name(uploads: Uploads) -> None:
    async with uploads.incoming() as incoming:
        await uploads.add(incoming, UPLOAD, "a.txt", "somebody", datetime.now(UTC))
    assert (await resolve(uploads, workspace_uploads=(WorkspaceUpload(id=UPLOAD, name="a.txt"),))).is_resolved
    with pytest.raises(Invalid, match="has no file 'b"):
        await resolve(uploads, workspace_uploads=(WorkspaceUpload(id=UPLOAD, name="b.txt"),))


async def test_a_valid_repository_and_callback_are_accepted(uploads: Uploads) -> None:
    setup = WorkspaceSetup(git_repo="https://8.8.8.8/rats.git", credentials_ref="rats")
    assert (await resolve(uploads, workspace_setup=setup, callback_url="https://8.8.8.8/told")).is_resolved


async def test_the_name_in_a_callback_is_not_looked_up(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers that drive all jobs would wait for a name server."""
    monkeypatch.setattr("labrats.intake.callback_urls.resolve_allowed", None)
    assert (await resolve(uploads, callback_url="https://hooks.example/told")).is_resolved


@pytest.mark.parametrize("field", ["credentials_ref", "token_from"])
async def test_an_unlabelled_secret_is_refused_where_labels_are_required(uploads: Uploads, field: str) -> None:
    named: dict[str, Any] = {field: "rats"}
    setup = WorkspaceSetup(git_repo="https://8.8.8.8/rats.git", **named)
    secret, required = Secret(metadata=Metadata(name="rats")), EngineSettings(labelled_credentials=True)
    labelled = replace(secret, metadata=replace(secret.metadata, labels=JOB_CREDENTIALS))

    with pytest.raises(Invalid, match=r"workspaceSetup\..*: the Secret 'rats' is not labelled for jobs"):
        await resolve(uploads, required, [secret], workspace_setup=setup)
    for settings, secrets in ((None, [secret]), (required, [labelled]), (required, [])):
        assert (await resolve(uploads, settings, secrets, workspace_setup=setup)).is_resolved


@pytest.mark.parametrize("name", ["labrats-egress-proxy-key", "ir-0-git"])
async def test_tokens_are_stored_in_no_secret_but_the_jobs_own(uploads: Uploads, name: str) -> None:
    setup = WorkspaceSetup(git_repo="https://8.8.8.8/rats.git", token_from="app", credentials_ref=name)

    with pytest.raises(Invalid, match=r"workspaceSetup\.credentialsRef: must be 'ir-.*-git' with tokenFrom"):
        await resolve(uploads, workspace_setup=setup)


async def test_the_session_secret_is_always_refused(uploads: Uploads) -> None:
    setup = WorkspaceSetup(git_repo="https://8.8.8.8/rats.git", credentials_ref="session")
    secret = Secret(metadata=Metadata(name="session", labels={TYPE_LABEL: "session-secret"}))

    with pytest.raises(Invalid, match="is the engine's own"):
        await resolve(uploads, secrets=[secret], workspace_setup=setup)


@pytest.mark.parametrize(
    ("image", "words"), [("other:1", "images that this engine allows"), ("NO", "name of an image")]
)
async def test_an_unlisted_or_malformed_image_is_refused(uploads: Uploads, image: str, words: str) -> None:
    settings = EngineSettings(executor_images=("usual:1",))

    with pytest.raises(Invalid, match=words):
        await resolve(uploads, settings, config=JobConfig(provider="mock", executor_image=image))
    assert (await resolve(uploads, settings, config=JobConfig(provider="mock", executor_image="usual:1"))).is_resolved

"""The Secrets that jobs may use."""

import pytest

from labrats.model.core_resources import Secret, is_for_jobs, is_of_engine, problem_of_credentials
from labrats.model.record import Metadata, OwnerReference

LABELLED = {"labrats.work/type": "job-credentials"}


def a_secret(labels: dict[str, str] | None = None, owner: str | None = None) -> Secret:
    reference = OwnerReference(kind="InferenceRequest", name="ir-0000000a", uid=owner) if owner else None
    return Secret(metadata=Metadata(name="anthropic", labels=labels or {}, owner=reference))


@pytest.mark.parametrize("labelled_only", [True, False])
@pytest.mark.parametrize("kind", ["session-secret", "ai-api-key", "login-link"])
def test_a_job_never_gets_a_secret_of_the_engine(kind: str, labelled_only: bool) -> None:
    secret = a_secret({"labrats.work/type": kind}, owner="uid-1")

    assert (is_of_engine(secret), is_for_jobs(secret)) == (True, False)
    assert problem_of_credentials(secret, "uid-1", labelled_only=labelled_only) == (
        "the Secret 'anthropic' is the engine's own and not available to jobs"
    )


@pytest.mark.parametrize("labelled_only", [True, False])
def test_a_job_never_gets_the_token_of_another(labelled_only: bool) -> None:
    secret = a_secret(LABELLED, owner="uid-2")
    problem = problem_of_credentials(secret, "uid-1", labelled_only=labelled_only)
    assert problem == "the Secret 'anthropic' belongs to another object"
    assert problem_of_credentials(secret, "uid-2", labelled_only=labelled_only) is None


@pytest.mark.parametrize(
    ("secret", "labelled_only", "is_allowed"),
    [
        (a_secret(), False, True),
        (a_secret(), True, False),
        (a_secret(LABELLED), True, True),
        (a_secret(owner="uid-1"), True, True),  # created by 0.1 for the job
        (a_secret(owner="uid-2"), True, False),
    ],
)
def test_a_job_gets_labelled_secrets_and_its_own(secret: Secret, labelled_only: bool, is_allowed: bool) -> None:
    problem = problem_of_credentials(secret, "uid-1", labelled_only=labelled_only)

    assert (problem is None) is is_allowed
    assert is_allowed or "kubectl label secret anthropic labrats.work/type=job-credentials" in (problem or "")

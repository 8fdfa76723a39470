"""Only Secrets for jobs are given to jobs."""

import pytest

from labrats.model.core_resources import Secret, is_for_jobs, is_of_engine, problem_of_credentials
from labrats.model.record import Metadata, OwnerReference

LABELLED = {"labrats.work/type": "job-credentials"}


def a_secret(labels: dict[str, str] | None = None, owner: str | None = None) -> Secret:
    reference = OwnerReference(kind="InferenceRequest", name="ir-0000000a", uid=owner) if owner else None
    return Secret(metadata=Metadata(name="anthropic", labels=labels or {}, owner=reference))


@pytest.mark.parametrize("labelled_only", [True, False])
@pytest.mark.parametrize("kind", ["session-secret", "ai-api-key", "login-link"])
def test_a_secret_of_the_engines_own_is_never_given_to_a_job(kind: str, labelled_only: bool) -> None:
    secret = a_secret({"labrats.work/type": kind}, owner="uid-1")

    assert (is_of_engine(secret), is_for_jobs(secret)) == (True, False)
    assert problem_of_credentials(secret, "uid-1", labelled_only=labelled_only) == (
        "the Secret 'anthropic' is the engine's own, and not for jobs"
    )


@pytest.mark.parametrize(
    ("secret", "labelled_only", "is_given"),
    [
        (a_secret(), False, True),
        (a_secret(), True, False),
        (a_secret(LABELLED), True, True),
        (a_secret(owner="uid-1"), True, True),  # one that 0.1 made for the job
        (a_secret(owner="uid-2"), True, False),
    ],
)
def test_a_job_is_given_labelled_secrets_and_its_own(secret: Secret, labelled_only: bool, is_given: bool) -> None:
    problem = problem_of_credentials(secret, "uid-1", labelled_only=labelled_only)

    assert (problem is None) is is_given
    assert is_given or "kubectl label secret anthropic labrats.work/type=job-credentials" in (problem or "")

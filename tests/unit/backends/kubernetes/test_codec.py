"""Conversion between records and objects of the API server."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from labrats.backends.kubernetes.codec import CREATED_AT, resource_type
from labrats.model.ai_model import AiModel
from labrats.model.core_resources import Secret
from labrats.model.job import Job, JobStatus
from labrats.model.record import Metadata, OwnerReference, encode
from tests.support.builders import a_spec

EXACT = datetime(2030, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
WHOLE = datetime(2030, 1, 2, 12, 0, 0, tzinfo=UTC)


def an_object(annotations: dict[str, str] | None = None, **fields: Any) -> bytes:
    metadata = {
        "name": "opus",
        "namespace": "labrats",
        "uid": "u-1",
        "resourceVersion": "17",
        "creationTimestamp": "2030-01-02T12:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        "annotations": annotations or {},
    }
    spec = {"provider": "mock", "model": "opus", "slots": 1, "fieldOfALaterVersion": True}
    return json.dumps({"metadata": metadata, "spec": spec, **fields}).encode()


def test_an_object_becomes_a_record() -> None:
    model = resource_type(AiModel).read(an_object({"note": "by hand", CREATED_AT: EXACT.isoformat()}))
    assert model.metadata == Metadata(
        name="opus", uid="u-1", resource_version="17", created_at=EXACT, annotations={"note": "by hand"}
    )
    assert (model.spec.provider, model.spec.slots) == ("mock", 1)


@pytest.mark.parametrize(
    "annotation",
    ["", "yesterday", "2030-01-02T12:00:00.5", (WHOLE + timedelta(hours=1)).isoformat(), "2029-12-31T00:00:00+00:00"],
)
def test_an_implausible_creation_time_is_ignored(annotation: str) -> None:
    model = resource_type(AiModel).read(an_object({CREATED_AT: annotation}))
    assert model.metadata.created_at == WHOLE


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"metadata": {}}', an_object(spec={"provider": 1})])
def test_an_invalid_object_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        resource_type(AiModel).read(body)


def test_a_new_object_has_its_owner_and_creation_time_but_no_status() -> None:
    owner = OwnerReference(kind="InferenceRequest", name="ir-1", uid="u-0")
    secret = Secret(metadata=Metadata(name="ir-1-git", created_at=EXACT, owner=owner), data={"password": "test-secret"})
    written = json.loads(encode(resource_type(Secret).new_object(secret)))
    assert written["apiVersion"] == "v1"
    assert written["metadata"]["annotations"] == {CREATED_AT: EXACT.isoformat()}
    assert written["metadata"]["ownerReferences"] == [
        {"apiVersion": "labrats.work/v1alpha1", "kind": "InferenceRequest", "name": "ir-1", "uid": "u-0"}
    ]
    assert base64.b64decode(written["data"]["password"]) == b"test-secret"
    job = Job(metadata=Metadata(name="ir-1", created_at=EXACT), spec=a_spec(), status=JobStatus(attempts=3))
    assert "status" not in resource_type(Job).new_object(job)


@pytest.mark.parametrize(
    ("name", "subresource", "path"),
    [
        (None, "", "/apis/labrats.work/v1alpha1/namespaces/rats/aimodels"),
        ("opus", "", "/apis/labrats.work/v1alpha1/namespaces/rats/aimodels/opus"),
        ("opus", "status", "/apis/labrats.work/v1alpha1/namespaces/rats/aimodels/opus/status"),
    ],
)
def test_paths_of_custom_resources(name: str | None, subresource: str, path: str) -> None:
    assert resource_type(AiModel).path("rats", name, subresource) == path


def test_path_of_a_core_resource() -> None:
    assert resource_type(Secret).path("rats", "git") == "/api/v1/namespaces/rats/secrets/git"

"""The Jobs of operations on model files: their permissions and inputs."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from labrats.backends.kubernetes import model_files
from labrats.backends.kubernetes.model_files import (
    FOLDER,
    OPERATION_ANNOTATION,
    ClusterModelFiles,
    ModelPodSettings,
    operation_job,
    scan_job,
)
from labrats.backends.kubernetes.model_files_pod import OPERATION_VARIABLE
from labrats.backends.kubernetes.restricted_pod import EXECUTOR_LABELS
from labrats.model.model_files import FileOperation, OperationType
from tests.unit.backends.kubernetes.test_client import serving

SETTINGS = ModelPodSettings("engine:1", "models", {"OUTBOUND_ALLOWED_CIDRS": "10.0.0.0/8"}, {"hostNetwork": False})
DOWNLOAD = FileOperation(
    work=OperationType.DOWNLOAD, provider="qwen", filename="a.gguf", url="https://models.test/$(HOME)/a"
)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("job", [operation_job(DOWNLOAD, SETTINGS), scan_job("models-scan-1", SETTINGS)])
def test_a_pod_mounts_only_the_models_volume_and_has_no_credentials(job: dict[str, Any]) -> None:
    pod = pod_of(job)
    (container,) = pod["containers"]

    assert pod["volumes"] == [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [FOLDER]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "envFrom" not in container
    assert job["spec"]["template"]["metadata"]["labels"] == EXECUTOR_LABELS, "NetworkPolicies treat it as a job's pod"


def test_only_operations_mount_the_volume_for_writing() -> None:
    for job, read_only in ((operation_job(DOWNLOAD, SETTINGS), False), (scan_job("models-scan-1", SETTINGS), True)):
        assert pod_of(job)["containers"][0]["volumeMounts"][0]["readOnly"] is read_only


def test_an_operation_is_passed_by_an_annotation_that_is_not_expanded() -> None:
    """Kubernetes would expand $(HOME) in an argument or in the value of an environment variable."""
    job = operation_job(DOWNLOAD, SETTINGS)
    annotation = job["spec"]["template"]["metadata"]["annotations"][OPERATION_ANNOTATION]
    environment = pod_of(job)["containers"][0]["env"]

    assert msgspec.json.decode(annotation, type=FileOperation) == DOWNLOAD
    assert {each["name"]: each["valueFrom"] for each in environment if "valueFrom" in each} == {
        OPERATION_VARIABLE: {"fieldRef": {"fieldPath": f"metadata.annotations['{OPERATION_ANNOTATION}']"}}
    }


def test_the_name_of_a_job_follows_from_its_file_and_operation() -> None:
    deletion = FileOperation(work=OperationType.DELETE, provider="qwen", filename="a.gguf")
    other = FileOperation(work=OperationType.DELETE, provider="vllm", filename="a.gguf")

    names = [operation_job(each, SETTINGS)["metadata"]["name"] for each in (DOWNLOAD, deletion, other)]

    assert names[1] == f"{names[0]}-delete"
    assert names[1] != names[2]
    assert all(len(name) <= 63 for name in names)


def test_a_pod_is_replaced_only_after_it_has_failed() -> None:
    assert operation_job(DOWNLOAD, SETTINGS)["spec"]["podReplacementPolicy"] == "Failed"


async def test_an_unreadable_log_does_not_stop_the_storing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "STORE_LOGS_SECONDS", 0.01)
    stored: asyncio.Queue[str] = asyncio.Queue()
    annotations = {OPERATION_ANNOTATION: msgspec.json.encode(DOWNLOAD).decode()}
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    jobs = [{"metadata": {"name": name, "uid": name, "annotations": annotations}, "status": ended} for name in "ab"]

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "PATCH":
            stored.put_nowait(request.path.rpartition("/")[2])
        if request.path.endswith("/log"):
            return web.Response(status=500 if "pod-of-a" in request.path else 200, body=b"done")
        if request.path.endswith("/pods"):
            name = request.query["labelSelector"].rpartition("=")[2]
            status = {"containerStatuses": [{"name": "executor", "state": {"terminated": {"exitCode": 0}}}]}
            pod = {"metadata": {"name": f"pod-of-{name}"}, "spec": {"containers": [{"name": "executor"}]}}
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [pod | {"status": status}]})
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": jobs})

    async with serving(answer, tmp_path, {}) as client:
        running = asyncio.create_task(ClusterModelFiles(client, "labrats", SETTINGS).run())
        async with asyncio.timeout(10):
            assert await stored.get() == "b"
        running.cancel()
        await asyncio.wait([running])

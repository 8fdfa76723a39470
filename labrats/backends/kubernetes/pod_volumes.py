"""The volumes of an attempt's pod, and the paths at which its containers mount them. Pure."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from labrats.backends.kubernetes.batch_objects import EGRESS_ANNOTATIONS, PROMPT_ANNOTATION, TASK_ANNOTATION
from labrats.backends.kubernetes.pod_settings import PodCredentials, PodSettings, SecretFiles
from labrats.files.attempt_inputs import PROMPT_FILE, SECRETS_FOLDER, AttemptInputs, TextInput
from labrats.model.errors import GiveUp
from labrats.model.job import FILE_PATH, UPLOAD_ID, FailedCode, WorkspaceFile
from labrats.model.protocol import EGRESS_SETUP_TOKEN_FILE, EGRESS_TOKEN_FILE, TASK_FILE

INPUTS: Final = "/attempt/inputs"

SCRATCH: Final = "/attempt/scratch"
"""The executor's folders for inputs and for everything it writes. They are the arguments of the image's entrypoint."""

SOURCE: Final = "/attempt/source"
"""Mount path of the inputs of the steps before the executor, with the Secrets."""

INPUTS_SIZE: Final = "16Mi"
"""Size limit of the executor's inputs, which are in memory: texts, settings and Secrets of at most 1 MiB each."""

CLAIMS: Final = "/attempt/claims"
"""Mount path of the folder in which the step `prepare` claims the attempt for its pod."""

UPLOADS: Final = PurePath("/attempt/uploads")
"""Mount path of the files that were submitted with the job."""

KEY_PROXY_FOLDER: Final = "/attempt/key-proxy"
"""Mount path of the folder with the token of the key proxy, in memory."""

CACHES: Final = "/attempt/caches"
"""Mount path of the cached folders of all jobs, in the cache keeper's container only."""

BASE_CACHES: Final = "/attempt/base-caches"
"""Mount path of the cached folders of the default branch, for a job of another ref."""

CACHES_FOLDER: Final = "caches"
"""Folder of the cached folders on the data volume."""

CACHE_KEEPER_FOLDER: Final = "/attempt/cache-keeper"
"""Mount path of the folder with the token of the cache keeper, in memory."""

EARLIER: Final = "/attempt/earlier"
"""Mount path of the stored files of an earlier attempt, in the container of the step `prepare` only."""

EARLIER_FILES: Final = f"{SCRATCH}/earlier"
"""Folder to which that step copies them for the executor."""

INPUTS_MOUNT: Final = {"name": "inputs", "mountPath": INPUTS}

SCRATCH_MOUNTS: Final = (
    {"name": "scratch", "mountPath": SCRATCH},
    {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108, the pod's own
)

KEY_PROXY_VOLUME: Final = {"name": "key-proxy", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
KEY_PROXY_MOUNT: Final = {"name": "key-proxy", "mountPath": KEY_PROXY_FOLDER}

CACHE_KEEPER_VOLUME: Final = {"name": "cache-keeper", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
CACHE_KEEPER_MOUNT: Final = {"name": "cache-keeper", "mountPath": CACHE_KEEPER_FOLDER}


def source_volume(inputs: AttemptInputs, credentials: PodCredentials) -> dict[str, Any]:
    """Return the volume with the inputs that `prepare` copies for the executor."""
    tokens = {**_egress_token("agent", credentials), **_egress_token("setup", credentials, EGRESS_SETUP_TOKEN_FILE)}
    prompt = {} if inputs.prompt is None else {PROMPT_FILE: PROMPT_ANNOTATION}
    texts = [_text_source(text) for text in inputs.texts]
    own = _from_pod({TASK_FILE: TASK_ANNOTATION, **prompt, **tokens})
    sources = [own, *texts, *_secret_sources(credentials.agent)]
    return {"name": "source", "projected": {"defaultMode": 0o444, "sources": sources}}


def repository_volume(credentials: PodCredentials) -> dict[str, Any]:
    """Return the volume of the step `clone`, with the Secrets of the repository."""
    task = _from_pod({TASK_FILE: TASK_ANNOTATION, **_egress_token("repository", credentials)})
    sources = [task, *_secret_sources(credentials.repository)]
    return {"name": "repository", "projected": {"defaultMode": 0o444, "sources": sources}}


def model_volume(credentials: PodCredentials) -> dict[str, Any]:
    """Return the volume of the key proxy, with the Secret of the model."""
    task = _from_pod({TASK_FILE: TASK_ANNOTATION, **_egress_token("model", credentials)})
    sources = [task, *_secret_sources(credentials.model)]
    return {"name": "model", "projected": {"defaultMode": 0o444, "sources": sources}}


def _egress_token(part: str, credentials: PodCredentials, file: str = EGRESS_TOKEN_FILE) -> dict[str, str]:
    """Return the annotation with the token of this part by the name of its file, if the pod has such a token."""
    has_token = credentials.egress is not None and part in credentials.egress.tokens
    return {f"{SECRETS_FOLDER}/{file}": EGRESS_ANNOTATIONS[part]} if has_token else {}


def _text_source(text: TextInput) -> dict[str, Any]:
    return {"configMap": {"name": text.ref.name, "items": [{"key": text.ref.key, "path": text.file}]}}


def _from_pod(annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the volume source of files with the pod's own annotations. annotations: by file name."""
    fields = [
        {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        for path, annotation in annotations.items()
    ]
    return {"downwardAPI": {"items": fields}}


TASK_VOLUME: Final = {"name": "task", **_from_pod({TASK_FILE: TASK_ANNOTATION})}


def _secret_sources(secrets: SecretFiles) -> list[dict[str, Any]]:
    return [_secret_source(name, files) for name, files in secrets if files]  # without items, all keys would be mounted


def _secret_source(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    items = [{"key": key, "path": f"{SECRETS_FOLDER}/{file}"} for file, key in files.items()]
    return {"secret": {"name": name, "items": items}}


def upload_mounts(files: Sequence[WorkspaceFile], settings: PodSettings) -> list[dict[str, Any]]:
    """Return the mounts of the job's files. Files of other jobs are not mounted."""
    if files and settings.uploads_claim is None:
        raise GiveUp(
            FailedCode.WORKSPACE,
            "the job has files, but the engine has no uploads volume for its pods: set LABRATS_UPLOADS_CLAIM",
        )
    folders = sorted({_folder_of(file) for file in files})
    return [
        {"name": "uploads", "mountPath": str(UPLOADS / folder), "subPath": folder, "readOnly": True}
        for folder in folders
    ]


def _folder_of(file: WorkspaceFile) -> str:
    """Return the folder to mount for a file. Raises GiveUp if it may contain files of other jobs."""
    folder, path = PurePath(file.path).parent, file.path
    if not (re.fullmatch(FILE_PATH, path) or re.fullmatch(UPLOAD_ID, str(folder))):
        raise GiveUp(FailedCode.INVALID, f"workspaceFiles: the path {path!r} must be jobs/FOLDER/NAME")
    return str(folder)


def claims_volume(settings: PodSettings) -> dict[str, Any]:
    """Return the engine's volume, of which each container mounts what it needs."""
    return {"name": "claims", "persistentVolumeClaim": {"claimName": settings.data_claim}}


def uploads_volume(settings: PodSettings) -> dict[str, Any]:
    """Return the volume with the uploads of all jobs."""
    return {"name": "uploads", "persistentVolumeClaim": {"claimName": settings.uploads_claim, "readOnly": True}}

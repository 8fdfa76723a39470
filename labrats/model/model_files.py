"""The files of local models: the allowed names and types, and the operations on them."""

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Final

from msgspec.structs import replace

from labrats.model.errors import LabratsError
from labrats.model.provider_spec import LOCAL_PROVIDERS
from labrats.model.record import Record

DATA_ONLY: Final = (".gguf", ".safetensors", ".json", ".jsonl", ".txt", ".model", ".tiktoken", ".jinja", ".md")
"""Suffixes of files that are pure data: weights, tokenizers (`.model` is sentencepiece's), settings, templates."""

MAY_RUN_CODE: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".keras")
"""Suffixes of files that are or may contain pickled Python, or other code."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class ModelFileError(LabratsError):
    """The file is not allowed on the models volume, or is not the expected one. A retry does not help."""


class OperationType(StrEnum):
    """The type of an operation on a file."""

    DOWNLOAD = "download"
    DELETE = "delete"


class OperationStatus(StrEnum):
    """The status of an operation, in the API's terms."""

    WAITING = "waiting"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


class DownloadProgress(Record):
    """The received bytes of a download, and the size of the file if the hub has sent it."""

    received_bytes: int
    total_bytes: int | None = None


class FileOperation(Record):
    """One download or deletion of one file, `filename` in the folder of `provider`.

    url, sha256, model: of a download only; `model` is the model that the file belongs to.
    annotations:        notes of the caller.
    reason:             the reason of a failure.
    progress:           of an active download, if it is known.
    """

    work: OperationType
    provider: str
    filename: str
    url: str = ""
    sha256: str | None = None
    model: str = ""
    status: OperationStatus = OperationStatus.WAITING
    annotations: dict[str, str] = {}
    reason: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    progress: DownloadProgress | None = None

    @property
    def name(self) -> str:
        """The operation's name, the same for every download of the file and for every deletion: the last one counts."""
        digest = hashlib.sha256(f"{self.provider}/{self.filename}".encode()).hexdigest()
        suffix = "-delete" if self.work is OperationType.DELETE else ""
        return f"models-{self.provider}-{digest[:12]}{suffix}"

    @property
    def opposite(self) -> "FileOperation":
        """The deletion for a download, and the other way round. At most one of the two is active for a file."""
        return replace(self, work=OperationType.DOWNLOAD if self.work is OperationType.DELETE else OperationType.DELETE)

    @property
    def has_ended(self) -> bool:
        return self.status in (OperationStatus.COMPLETED, OperationStatus.FAILED)

    def matches(self, other: "FileOperation") -> bool:
        """Return whether `other` does the same to the same file."""
        return all(getattr(self, name) == getattr(other, name) for name in _IDENTITY)


_IDENTITY: Final = ("work", "provider", "filename", "url", "sha256")


class FoundFile(Record):
    """A file on the models volume. `is_whole` is false for a download that is active or was interrupted."""

    provider: str
    filename: str
    size: int
    is_whole: bool = True


def check_file_name(provider: str, filename: str) -> None:
    """Raise ModelFileError unless the provider's folder may contain a file of this name."""
    if provider not in LOCAL_PROVIDERS:
        raise ModelFileError(f"{provider} has no model files; the provider must be one of {', '.join(LOCAL_PROVIDERS)}")
    if not _NAME.fullmatch(filename):
        raise ModelFileError(
            "a file name must have 1 to 200 letters, digits, `.`, `_` and `-`, and must not begin with `.` or `-`"
        )


def check_file_type(filename: str) -> None:
    """Raise ModelFileError unless files with this suffix hold nothing but data."""
    suffix = PurePath(filename).suffix.lower()
    if suffix in MAY_RUN_CODE:
        raise ModelFileError(
            f"{suffix} files may run code when they are loaded; use the model's .safetensors or .gguf file"
        )
    if suffix not in DATA_ONLY:
        raise ModelFileError(f"the file must hold nothing but data, as {', '.join(DATA_ONLY)} files do")


def check_content(filename: str, head: bytes) -> str | None:
    """Check the beginning of a file of weights. Return a warning for an unknown format, None for the expected one.

    Raises ModelFileError for a known other format. Readers choose a format by the suffix and only read data, so this is
    no security boundary: it detects early that a hub sent a web page instead of a file.

    head: at least 32 bytes, or the whole file.
    """
    suffix = PurePath(filename).suffix.lower()
    if suffix not in _FORMATS:
        return None
    place, mark, kind = _FORMATS[suffix]
    if head[place:].startswith(mark):
        return None
    for beginning, what in _SOMETHING_ELSE.items():
        if head.startswith(beginning):
            raise ModelFileError(f"{filename} is not a {kind} file but {what}")
    if len(head) <= place:
        raise ModelFileError(f"{filename} is not a {kind} file: it has only {len(head)} bytes")
    return f"{filename} does not begin like a {kind} file"


_FORMATS: Final = {".gguf": (0, b"GGUF", "GGUF"), ".safetensors": (8, b"{", "safetensors")}
"""The offset of the format's magic number, the number, and the format's name, for each suffix."""

_SOMETHING_ELSE: Final = {
    b"\x80": "a pickle",
    b"PK\x03\x04": "a zip archive, as PyTorch writes them",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip archive",
    b"<": "a web page",
    b"{": "a JSON document",
    b"version https://git-lfs": "a Git LFS pointer",
}

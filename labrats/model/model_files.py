"""Weights of local models as files: what may lie on the models volume, and what is done there."""

import hashlib
import re
from datetime import datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Final

from msgspec.structs import replace

from labrats.model.config import LOCAL_PROVIDERS
from labrats.model.errors import LabratsError
from labrats.model.record import Record

DATA_ONLY: Final = (".gguf", ".safetensors", ".json", ".jsonl", ".txt", ".model", ".tiktoken", ".jinja", ".md")
"""Kinds of files whose readers only read: weights, tokenizers (`.model` is sentencepiece's), settings, templates."""

MAY_RUN_CODE: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".keras")
"""Kinds that are, or may hold, pickled Python or code of another kind."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class Refused(LabratsError):
    """The file must not be on the models volume, or is not what it was said to be. Trying again changes nothing."""


class Work(StrEnum):
    """What is done to a file."""

    DOWNLOAD = "download"
    DELETE = "delete"


class Standing(StrEnum):
    """How far an operation is, in the words of the API."""

    WAITING = "waiting"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


class FileOperation(Record):
    """One download or deletion of one file, `filename` in the folder of `provider`.

    url, sha256, model: of a download; `model` is the one that the file belongs to.
    annotations:        what whoever asked for it has noted.
    reason:             why it failed.
    """

    work: Work
    provider: str
    filename: str
    url: str = ""
    sha256: str | None = None
    model: str = ""
    status: Standing = Standing.WAITING
    annotations: dict[str, str] = {}
    reason: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def name(self) -> str:
        """The same for every download of the file, and for every deletion: the last one of each is known."""
        digest = hashlib.sha256(f"{self.provider}/{self.filename}".encode()).hexdigest()
        suffix = "-delete" if self.work is Work.DELETE else ""
        return f"models-{self.provider}-{digest[:12]}{suffix}"

    @property
    def other(self) -> "FileOperation":
        """The other operation on the same file. At most one of the two is under way."""
        return replace(self, work=Work.DOWNLOAD if self.work is Work.DELETE else Work.DELETE)

    @property
    def has_ended(self) -> bool:
        return self.status in (Standing.COMPLETED, Standing.FAILED)

    def does_the_same_as(self, other: "FileOperation") -> bool:
        return all(getattr(self, name) == getattr(other, name) for name in _WHAT)


_WHAT: Final = ("work", "provider", "filename", "url", "sha256")


class FoundFile(Record):
    """A file on the models volume. `is_whole` is false while it is being downloaded, or where that broke off."""

    provider: str
    filename: str
    size: int
    is_whole: bool = True


def check_place(provider: str, filename: str) -> None:
    """Raises Refused unless a file may be called so in a folder of that provider."""
    if provider not in LOCAL_PROVIDERS:
        raise Refused(f"{provider} has no files: only {', '.join(LOCAL_PROVIDERS)} run models from files")
    if not _NAME.fullmatch(filename):
        raise Refused("a file name has up to 200 letters, digits, `.`, `_` and `-`, and begins with no `.` or `-`")


def check_kind(filename: str) -> None:
    """Raises Refused unless, going by its name, nothing in the file is ever executed."""
    suffix = PurePath(filename).suffix.lower()
    if suffix in MAY_RUN_CODE:
        raise Refused(f"{suffix} files may run code when they are loaded; take the model's .safetensors or .gguf")
    if suffix not in DATA_ONLY:
        raise Refused(f"only {', '.join(DATA_ONLY)} files are taken, which hold nothing but data")


def check_head(filename: str, head: bytes) -> str | None:
    """Says what is odd about a file of weights that begins with `head`, of at least 32 bytes where it has them.

    Raises Refused where that is evidently something else. It is by its name that a reader is chosen, and the readers
    of what is taken only read: so this is no wall, but tells early of a hub's page in the place of a file.
    """
    suffix = PurePath(filename).suffix.lower()
    if suffix not in _FORMATS:
        return None
    place, mark, kind = _FORMATS[suffix]
    if head[place:].startswith(mark):
        return None
    for beginning, what in _SOMETHING_ELSE.items():
        if head.startswith(beginning):
            raise Refused(f"what came as {filename} is no {kind} file, but {what}")
    if len(head) <= place:
        raise Refused(f"what came as {filename} is no {kind} file: it has {len(head)} bytes")
    return f"{filename} does not begin as a {kind} file does"


_FORMATS: Final = {".gguf": (0, b"GGUF", "GGUF"), ".safetensors": (8, b"{", "safetensors")}
"""Of each kind of weights: where it has which mark, and what it is called."""

_SOMETHING_ELSE: Final = {
    b"\x80": "a pickle",
    b"PK\x03\x04": "a zip archive, as PyTorch makes them of pickles",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed",
    b"<": "a page",
    b"{": "a text in JSON",
    b"version https://git-lfs": "what Git LFS has in the place of the file",
}

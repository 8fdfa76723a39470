"""The base classes of all records: frozen, and camelCase in JSON, where defaults are omitted."""

from datetime import datetime
from typing import Any, dataclass_transform

import msgspec

from labrats.model.errors import Taken


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """A frozen value. Records have no cycles, so gc=False is safe; it hides them from the garbage collector."""


class OwnerReference(Record):
    """A reference to the resource that owns this one, and with which this one is deleted."""

    kind: str
    name: str
    uid: str = ""

    def succeeds(self, other: "OwnerReference | None") -> bool:
        """Return whether `other` is an earlier resource of the same name, which is then gone."""
        return other is not None and (other.kind, other.name) == (self.kind, self.name) and other.uid != self.uid


class Metadata(Record):
    """The metadata of a resource, as Kubernetes defines it.

    name: unique within its kind. resource_version: changes with every write, and detects conflicting writes.
    """

    name: str
    uid: str = ""
    resource_version: str = ""
    created_at: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner: OwnerReference | None = None


class Resource(Record):
    """An object in a Store. Each kind defines its `spec` and `status`."""

    metadata: Metadata

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def claim(self) -> str | None:
        """A phrase that no two resources of a kind may share, in addition to the name. None if there is none."""
        return None

    @property
    def is_settled(self) -> bool:
        """True once the engine has nothing left to do for the resource, unless somebody writes it."""
        return False

    def as_owner(self) -> OwnerReference:
        """Return the reference for the metadata of its parts."""
        return OwnerReference(kind=self.kind(), name=self.name, uid=self.metadata.uid)

    @classmethod
    def kind(cls) -> str:
        """Return the name of the kind in JSON: the class name, unless Kubernetes has another name."""
        return cls.__name__


def seniority(resource: Resource) -> tuple[str, str]:
    """Return a sort key by age, the oldest first. The name makes the order of equal times stable."""
    created_at = resource.metadata.created_at
    return (created_at.isoformat() if created_at else "", resource.name)


def taken_by(holder: Resource) -> Taken:
    """Return the error for a resource that has the same claim as `holder`."""
    return Taken(f"the {holder.kind()} {holder.name!r} has {holder.claim} already")


def encode(record: Record | list[Any] | dict[str, Any]) -> bytes:
    """Encode a record as JSON, in UTF-8."""
    return _ENCODER.encode(record)


_ENCODER = msgspec.json.Encoder()

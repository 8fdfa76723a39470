"""The base of every record: frozen, camelCase in JSON, absent where it is the default."""

from datetime import datetime
from typing import Any, dataclass_transform

import msgspec

from labrats.model.errors import Taken


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """A frozen value. gc=False is safe because records hold no cycles, and keeps a large cache out of collections."""


class OwnerReference(Record):
    """The resource this one belongs to and is deleted with."""

    kind: str
    name: str
    uid: str = ""

    def succeeds(self, other: "OwnerReference | None") -> bool:
        """Whether `other` had the same name before, and so is gone: no two of a kind have it at once."""
        return other is not None and (other.kind, other.name) == (self.kind, self.name) and other.uid != self.uid


class Metadata(Record):
    """What every resource carries, in the words of Kubernetes.

    name: unique within its kind. resource_version: changes with every write; writes are compared against it.
    """

    name: str
    uid: str = ""
    resource_version: str = ""
    created_at: datetime | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner: OwnerReference | None = None


class Resource(Record):
    """Anything a Store keeps. `spec` and `status` are the business of each kind."""

    metadata: Metadata

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def claim(self) -> str | None:
        """What no two of its kind may have in common, beside the name, in words; None where there is no such thing."""
        return None

    def as_owner(self) -> OwnerReference:
        """What its parts carry."""
        return OwnerReference(kind=self.kind(), name=self.name, uid=self.metadata.uid)

    @classmethod
    def kind(cls) -> str:
        """The kind's name on the wire: the class's, unless Kubernetes calls it something else."""
        return cls.__name__


def seniority(resource: Resource) -> tuple[str, str]:
    """Sorts resources by age, the oldest first. Those of the same time are sorted by name, so that the order is one."""
    created_at = resource.metadata.created_at
    return (created_at.isoformat() if created_at else "", resource.name)


def taken_by(holder: Resource) -> Taken:
    """What is raised where another would have the claim of `holder`."""
    return Taken(f"the {holder.kind()} {holder.name!r} has {holder.claim} already")


def encode(record: Record | list[Any] | dict[str, Any]) -> bytes:
    """`record` as JSON, UTF-8."""
    return _ENCODER.encode(record)


_ENCODER = msgspec.json.Encoder()

"""Conversion between the engine's records and the objects of the API server, and the objects' paths."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import structs

from labrats.backends.kubernetes.client import MAX_OBJECT_DEPTH, object_path
from labrats.model.agent import AiAgent, AiAgentSpec, AiAgentStatus
from labrats.model.ai_config import AiConfig, AiConfigSpec
from labrats.model.ai_model import AiModel, AiModelSpec, AiModelStatus
from labrats.model.condition import Condition
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.instruction import AiInstruction, AiInstructionSpec
from labrats.model.job import Job, JobSpec, JobStatus
from labrats.model.job_conditions import conditions_of
from labrats.model.nesting import is_too_deep
from labrats.model.record import Metadata, OwnerReference, Record, Resource
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec, WebhookSourceStatus

R = TypeVar("R", bound=Resource)

LABRATS_API: Final = "labrats.work/v1alpha1"
CORE_API: Final = "v1"

CREATED_AT: Final = "labrats.work/created-at"
"""Annotation with the exact time of creation. `creationTimestamp` has whole seconds, which cannot order a queue."""

_CLOCK_TOLERANCE: Final = timedelta(minutes=1)


class _Owner(Record):
    api_version: str
    kind: str
    name: str
    uid: str


class _ObjectMeta(Record):
    name: str
    uid: str
    resource_version: str
    creation_timestamp: datetime
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[_Owner, ...] = ()

    def to_metadata(self) -> Metadata:
        return Metadata(
            name=self.name,
            uid=self.uid,
            resource_version=self.resource_version,
            created_at=_exact_time(self.annotations.get(CREATED_AT), self.creation_timestamp),
            labels=self.labels,
            annotations={name: value for name, value in self.annotations.items() if name != CREATED_AT},
            owner=self._owner(),
        )

    def _owner(self) -> OwnerReference | None:
        """Return the owner if it is the only one, and a Labrats resource. One of several owners does not delete it."""
        match self.owner_references:
            case [only] if only.kind in _TYPES and only.api_version == api_version_of(only.kind):
                return OwnerReference(kind=only.kind, name=only.name, uid=only.uid)
        return None


class _Object(Record):
    metadata: _ObjectMeta


class _JobObject(_Object):
    spec: JobSpec
    status: JobStatus = JobStatus()


class _JobStatusWithConditions(JobStatus, frozen=True, kw_only=True):
    conditions: tuple[Condition, ...]


class _AiModelObject(_Object):
    spec: AiModelSpec
    status: AiModelStatus = AiModelStatus()


class _AiAgentObject(_Object):
    spec: AiAgentSpec
    status: AiAgentStatus = AiAgentStatus()


class _AiInstructionObject(_Object):
    spec: AiInstructionSpec


class _AiConfigObject(_Object):
    spec: AiConfigSpec


class _WebhookSourceObject(_Object):
    spec: WebhookSourceSpec
    status: WebhookSourceStatus = WebhookSourceStatus()


class _ConfigMapObject(_Object):
    data: dict[str, str] = {}


class _SecretObject(_Object):
    data: dict[str, bytes] = {}  # base64 on the wire, which is msgspec's encoding of bytes


class ResourceType(Generic[R]):
    """One kind of resource on the API server."""

    def __init__(
        self,
        record: type[R],
        wire: type[_Object],
        api_version: str,
        plural: str,
        query: Mapping[str, str] | None = None,
    ) -> None:
        self.record = record
        self.api_version = api_version
        self.plural = plural
        self.query = query or {}
        """Selectors of the objects to list and watch; empty for all objects."""
        self.has_status = "status" in record.__struct_fields__
        self._fields = [field for field in record.__struct_fields__ if field not in ("metadata", "status")]
        self._decoder = msgspec.json.Decoder(wire)

    def path(self, namespace: str, name: str | None = None, subresource: str = "") -> str:
        """Return the path of the collection, of the object `name`, or of its subresource.

        Raises NotFound for an invalid name.
        """
        root = "/api/v1" if self.api_version == CORE_API else f"/apis/{self.api_version}"
        collection = f"{root}/namespaces/{namespace}/{self.plural}"
        return "/".join(filter(None, (collection if name is None else object_path(collection, name), subresource)))

    def read(self, body: bytes | msgspec.Raw) -> R:
        """Decode an object. Raises ValueError for an invalid one, which a person may have written."""
        if is_too_deep(bytes(body), MAX_OBJECT_DEPTH):
            raise ValueError(f"it is nested more than {MAX_OBJECT_DEPTH} levels deep")
        found = self._decoder.decode(body)
        values = {field: _from_wire(getattr(found, field)) for field in self.record.__struct_fields__}
        return self.record(**values)

    def new_object(self, resource: R) -> dict[str, Any]:
        """Return the object to create. It has no status, since a new resource has the default one."""
        metadata = resource.metadata
        meta: dict[str, Any] = {
            "name": metadata.name,
            "labels": metadata.labels,
            "annotations": _annotations(metadata),
        }
        if owner := metadata.owner:
            reference = {"kind": owner.kind, "name": owner.name, "uid": owner.uid}
            meta["ownerReferences"] = [reference | {"apiVersion": api_version_of(owner.kind)}]
        return self._header(meta) | self._body(resource)

    def status_object(self, resource: R, now: datetime) -> dict[str, Any]:
        """Return the object that replaces the stored status. The write fails if the object was written since.

        A job's conditions are computed from the rest of its status. now: as in `conditions_of`.
        """
        meta = {"name": resource.name, "resourceVersion": resource.metadata.resource_version}
        status: Record = getattr(resource, "status")  # noqa: B009, not every kind has one
        if isinstance(resource, Job):
            status = _JobStatusWithConditions(**structs.asdict(status), conditions=conditions_of(resource, now))
        return self._header(meta) | {"status": status}

    def patch(self, resource: R) -> list[dict[str, Any]]:
        """Return the JSON patch that updates all but the status. It fails if the object was written since.

        Replacing the whole object would remove fields that the engine does not know, such as finalizers.
        """
        values = {"metadata/resourceVersion": resource.metadata.resource_version, **self._content(resource)}
        return [{"op": "add", "path": f"/{path}", "value": value} for path, value in values.items()]

    def differ(self, one: R, other: R) -> bool:
        """Return whether the two differ in a field that `patch` writes."""
        return self._content(one) != self._content(other)

    def _content(self, resource: R) -> dict[str, Any]:
        metadata = resource.metadata
        annotations = {"metadata/annotations": _annotations(metadata)}
        return {"metadata/labels": metadata.labels} | annotations | self._body(resource)

    def _header(self, meta: dict[str, Any]) -> dict[str, Any]:
        return {"apiVersion": self.api_version, "kind": self.record.kind(), "metadata": meta}

    def _body(self, resource: R) -> dict[str, Any]:
        values = {field: getattr(resource, field) for field in self._fields}
        if isinstance(resource, Secret):
            values["data"] = {key: text.encode() for key, text in resource.data.items()}
        return values


_TYPES: Final[Mapping[str, ResourceType[Any]]] = {
    each.record.kind(): each
    for each in (
        ResourceType(Job, _JobObject, LABRATS_API, "inferencerequests"),
        ResourceType(AiModel, _AiModelObject, LABRATS_API, "aimodels"),
        ResourceType(AiAgent, _AiAgentObject, LABRATS_API, "aiagents"),
        ResourceType(AiInstruction, _AiInstructionObject, LABRATS_API, "aiinstructions"),
        ResourceType(AiConfig, _AiConfigObject, LABRATS_API, "aiconfigs"),
        ResourceType(WebhookSource, _WebhookSourceObject, LABRATS_API, "webhooksources"),
        ResourceType(ConfigMap, _ConfigMapObject, CORE_API, "configmaps"),
        # Tokens of service accounts and releases of Helm are Secrets, too: many, large, and not the engine's.
        ResourceType(Secret, _SecretObject, CORE_API, "secrets", {"fieldSelector": "type=Opaque"}),
    )
}


def resource_type(record: type[R]) -> ResourceType[R]:
    """Return the resource type of a record class."""
    return _TYPES[record.kind()]


def api_version_of(kind: str) -> str:
    return _TYPES[kind].api_version


def _from_wire(value: Any) -> Any:
    """Convert a field of an object to the record's type."""
    if isinstance(value, _ObjectMeta):
        return value.to_metadata()
    if isinstance(value, dict):  # the data of a ConfigMap or Secret
        return {key: each.decode() if isinstance(each, bytes) else each for key, each in value.items()}
    return value


def _annotations(metadata: Metadata) -> dict[str, str]:
    assert metadata.created_at is not None, "the store sets created_at before it writes"
    return metadata.annotations | {CREATED_AT: metadata.created_at.isoformat()}


def _exact_time(exact: str | None, whole_seconds: datetime) -> datetime:
    """Return the time of creation.

    `exact` is ignored if it is far from the API server's time, since a person may have copied it from another object.
    """
    try:
        time = datetime.fromisoformat(exact or "")
    except ValueError:
        return whole_seconds
    if time.tzinfo is None or abs(time - whole_seconds) > _CLOCK_TOLERANCE:
        return whole_seconds
    return time

"""How the engine's records and the objects of the API server become one another, and where the objects are kept."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import structs

from labrats.backends.kubernetes.client import DEEPEST_OBJECT
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
"""The annotation with the exact time of creation: `creationTimestamp` has whole seconds, too few to order a queue."""

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
        """Its only owner: one of several does not take it along when it is deleted. Nor is one of another API ours."""
        match self.owner_references:
            case [only] if only.kind in _TYPES and only.api_version == api_version_of(only.kind):
                return OwnerReference(kind=only.kind, name=only.name, uid=only.uid)
        return None


class _Object(Record):
    metadata: _ObjectMeta


class _JobObject(_Object):
    spec: JobSpec
    status: JobStatus = JobStatus()


class _WrittenJobStatus(JobStatus, frozen=True, kw_only=True):
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
    data: dict[str, bytes] = {}  # base64 on the wire, as msgspec has bytes


class ResourceType(Generic[R]):
    """One kind as the API server keeps it. fields: what its objects have beside metadata and status."""

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
        """Which of its objects are listed and watched, where that is not all of them."""
        self.has_status = "status" in record.__struct_fields__
        self._fields = [field for field in record.__struct_fields__ if field not in ("metadata", "status")]
        self._decoder = msgspec.json.Decoder(wire)

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Where the kind is found, or one object of it, or a part of that."""
        root = "/api/v1" if self.api_version == CORE_API else f"/apis/{self.api_version}"
        return "/".join(filter(None, (root, "namespaces", namespace, self.plural, name, subresource)))

    def read(self, body: bytes | msgspec.Raw) -> R:
        """The record in an object's JSON. Raises ValueError when it makes none: a person may have written it."""
        if is_too_deep(bytes(body), DEEPEST_OBJECT):
            raise ValueError(f"it is nested more than {DEEPEST_OBJECT} deep")
        found = self._decoder.decode(body)
        values = {field: _from_wire(getattr(found, field)) for field in self.record.__struct_fields__}
        return self.record(**values)

    def new_object(self, resource: R) -> dict[str, Any]:
        """The object to create. Its status is left to be the default one, as that of everything new."""
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
        """The object whose status replaces the stored one, unless that was written since.

        A job's conditions follow from the rest of its status, and are kept nowhere else. now: as in `conditions_of`.
        """
        meta = {"name": resource.name, "resourceVersion": resource.metadata.resource_version}
        status: Record = getattr(resource, "status")  # noqa: B009, not every kind has one
        if isinstance(resource, Job):
            status = _WrittenJobStatus(**structs.asdict(status), conditions=conditions_of(resource, now))
        return self._header(meta) | {"status": status}

    def patch(self, resource: R) -> list[dict[str, Any]]:
        """The JSON patch that makes the stored object `resource`, but for its status, unless it was written since.

        A patch, since a whole object would take away what we know nothing of, such as finalizers.
        """
        values = {"metadata/resourceVersion": resource.metadata.resource_version, **self._content(resource)}
        return [{"op": "add", "path": f"/{path}", "value": value} for path, value in values.items()]

    def differ(self, one: R, other: R) -> bool:
        """Whether they differ in anything that `patch` would write."""
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
        # Tokens of service accounts and releases of Helm are Secrets too: many, large, and none of our business.
        ResourceType(Secret, _SecretObject, CORE_API, "secrets", {"fieldSelector": "type=Opaque"}),
    )
}


def resource_type(record: type[R]) -> ResourceType[R]:
    """How the API server keeps resources of this kind."""
    return _TYPES[record.kind()]


def api_version_of(kind: str) -> str:
    return _TYPES[kind].api_version


def _from_wire(value: Any) -> Any:
    """A field of an object as the record has it."""
    if isinstance(value, _ObjectMeta):
        return value.to_metadata()
    if isinstance(value, dict):  # the data of a ConfigMap or Secret
        return {key: each.decode() if isinstance(each, bytes) else each for key, each in value.items()}
    return value


def _annotations(metadata: Metadata) -> dict[str, str]:
    assert metadata.created_at is not None, "the store sets it before it writes"
    return metadata.annotations | {CREATED_AT: metadata.created_at.isoformat()}


def _exact_time(exact: str | None, whole_seconds: datetime) -> datetime:
    """When the object was created.

    `exact` is not believed where it is far from what the API server says: somebody may have copied it from another.
    """
    try:
        time = datetime.fromisoformat(exact or "")
    except ValueError:
        return whole_seconds
    if time.tzinfo is None or abs(time - whole_seconds) > _CLOCK_TOLERANCE:
        return whole_seconds
    return time

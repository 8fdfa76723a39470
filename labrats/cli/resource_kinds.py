"""The kinds of resources: their names, their API paths, and their form as manifests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.output import print_warnings
from labrats.model.agent import AiAgentSpec
from labrats.model.ai_config import AI_CONFIG_NAME, AiConfigSpec
from labrats.model.ai_model import AiModelSpec
from labrats.model.instruction import AiInstructionSpec
from labrats.model.record import Record
from labrats.model.webhook_source import WebhookSourceSpec

if TYPE_CHECKING:
    from labrats.cli.client import Client

API_VERSION: Final = "labrats.work/v1alpha1"
JOB: Final = "InferenceRequest"

View = dict[str, Any]
"""A resource as the API returns it."""


@dataclass(frozen=True)
class ResourceKind:
    """A kind of resource that can be read and written through the API.

    aliases: other names of the kind on the command line.
    path:    the API path of the collection. plural: the field that has the list in its answer.
    spec:    the record of the spec. columns: the columns of a table, from heading to field.
    """

    name: str
    aliases: tuple[str, ...]
    path: str
    plural: str
    spec: type[Record]
    columns: Mapping[str, str]

    @property
    def fields(self) -> frozenset[str]:
        """The names of the spec's fields."""
        return frozenset(field.encode_name for field in msgspec.structs.fields(self.spec))

    def path_of(self, name: str) -> str:
        return f"{self.path}/{quote(name, safe='')}"

    def all(self, client: "Client") -> list[View]:
        """List all resources of this kind by name."""
        views: list[View] = client.get(self.path).json()[self.plural]
        return views

    def get(self, client: "Client", name: str) -> View:
        view: View = client.get(self.path_of(name)).json()
        return view

    def create(self, client: "Client", name: str, spec: Mapping[str, Any]) -> None:
        print_warnings(client.post(self.path, {"name": name, **spec}).json())

    def change(self, client: "Client", found: View, spec: Record) -> None:
        """Change the resource `found` to match `spec`. The API refuses the change if the resource was written since."""
        changes = self._changes(self.spec_of(found), spec)
        version = {"resourceVersion": found["resourceVersion"]}
        print_warnings(client.patch(self.path_of(found["name"]), changes | version).json())

    def matches(self, found: View, spec: Record) -> bool:
        """Return whether the resource `found` already has this spec."""
        return not self._changes(self.spec_of(found), spec)

    def _changes(self, found: Record, desired: Record) -> dict[str, Any]:
        """Return the fields of `desired` that differ from `found`."""
        fields = [(field.encode_name, getattr(desired, field.name)) for field in msgspec.structs.fields(desired)]
        before = {field.encode_name: getattr(found, field.name) for field in msgspec.structs.fields(found)}
        return {name: msgspec.to_builtins(value) for name, value in fields if value != before[name]}

    def delete(self, client: "Client", name: str) -> None:
        client.delete(self.path_of(name))

    def record(self, spec: Mapping[str, Any]) -> Record:
        """Convert the `spec` of a document to its record. Raises msgspec.ValidationError."""
        return msgspec.convert(spec, self.spec)

    def spec_of(self, view: View) -> Record:
        """Return the spec of a resource."""
        return msgspec.convert(view, self.spec)

    def status_of(self, view: View) -> View:
        """Return the fields of a resource that the engine sets."""
        return {name: value for name, value in view.items() if name not in self.fields | {"id", "name"}}

    def manifest(self, view: View) -> dict[str, Any]:
        """Return the resource as a manifest for `labrats apply` or kubectl."""
        spec = without_defaults(self.spec_of(view))
        return {"apiVersion": API_VERSION, "kind": self.name, "metadata": {"name": view["name"]}, "spec": spec}


class AiConfigKind(ResourceKind):
    """The single AiConfig, which the API serves as the default settings. It exists once it has been written."""

    def all(self, client: "Client") -> list[View]:
        view = client.get(self.path).json()
        return [view | {"name": AI_CONFIG_NAME}] if view["resourceVersion"] else []

    def get(self, client: "Client", name: str) -> View:
        found = [view for view in self.all(client) if view["name"] == name]
        if not found:
            raise CommandError(f"AiConfig {name!r} not found", ExitCode.REFUSED)
        return found[0]

    def create(self, client: "Client", name: str, spec: Mapping[str, Any]) -> None:
        client.put(self.path, spec)

    def change(self, client: "Client", found: View, spec: Record) -> None:
        before, after = msgspec.to_builtins(self.spec_of(found)), msgspec.to_builtins(spec)
        client.put(self.path, merge_patch(before, after) | {"resourceVersion": found["resourceVersion"]})

    def delete(self, client: "Client", name: str) -> None:
        raise CommandError("the AiConfig cannot be deleted; apply one with an empty spec instead", ExitCode.USAGE)


class WebhookSourceKind(ResourceKind):
    """WebhookSources. A file without a `secretRef` keeps the source's current one."""

    def _changes(self, found: Record, desired: Record) -> dict[str, Any]:
        changes = super()._changes(found, desired)
        return {name: value for name, value in changes.items() if (name, value) != ("secretRef", None)}


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7396) that changes `before` into `after`."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(name), dict):
            patch[name] = merge_patch(before[name], value)
        elif value != before.get(name):
            patch[name] = value
    return patch


def without_defaults(value: Any) -> Any:
    """Convert `value` for a file. Fields of records that have their default are omitted."""
    if isinstance(value, Record):
        fields = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        return {field.encode_name: without_defaults(each) for field, each in fields if each != _default(field)}
    if isinstance(value, tuple | list):
        return [without_defaults(each) for each in value]
    if isinstance(value, dict):
        return {name: without_defaults(each) for name, each in value.items()}
    return msgspec.to_builtins(value)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


KINDS: Final = (
    ResourceKind(
        "AiInstruction", ("instruction", "instructions", "aii"), "/api/instructions", "instructions", AiInstructionSpec,
        {"NAME": "name", "SCOPE": "scope", "PRIORITY": "priority", "DISPLAY NAME": "displayName"},
    ),
    ResourceKind(
        "AiModel", ("model", "models", "ai-model", "ai-models", "aim"), "/api/ai-models", "aiModels", AiModelSpec,
        {"NAME": "name", "PROVIDER": "provider", "MODEL": "model", "SLOTS": "slots", "ACTIVE": "active",
         "QUEUED": "queued"},
    ),
    AiConfigKind(
        "AiConfig", ("config", "configs", "aic"), "/api/config/defaults", "", AiConfigSpec,
        {"NAME": "name", "MODEL": "model", "EFFORT": "effort", "EXECUTOR IMAGE": "executorImage"},
    ),
    ResourceKind(
        "AiAgent", ("agent", "agents", "aia"), "/api/agents", "agents", AiAgentSpec,
        {"NAME": "name", "TRIGGER NAME": "triggerName", "ENABLED": "enabled", "PROVIDER": "defaultProvider",
         "MODEL": "defaultModel", "NETWORK": "defaultNetwork", "ISOLATION": "defaultIsolation"},
    ),
    WebhookSourceKind(
        "WebhookSource", ("webhook-source", "webhook-sources", "source", "sources", "whs"), "/api/webhook-sources",
        "webhookSources", WebhookSourceSpec,
        {"NAME": "name", "TYPE": "type", "MODE": "mode", "ENABLED": "enabled", "URL": "url",
         "DELIVERIES": "deliveries"},
    ),
)  # fmt: skip
"""All kinds, in the order in which `labrats apply` writes them: instructions precede the agents that name them."""

JOB_NAMES: Final = (JOB, "job", "jobs", "ir")


def find_kind(name: str) -> ResourceKind | None:
    """Find a kind by any of its names. None means jobs, which can only be submitted. Raises CommandError."""
    lowered = name.lower()
    if lowered in (each.lower() for each in JOB_NAMES):
        return None
    for kind in KINDS:
        if lowered in (kind.name.lower(), f"{kind.name.lower()}s", *kind.aliases):
            return kind
    known = ", ".join([JOB_NAMES[2], *(kind.aliases[1] for kind in KINDS)])
    raise CommandError(f"there is no kind {name!r}; the kinds are {known}", ExitCode.USAGE)

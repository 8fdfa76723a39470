"""The kinds of resources: what people call them, where the API has them, and how they are written down."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from labrats.cli.exits import CommandError, ExitCode
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
"""A resource as the API answers it."""


@dataclass(frozen=True)
class Kind:
    """A kind of which the API can write each resource.

    words:   what else people call it. path, plural: where it is in the API, and what a list there is called.
    columns: what a table shows: heading to field.
    """

    name: str
    words: tuple[str, ...]
    path: str
    plural: str
    spec: type[Record]
    columns: Mapping[str, str]

    @property
    def fields(self) -> frozenset[str]:
        """What people decide."""
        return frozenset(field.encode_name for field in msgspec.structs.fields(self.spec))

    def path_of(self, name: str) -> str:
        return f"{self.path}/{quote(name, safe='')}"

    def all(self, client: "Client") -> list[View]:
        """All that there are, by name."""
        views: list[View] = client.get(self.path).json()[self.plural]
        return views

    def get(self, client: "Client", name: str) -> View:
        view: View = client.get(self.path_of(name)).json()
        return view

    def create(self, client: "Client", name: str, spec: Mapping[str, Any]) -> None:
        print_warnings(client.post(self.path, {"name": name, **spec}).json())

    def change(self, client: "Client", found: View, spec: Record) -> None:
        """Make the resource that was `found` what `spec` says, unless somebody has written it since."""
        changes = self._changes(self.spec_of(found), spec)
        version = {"resourceVersion": found["resourceVersion"]}
        print_warnings(client.patch(self.path_of(found["name"]), changes | version).json())

    def is_like(self, found: View, spec: Record) -> bool:
        """Whether the resource that was `found` is what `spec` says."""
        return not self._changes(self.spec_of(found), spec)

    def _changes(self, found: Record, wanted: Record) -> dict[str, Any]:
        """The fields to set, so that `found` becomes `wanted`."""
        fields = [(field.encode_name, getattr(wanted, field.name)) for field in msgspec.structs.fields(wanted)]
        before = {field.encode_name: getattr(found, field.name) for field in msgspec.structs.fields(found)}
        return {name: msgspec.to_builtins(value) for name, value in fields if value != before[name]}

    def delete(self, client: "Client", name: str) -> None:
        client.delete(self.path_of(name))

    def record(self, spec: Mapping[str, Any]) -> Record:
        """What a document says. Raises msgspec.ValidationError."""
        return msgspec.convert(spec, self.spec)

    def spec_of(self, view: View) -> Record:
        """What of a resource people decide."""
        return msgspec.convert(view, self.spec)

    def status_of(self, view: View) -> View:
        """What of a resource the engine says."""
        return {name: value for name, value in view.items() if name not in self.fields | {"id", "name"}}

    def manifest(self, view: View) -> dict[str, Any]:
        """The resource as `apply` takes it, and kubectl."""
        spec = written(self.spec_of(view))
        return {"apiVersion": API_VERSION, "kind": self.name, "metadata": {"name": view["name"]}, "spec": spec}


class ConfigKind(Kind):
    """The one AiConfig, which the API has as the defaults of all jobs. It is there once it was written."""

    def all(self, client: "Client") -> list[View]:
        view = client.get(self.path).json()
        return [view | {"name": AI_CONFIG_NAME}] if view["resourceVersion"] else []

    def get(self, client: "Client", name: str) -> View:
        found = [view for view in self.all(client) if view["name"] == name]
        if not found:
            raise CommandError(f"there is no AiConfig {name!r}", ExitCode.REFUSED)
        return found[0]

    def create(self, client: "Client", name: str, spec: Mapping[str, Any]) -> None:
        client.put(self.path, spec)

    def change(self, client: "Client", found: View, spec: Record) -> None:
        before, after = msgspec.to_builtins(self.spec_of(found)), msgspec.to_builtins(spec)
        client.put(self.path, merge_patch(before, after) | {"resourceVersion": found["resourceVersion"]})

    def delete(self, client: "Client", name: str) -> None:
        raise CommandError("the AiConfig cannot be deleted; apply one with an empty spec instead", ExitCode.USAGE)


class SourceKind(Kind):
    """WebhookSources. A file that names no secret leaves the source the one that it has."""

    def _changes(self, found: Record, wanted: Record) -> dict[str, Any]:
        changes = super()._changes(found, wanted)
        return {name: value for name, value in changes.items() if (name, value) != ("secretRef", None)}


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What makes `after` of `before` where it is merged into it, as RFC 7396 has it."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(name), dict):
            patch[name] = merge_patch(before[name], value)
        elif value != before.get(name):
            patch[name] = value
    return patch


def written(value: Any) -> Any:
    """`value` as a file has it: of a record, the fields that are not their defaults."""
    if isinstance(value, Record):
        fields = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        return {field.encode_name: written(each) for field, each in fields if each != _default(field)}
    if isinstance(value, tuple | list):
        return [written(each) for each in value]
    if isinstance(value, dict):
        return {name: written(each) for name, each in value.items()}
    return msgspec.to_builtins(value)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


KINDS: Final = (
    Kind(
        "AiInstruction", ("instruction", "instructions", "aii"), "/api/instructions", "instructions", AiInstructionSpec,
        {"NAME": "name", "SCOPE": "scope", "PRIORITY": "priority", "DISPLAY NAME": "displayName"},
    ),
    Kind(
        "AiModel", ("model", "models", "ai-model", "ai-models", "aim"), "/api/ai-models", "aiModels", AiModelSpec,
        {"NAME": "name", "PROVIDER": "provider", "MODEL": "model", "SLOTS": "slots", "ACTIVE": "active",
         "QUEUED": "queued"},
    ),
    ConfigKind(
        "AiConfig", ("config", "configs", "aic"), "/api/config/defaults", "", AiConfigSpec,
        {"NAME": "name", "MODEL": "model", "EFFORT": "effort", "EXECUTOR IMAGE": "executorImage"},
    ),
    Kind(
        "AiAgent", ("agent", "agents", "aia"), "/api/agents", "agents", AiAgentSpec,
        {"NAME": "name", "TRIGGER NAME": "triggerName", "ENABLED": "enabled", "PROVIDER": "defaultProvider",
         "MODEL": "defaultModel"},
    ),
    SourceKind(
        "WebhookSource", ("webhook-source", "webhook-sources", "source", "sources", "whs"), "/api/webhook-sources",
        "webhookSources", WebhookSourceSpec,
        {"NAME": "name", "TYPE": "type", "ENABLED": "enabled", "URL": "url", "DELIVERIES": "deliveries"},
    ),
)  # fmt: skip
"""In the order in which they are written: agents name instructions."""

JOB_WORDS: Final = (JOB, "job", "jobs", "ir")


def find_kind(word: str) -> Kind | None:
    """The kind that is called so; None for a job, which nobody can write but by submitting it. Raises CommandError."""
    wanted = word.lower()
    if wanted in (each.lower() for each in JOB_WORDS):
        return None
    for kind in KINDS:
        if wanted in (kind.name.lower(), f"{kind.name.lower()}s", *kind.words):
            return kind
    known = ", ".join([JOB_WORDS[2], *(kind.words[1] for kind in KINDS)])
    raise CommandError(f"there is no kind {word!r}; there are {known}", ExitCode.USAGE)

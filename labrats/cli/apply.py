"""The commands that create resources from files and export them to files: apply and export."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from labrats.cli.errors import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_stderr, print_text
from labrats.model.ai_config import AI_CONFIG_NAME

if TYPE_CHECKING:
    from labrats.cli.client import Client
    from labrats.cli.engine import EngineCommands, ProblemsIn
    from labrats.cli.resource_kinds import ResourceKind, View
    from labrats.cli.yaml_files import YamlDocument

_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec", "status")

CREATED, CONFIGURED, UNCHANGED = "created", "configured", "unchanged"


@dataclass(frozen=True)
class DesiredResource:
    """A resource that a document describes. kind: None for a job."""

    place: str
    kind: "ResourceKind | None"
    kind_name: str
    name: str
    spec: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind_name} {self.name}"


@dataclass(frozen=True)
class ApplyResult:
    """The result of applying a resource. job_id: the id of a submitted job."""

    word: str
    job_id: str | None = None

    def __str__(self) -> str:
        return f"{self.word} as {self.job_id}" if self.job_id else self.word

    @property
    def fields(self) -> dict[str, str]:
        return {"outcome": self.word} | ({"jobId": self.job_id} if self.job_id else {})


def apply_command(engine: "EngineCommands") -> Callable[..., None]:
    """Build `labrats apply`; `engine` validates the resources."""

    def apply(
        *more: Annotated[str, Parameter(show=False)],
        file: Annotated[
            list[str],
            # `-` is a value, too. The shell expands `-f rats/*.yaml`; `more` takes all files but the first.
            Parameter(alias="-f", consume_multiple=False, allow_leading_hyphen=True, negative=(), metavar="FILE"),
        ],
        dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
        options: ApiOptions = DEFAULTS,
    ) -> None:
        """Create or change resources from files in the YAML format of kubectl.

        Prints for each resource whether it was created, configured or unchanged.
        All documents are validated before the first resource is written.
        Fields that a `spec` omits get their defaults.
        A job (InferenceRequest) is submitted only once for each name.

        Args:
            more: Further files.
            file: A file, a folder of files (.yaml, .yml, .json), or - for standard input. Repeatable.
            dry_run: Only print what would be done.
        """
        from labrats.cli.yaml_files import read_documents

        documents = [document for source in (*file, *more) for document in read_documents(source)]
        resources = [each for document in documents for each in _resources_in(document)]
        if not resources:
            print_stderr("nothing to apply")
        _check(resources, engine.problems_in)
        with options.connect() as client:
            for each, result in _apply_all(client, resources, dry_run):
                if options.json:
                    print_text(json.dumps({"kind": each.kind_name, "name": each.name} | result.fields))
                else:
                    print_text(f"{each} {result}{' (dry run)' if dry_run else ''}")

    return apply


def export(*, options: ApiOptions = DEFAULTS) -> None:
    """Print all agents, instructions, models, settings and webhook sources as YAML for `labrats apply` or kubectl.

    Secrets are referenced by name only. Jobs are omitted, because applying them would run them again.
    """
    from labrats.cli.resource_kinds import KINDS
    from labrats.cli.yaml_files import as_yaml

    with options.connect() as client:
        manifests = [kind.manifest(view) for kind in KINDS for view in kind.all(client)]
    if options.json:
        print_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}, ensure_ascii=False))
    elif manifests:
        print_text("---\n".join(as_yaml(each) for each in manifests).rstrip("\n"))
    else:
        print_stderr("nothing to export")


def _resources_in(document: "YamlDocument") -> Iterator[DesiredResource]:
    """Yield the resource in a document, or all resources of a List. Raises CommandError."""
    from labrats.cli.yaml_files import YamlDocument

    value, place = document.value, document.place
    if not isinstance(value, dict):
        raise _usage_error(place, "must be an object with apiVersion, kind, metadata and spec")
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for number, item in enumerate(value["items"]):
            yield from _resources_in(YamlDocument(f"{place}, items[{number}]", item))
        return
    yield _resource_in(place, value)


def _resource_in(place: str, value: dict[str, Any]) -> DesiredResource:
    from labrats.cli.resource_kinds import API_VERSION, JOB, KINDS

    if value.get("apiVersion") != API_VERSION:
        raise _usage_error(place, f"apiVersion: must be {API_VERSION}")
    if unknown := [name for name in value if name not in _FIELDS]:
        raise _usage_error(place, f"{unknown[0]}: there is no such field; the fields are {', '.join(_FIELDS)}")
    kinds = {kind.name: kind for kind in KINDS}
    if (kind_name := value.get("kind")) not in (JOB, *kinds):
        raise _usage_error(place, f"kind: must be one of {', '.join((JOB, *kinds))}")
    metadata, spec = value.get("metadata"), value.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise _usage_error(place, "metadata.name: is required")
    if not isinstance(spec, dict):
        raise _usage_error(place, "spec: must be an object")
    if kind_name == "AiConfig" and name != AI_CONFIG_NAME:
        raise _usage_error(place, f"metadata.name: the only AiConfig is named {AI_CONFIG_NAME}")
    return DesiredResource(place, kinds.get(kind_name), kind_name, name, spec)


def _check(resources: Sequence[DesiredResource], problems_in: "ProblemsIn") -> None:
    """Raise one CommandError that lists the problems of all documents."""
    errors = [f"{each.place}: {problem}" for each in resources for problem in _problems(each, problems_in)]
    places: dict[str, str] = {}
    errors += [
        f"{each.place}: {each} is also defined in {first}"
        for each in resources
        if (first := places.setdefault(str(each), each.place)) != each.place
    ]
    if errors:
        raise CommandError("\n".join(errors), ExitCode.USAGE)


def _problems(resource: DesiredResource, problems_in: "ProblemsIn") -> Iterator[str]:
    """Yield the problems that the API would report, or else those that the API server of a cluster would.

    A resource in a file has no `secret` field and fewer defaults than a request to the API.
    """
    if problems := problems_in(resource.kind_name, resource.name, resource.spec):
        yield from (f"{problem.field}: {problem.message}" for problem in problems)
    elif resource.kind:
        for name in sorted(resource.spec.keys() - resource.kind.fields):
            yield f"spec.{name}: there is no such field in a file"
        try:
            resource.kind.record(resource.spec)
        except msgspec.ValidationError as error:
            yield f"spec: {error}"


def _apply_all(
    client: "Client", resources: Sequence[DesiredResource], dry_run: bool
) -> Iterator[tuple[DesiredResource, ApplyResult]]:
    """Write the resources in the order of their dependencies. Yield each with its result."""
    from labrats.cli.resource_kinds import KINDS

    for kind in KINDS:
        of_kind = [each for each in resources if each.kind is kind]
        found = {view["name"]: view for view in kind.all(client)} if of_kind else {}
        for each in of_kind:
            with _errors_located(each):
                result = _write(client, kind, each, found.get(each.name), dry_run)
            yield each, result
    for each in resources:
        if each.kind is None:
            with _errors_located(each):
                result = ApplyResult(CREATED) if dry_run else _submit(client, each)
            yield each, result


@contextmanager
def _errors_located(resource: DesiredResource) -> Iterator[None]:
    """Add the document and the resource to the message of a CommandError in the block."""
    try:
        yield
    except CommandError as error:
        raise CommandError(f"{resource.place}: {resource}: {error}", error.code) from error


def _write(
    client: "Client", kind: "ResourceKind", resource: DesiredResource, found: "View | None", dry_run: bool
) -> ApplyResult:
    spec = kind.record(resource.spec)
    if found is None:
        if not dry_run:
            kind.create(client, resource.name, msgspec.to_builtins(spec))
        return ApplyResult(CREATED)
    if kind.matches(found, spec):
        return ApplyResult(UNCHANGED)
    if not dry_run:
        kind.change(client, found, spec)
    return ApplyResult(CONFIGURED)


def _submit(client: "Client", resource: DesiredResource) -> ApplyResult:
    """Submit the job, unless it was submitted under this name before. The engine chooses the id in the result."""
    answer = client.post("/api/jobs/submit", resource.spec, {"Idempotency-Key": f"apply/{resource.name}"})
    replayed = "Idempotent-Replayed" in answer.headers
    return ApplyResult(UNCHANGED if replayed else CREATED, answer.json()["jobId"])


def _usage_error(place: str, sentence: str) -> CommandError:
    return CommandError(f"{place}: {sentence}", ExitCode.USAGE)

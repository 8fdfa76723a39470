"""The commands that write resources down and take them up again: apply and export."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import Parameter

from labrats.cli.exits import CommandError, ExitCode
from labrats.cli.options import DEFAULTS, ApiOptions
from labrats.cli.output import print_text, remark
from labrats.model.ai_config import AI_CONFIG_NAME

if TYPE_CHECKING:
    from labrats.cli.client import Client
    from labrats.cli.engine import EngineCommands, ProblemsIn
    from labrats.cli.kinds import Kind, View
    from labrats.cli.yaml_files import Document

_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec", "status")

CREATED, CONFIGURED, UNCHANGED = "created", "configured", "unchanged"


@dataclass(frozen=True)
class Wanted:
    """A resource as its document wants it. kind: None for a job."""

    place: str
    kind: "Kind | None"
    kind_name: str
    name: str
    spec: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind_name} {self.name}"


@dataclass(frozen=True)
class Outcome:
    """What was done with a resource. job_id: what the engine calls it, where it is a job."""

    word: str
    job_id: str | None = None

    def __str__(self) -> str:
        return f"{self.word} as {self.job_id}" if self.job_id else self.word

    @property
    def fields(self) -> dict[str, str]:
        return {"outcome": self.word} | ({"jobId": self.job_id} if self.job_id else {})


def apply_command(engine: "EngineCommands") -> Callable[..., None]:
    """`labrats apply`."""

    def apply(
        *more: Annotated[str, Parameter(show=False)],
        file: Annotated[
            list[str],
            # `-` is a value, too; and the rest of what a shell makes of `-f rats/*.yaml` is `more`
            Parameter(alias="-f", consume_multiple=False, allow_leading_hyphen=True, negative=(), metavar="FILE"),
        ],
        dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
        options: ApiOptions = DEFAULTS,
    ) -> None:
        """Create or change resources as files say: the YAML that kubectl takes.

        Says of each whether it was created, configured or unchanged.
        All documents are checked before the first one is written.
        What a file leaves out of a `spec` gets its default.
        A job (InferenceRequest) is submitted once by its name.

        Args:
            more: Further ones.
            file: A file, a folder of files (.yaml, .yml, .json), or - for standard input. Repeatable.
            dry_run: Only say what would be done.
        """
        from labrats.cli.yaml_files import read_documents

        documents = [document for source in (*file, *more) for document in read_documents(source)]
        wanted = [each for document in documents for each in _resources_in(document)]
        if not wanted:
            remark("there is nothing to apply")
        _check(wanted, engine.problems_in)
        with options.connect() as client:
            for each, outcome in _outcomes(client, wanted, dry_run):
                if options.json:
                    print_text(json.dumps({"kind": each.kind_name, "name": each.name} | outcome.fields))
                else:
                    print_text(f"{each} {outcome}{' (dry run)' if dry_run else ''}")

    return apply


def export(*, options: ApiOptions = DEFAULTS) -> None:
    """Print all agents, instructions, models, settings and webhook sources as YAML that apply takes, and kubectl.

    Secrets are named, and not told. Jobs are left out: they would be run again.
    """
    from labrats.cli.kinds import KINDS
    from labrats.cli.yaml_files import as_yaml

    with options.connect() as client:
        manifests = [kind.manifest(view) for kind in KINDS for view in kind.all(client)]
    if options.json:
        print_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}, ensure_ascii=False))
    elif manifests:
        print_text("---\n".join(as_yaml(each) for each in manifests).rstrip("\n"))
    else:
        remark("there is nothing to export")


def _resources_in(document: "Document") -> Iterator[Wanted]:
    """What the document wants: one resource, or all of a List. Raises CommandError."""
    from labrats.cli.yaml_files import Document

    value, place = document.value, document.place
    if not isinstance(value, dict):
        raise _wrong(place, "must be an object with apiVersion, kind, metadata and spec")
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for number, item in enumerate(value["items"]):
            yield from _resources_in(Document(f"{place}, items[{number}]", item))
        return
    yield _resource_in(place, value)


def _resource_in(place: str, value: dict[str, Any]) -> Wanted:
    from labrats.cli.kinds import API_VERSION, JOB, KINDS

    if value.get("apiVersion") != API_VERSION:
        raise _wrong(place, f"apiVersion: must be {API_VERSION}")
    if stray := [name for name in value if name not in _FIELDS]:
        raise _wrong(place, f"{stray[0]}: there is no such field; there are {', '.join(_FIELDS)}")
    kinds = {kind.name: kind for kind in KINDS}
    if (kind_name := value.get("kind")) not in (JOB, *kinds):
        raise _wrong(place, f"kind: must be one of {', '.join((JOB, *kinds))}")
    metadata, spec = value.get("metadata"), value.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise _wrong(place, "metadata.name: is required")
    if not isinstance(spec, dict):
        raise _wrong(place, "spec: must be an object")
    if kind_name == "AiConfig" and name != AI_CONFIG_NAME:
        raise _wrong(place, f"metadata.name: there is one AiConfig, named {AI_CONFIG_NAME}")
    return Wanted(place, kinds.get(kind_name), kind_name, name, spec)


def _check(wanted: Sequence[Wanted], problems_in: "ProblemsIn") -> None:
    """Raises CommandError that names everything wrong in any document."""
    wrong = [f"{each.place}: {problem}" for each in wanted for problem in _problems(each, problems_in)]
    places: dict[str, str] = {}
    wrong += [
        f"{each.place}: {each} stands in {first} too"
        for each in wanted
        if (first := places.setdefault(str(each), each.place)) != each.place
    ]
    if wrong:
        raise CommandError("\n".join(wrong), ExitCode.USAGE)


def _problems(wanted: Wanted, problems_in: "ProblemsIn") -> Iterator[str]:
    """As the API would find them, and as kubectl would: it knows no `secret`, and some defaults less."""
    if problems := problems_in(wanted.kind_name, wanted.name, wanted.spec):
        yield from (f"{problem.field}: {problem.message}" for problem in problems)
    elif wanted.kind:
        for name in sorted(wanted.spec.keys() - wanted.kind.fields):
            yield f"spec.{name}: there is no such field in a file"
        try:
            wanted.kind.record(wanted.spec)
        except msgspec.ValidationError as error:
            yield f"spec: {error}"


def _outcomes(client: "Client", wanted: Sequence[Wanted], dry_run: bool) -> Iterator[tuple[Wanted, Outcome]]:
    """Each resource in the order in which they can be written, and what was done with it."""
    from labrats.cli.kinds import KINDS

    for kind in KINDS:
        of_kind = [each for each in wanted if each.kind is kind]
        found = {view["name"]: view for view in kind.all(client)} if of_kind else {}
        for each in of_kind:
            with _errors_placed(each):
                outcome = _write(client, kind, each, found.get(each.name), dry_run)
            yield each, outcome
    for each in wanted:
        if each.kind is None:
            with _errors_placed(each):
                outcome = Outcome(CREATED) if dry_run else _submit(client, each)
            yield each, outcome


@contextmanager
def _errors_placed(wanted: Wanted) -> Iterator[None]:
    """Errors in the block say which document they are about."""
    try:
        yield
    except CommandError as error:
        raise CommandError(f"{wanted.place}: {wanted}: {error}", error.code) from error


def _write(client: "Client", kind: "Kind", wanted: Wanted, found: "View | None", dry_run: bool) -> Outcome:
    spec = kind.record(wanted.spec)
    if found is None:
        if not dry_run:
            kind.create(client, wanted.name, msgspec.to_builtins(spec))
        return Outcome(CREATED)
    if kind.is_like(found, spec):
        return Outcome(UNCHANGED)
    if not dry_run:
        kind.change(client, found, spec)
    return Outcome(CONFIGURED)


def _submit(client: "Client", wanted: Wanted) -> Outcome:
    """Submit the job, unless it was by this name. The engine gives it a name of its own, which is told."""
    answer = client.post("/api/jobs/submit", wanted.spec, {"Idempotency-Key": f"apply/{wanted.name}"})
    was_there = "Idempotent-Replayed" in answer.headers
    return Outcome(UNCHANGED if was_there else CREATED, answer.json()["jobId"])


def _wrong(place: str, sentence: str) -> CommandError:
    return CommandError(f"{place}: {sentence}", ExitCode.USAGE)

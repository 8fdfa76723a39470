"""`labrats apply` and `labrats export`."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.engines import Labrats, ScriptedEngine

INSTRUCTION = {"content": "Do it well.", "scope": "global"}
AGENT: dict[str, Any] = {
    "triggerName": "developer",
    "eventTriggers": [{"source": "github", "events": ["issues.*"], "config": {"model": "opus"}}],
    "instructions": ["conduct"],
}
MODEL: dict[str, Any] = {"provider": "claude", "model": "opus", "slots": 2, "prices": {"input": 5, "output": 25.0}}
CONFIG: dict[str, Any] = {"model": "opus", "providers": {"codex": {"model": "o3"}}}
JOB: dict[str, Any] = {"source": "manual", "type": "code-review", "prompt": "Look at it."}

INSTRUCTION_VIEW = {
    "id": "conduct", "name": "conduct", "content": "Do it well.", "scope": "global", "displayName": "",
    "description": "", "priority": 0, "resourceVersion": "7",
}  # fmt: skip
AGENT_VIEW: dict[str, Any] = {
    "id": "developer", "name": "developer", "triggerName": "developer", "enabled": True, "defaultModel": None,
    "defaultEffort": None, "defaultProvider": None, "resourceVersion": "8", "instructions": ["conduct"],
    "eventTriggers": [{
        "source": "github", "events": ["issues.*"], "instruction": None, "config": {"model": "opus"}, "filters": {},
        "enabled": True, "next": None,
    }],
}  # fmt: skip
MODEL_VIEW: dict[str, Any] = {
    "id": "opus", "name": "opus", "provider": "claude", "model": "opus", "slots": 2, "endpoint": None,
    "credentialsRef": None, "prices": {"input": 5.0, "output": 25.0, "cacheRead": None, "cacheWrite": None},
    "assumedCacheRead": 0.5, "sampling": None,
    "active": 1, "queued": 3,
    "pausedUntil": None, "resourceVersion": "9",
}  # fmt: skip
CONFIG_VIEW: dict[str, Any] = {
    "model": "opus", "effort": None, "executorImage": None, "executorResources": {}, "resourceVersion": "10",
    "providers": {"codex": {"model": "o3"}},
}  # fmt: skip
SOURCE_VIEW: dict[str, Any] = {
    "id": "github", "name": "github", "type": "github", "enabled": True,
    "secretRef": {"name": "github-secret", "key": "secret"}, "host": None, "path": None, "ingressClassName": None,
    "tlsSecretName": None, "defaults": {}, "repoOverrides": {}, "allowForks": False, "credentialsRef": None,
    "allowedAssociations": ["OWNER", "MEMBER", "COLLABORATOR"], "url": "http://engine/webhooks/github",
    "conditions": [], "lastDeliveryAt": None, "deliveries": 3, "refusedDeliveries": 1, "resourceVersion": "11",
}  # fmt: skip


def a_manifest(kind: str, name: str, spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "labrats.work/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec} | fields


AGENT_MANIFEST = a_manifest("AiAgent", "developer", AGENT)
INSTRUCTION_MANIFEST = a_manifest("AiInstruction", "conduct", INSTRUCTION)
MODEL_MANIFEST = a_manifest("AiModel", "opus", MODEL)
CONFIG_MANIFEST = a_manifest("AiConfig", "default", CONFIG)
SOURCE_MANIFEST = a_manifest("WebhookSource", "github", {"type": "github"})
ALL = [AGENT_MANIFEST, SOURCE_MANIFEST, CONFIG_MANIFEST, MODEL_MANIFEST, INSTRUCTION_MANIFEST]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rats.yaml"


def write(file: Path, *manifests: dict[str, Any]) -> str:
    file.write_text(yaml.safe_dump_all(manifests))
    return str(file)


@pytest.fixture
def empty(engine: ScriptedEngine) -> ScriptedEngine:
    """Script an engine without resources that accepts new ones."""
    for path, plural in (
        ("instructions", "instructions"), ("ai-models", "aiModels"), ("agents", "agents"),
        ("webhook-sources", "webhookSources"),
    ):  # fmt: skip
        engine.answers(f"GET /api/{path}", {plural: []})
        engine.answers(f"POST /api/{path}", {}, status=201)
    engine.answers("GET /api/config/defaults", CONFIG_VIEW | {"resourceVersion": None, "model": None, "providers": {}})
    engine.answers("PUT /api/config/defaults", {})
    return engine


@pytest.fixture
def full(engine: ScriptedEngine) -> ScriptedEngine:
    """Script an engine that has the resources of the manifests above and accepts changes."""
    for path, plural, view in (
        ("instructions", "instructions", INSTRUCTION_VIEW), ("ai-models", "aiModels", MODEL_VIEW),
        ("agents", "agents", AGENT_VIEW), ("webhook-sources", "webhookSources", SOURCE_VIEW),
    ):  # fmt: skip
        engine.answers(f"GET /api/{path}", {plural: [view]})
        engine.answers(f"PATCH /api/{path}/{view['name']}", {})
    engine.answers("GET /api/config/defaults", CONFIG_VIEW)
    engine.answers("PUT /api/config/defaults", {})
    return engine


def writes(engine: ScriptedEngine) -> list[tuple[str, Any]]:
    """Return the writing requests in order."""
    return [
        (f"{request.method} {request.path}", request.json) for request in engine.requests if request.method != "GET"
    ]


def test_apply_creates_missing_resources_in_order_of_dependency(
    labrats: Labrats, empty: ScriptedEngine, file: Path
) -> None:
    ended = labrats("apply", "-f", write(file, *ALL))

    assert ended.out.splitlines() == [
        "AiInstruction conduct created", "AiModel opus created", "AiConfig default created",
        "AiAgent developer created", "WebhookSource github created",
    ]  # fmt: skip
    assert ended.code == 0
    assert writes(empty) == [
        ("POST /api/instructions", {"name": "conduct", **INSTRUCTION}),
        ("POST /api/ai-models", {"name": "opus", **MODEL}),
        ("PUT /api/config/defaults", CONFIG),
        ("POST /api/agents", {"name": "developer", **AGENT}),
        ("POST /api/webhook-sources", {"name": "github", "type": "github"}),
    ]


def test_apply_leaves_matching_resources_unchanged(labrats: Labrats, full: ScriptedEngine, file: Path) -> None:
    ended = labrats("apply", "-f", write(file, *ALL))

    assert [line.split()[-1] for line in ended.out.splitlines()] == ["unchanged"] * 5
    assert writes(full) == []


def test_apply_changes_differing_fields_and_resets_omitted_ones_to_defaults(
    labrats: Labrats, full: ScriptedEngine, file: Path
) -> None:
    changed = [
        a_manifest("AiInstruction", "conduct", {"content": "Do it better."}),
        a_manifest("AiModel", "opus", {"provider": "claude", "model": "opus", "slots": 3}),
        a_manifest("AiConfig", "default", {"effort": "high", "providers": {"claude": {"model": "opus"}}}),
        a_manifest("AiAgent", "developer", {"triggerName": "developer", "enabled": False}),
        a_manifest("WebhookSource", "github", {"type": "generic"}),
    ]

    ended = labrats("apply", "-f", write(file, *changed))

    assert [line.split()[-1] for line in ended.out.splitlines()] == ["configured"] * 5
    assert writes(full) == [
        (
            "PATCH /api/instructions/conduct",
            {"content": "Do it better.", "scope": "local", "resourceVersion": "7"},
        ),
        ("PATCH /api/ai-models/opus", {"slots": 3, "prices": None, "resourceVersion": "9"}),
        (
            "PUT /api/config/defaults",
            {
                "model": None, "effort": "high", "providers": {"codex": None, "claude": {"model": "opus"}},
                "resourceVersion": "10",
            },
        ),
        (
            "PATCH /api/agents/developer",
            {"enabled": False, "eventTriggers": [], "instructions": [], "resourceVersion": "8"},
        ),
        ("PATCH /api/webhook-sources/github", {"type": "generic", "resourceVersion": "11"}),
    ]  # fmt: skip


def test_apply_leaves_omitted_slots_of_a_new_model_to_the_engine(
    labrats: Labrats, empty: ScriptedEngine, file: Path
) -> None:
    ended = labrats("apply", "-f", write(file, a_manifest("AiModel", "opus", {"provider": "claude", "model": "opus"})))

    assert (ended.code, ended.out) == (0, "AiModel opus created\n")
    assert writes(empty) == [("POST /api/ai-models", {"name": "opus", "provider": "claude", "model": "opus"})]


def test_dry_run_reports_changes_and_writes_nothing(labrats: Labrats, full: ScriptedEngine, file: Path) -> None:
    other = a_manifest("AiModel", "other", MODEL | {"model": "sonnet"})
    changed = a_manifest("AiInstruction", "conduct", {"content": "Do it better."})

    ended = labrats(
        "apply",
        "--dry-run",
        "-f",
        write(file, other, changed, AGENT_MANIFEST, a_manifest("InferenceRequest", "one", JOB)),
    )

    assert ended.out.splitlines() == [
        "AiInstruction conduct configured (dry run)", "AiModel other created (dry run)",
        "AiAgent developer unchanged (dry run)", "InferenceRequest one created (dry run)",
    ]  # fmt: skip
    assert writes(full) == []


def test_apply_reads_standard_input(
    labrats: Labrats, empty: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(write(file, MODEL_MANIFEST)).read_bytes())))
    assert labrats("apply", "-f", "-", "--dry-run") == (0, "AiModel opus created (dry run)\n", "")


def test_apply_accepts_files_expanded_by_the_shell(labrats: Labrats, empty: ScriptedEngine, tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.yaml", MODEL_MANIFEST), write(tmp_path / "2.yaml", INSTRUCTION_MANIFEST)

    for arguments in ((one, two), (one, "-f", two)):
        ended = labrats("apply", "-f", *arguments, "--dry-run")
        assert ended.out.splitlines() == ["AiInstruction conduct created (dry run)", "AiModel opus created (dry run)"]


def test_apply_reports_an_empty_file(labrats: Labrats, file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert labrats("apply", "-f", str(file)) == (0, "", "nothing to apply\n")


def test_apply_submits_a_job_with_its_name_as_idempotency_key(
    labrats: Labrats, engine: ScriptedEngine, file: Path
) -> None:
    engine.answers("POST /api/jobs/submit", {"jobId": "ir-3ab1c2d4"}, status=201)

    ended = labrats("apply", "-f", write(file, a_manifest("InferenceRequest", "nightly", JOB)))

    assert ended.out == "InferenceRequest nightly created as ir-3ab1c2d4\n"
    (request,) = engine.requests
    assert request.json == JOB
    assert request.headers["Idempotency-Key"] == "apply/nightly"


def test_apply_json_prints_one_line_per_resource(labrats: Labrats, full: ScriptedEngine, file: Path) -> None:
    full.answers("POST /api/jobs/submit", {"jobId": "ir-3ab1c2d4"}, status=201)

    ended = labrats("apply", "--json", "-f", write(file, MODEL_MANIFEST, a_manifest("InferenceRequest", "one", JOB)))

    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {"kind": "AiModel", "name": "opus", "outcome": "unchanged"},
        {"kind": "InferenceRequest", "name": "one", "outcome": "created", "jobId": "ir-3ab1c2d4"},
    ]


def test_apply_accepts_a_list_from_kubectl(labrats: Labrats, full: ScriptedEngine, file: Path) -> None:
    """`kubectl get labrats -o yaml` prints a List whose items have a status and metadata from the cluster."""
    item = AGENT_MANIFEST | {
        "metadata": {"name": "developer", "namespace": "labrats", "uid": "1", "generation": 2}, "status": {},
    }  # fmt: skip

    ended = labrats("apply", "-f", write(file, {"apiVersion": "v1", "kind": "List", "items": [item]}))

    assert ended.out == "AiAgent developer unchanged\n"


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (a_manifest("AiAgent", "developer", AGENT, apiVersion="v1"), "apiVersion: must be labrats.work/v1alpha1"),
        (a_manifest("AiAgnet", "developer", AGENT), "kind: must be one of InferenceRequest, AiInstruction"),
        (a_manifest("AiAgent", "developer", AGENT, metadata={}), "metadata.name: is required"),
        (a_manifest("AiAgent", "developer", AGENT, metadata=None), "metadata.name: is required"),
        (a_manifest("AiAgent", "Developer", AGENT), "metadata.name: must be lower-case letters"),
        (a_manifest("AiAgent", "developer", AGENT) | {"spec": []}, "spec: must be an object"),
        (a_manifest("AiAgent", "developer", AGENT, specs={}), "specs: there is no such field"),
        (a_manifest("AiAgent", "developer", {}), "missing required field `triggerName`"),
        (a_manifest("AiAgent", "developer", AGENT | {"enabeld": True}), "spec.enabeld: there is no such field"),
        (a_manifest("AiAgent", "developer", AGENT | {"defaultEffort": "utmost"}), "spec.defaultEffort: must be 'low'"),
        (
            a_manifest("AiAgent", "developer", AGENT | {"eventTriggers": [{"source": "github", "events": []}]}),
            "spec.eventTriggers[0].events: ",
        ),
        (a_manifest("AiModel", "opus", MODEL | {"slots": "two"}), "spec.slots: "),
        (a_manifest("AiConfig", "mine", CONFIG), "metadata.name: the only AiConfig is named default"),
        (a_manifest("AiConfig", "default", {"resourceVersion": "1"}), "spec.resourceVersion: there is no such field"),
        (
            a_manifest("WebhookSource", "github", {"type": "github", "secret": "a-secret-of-a-test"}),
            "spec.secret: there is no such field",
        ),
        (a_manifest("WebhookSource", "github", {"type": "gitlab"}), "spec.type: must be 'github' or 'generic'"),
        (a_manifest("InferenceRequest", "one", {"source": "manual", "type": "x"}), "spec.prompt: is required"),
        (a_manifest("InferenceRequest", "one", JOB | {"owner": "me"}), "spec.owner: there is no such field"),
    ],
)
def test_apply_reports_document_and_field_of_an_error_before_any_write(
    labrats: Labrats, empty: ScriptedEngine, file: Path, manifest: dict[str, Any], words: str
) -> None:
    ended = labrats("apply", "-f", write(file, INSTRUCTION_MANIFEST, manifest))

    assert ended.code == 2
    assert f"{file}, line " in ended.err
    assert words in ended.err
    assert writes(empty) == []


def test_apply_reports_all_errors_at_once(labrats: Labrats, empty: ScriptedEngine, file: Path) -> None:
    wrong = [a_manifest("AiModel", f"model-{number}", MODEL | {"slots": -1}) for number in range(3)]

    ended = labrats("apply", "-f", write(file, *wrong))

    assert ended.err.count("spec.slots: ") == 3


def test_apply_refuses_a_resource_that_is_defined_twice(labrats: Labrats, empty: ScriptedEngine, file: Path) -> None:
    ended = labrats("apply", "-f", write(file, AGENT_MANIFEST, MODEL_MANIFEST, AGENT_MANIFEST))

    assert "AiAgent developer is also defined in " in ended.err
    assert writes(empty) == []


def test_apply_names_the_document_that_the_engine_refused(labrats: Labrats, empty: ScriptedEngine, file: Path) -> None:
    empty.answers(
        "POST /api/agents", {"error": "the agent 'x' has the triggerName already", "code": "conflict"}, status=409
    )

    ended = labrats("apply", "-f", write(file, MODEL_MANIFEST, AGENT_MANIFEST))

    assert ended.out == "AiModel opus created\n"
    assert f"{file}, line " in ended.err
    assert "AiAgent developer: the agent 'x' has the triggerName already" in ended.err
    assert ended.code == 2


def test_export_prints_manifests_without_defaults(labrats: Labrats, full: ScriptedEngine) -> None:
    exported = list(yaml.safe_load_all(labrats("export").out))

    assert exported == [
        INSTRUCTION_MANIFEST, MODEL_MANIFEST, CONFIG_MANIFEST, AGENT_MANIFEST,
        a_manifest("WebhookSource", "github", {"type": "github", "secretRef": SOURCE_VIEW["secretRef"]}),
    ]  # fmt: skip


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_applying_an_export_changes_nothing(
    labrats: Labrats, full: ScriptedEngine, file: Path, option: tuple[str, ...]
) -> None:
    file.write_text(labrats("export", *option).out)

    ended = labrats("apply", "-f", str(file))

    assert [line.split()[-1] for line in ended.out.splitlines()] == ["unchanged"] * 5


def test_export_of_an_empty_engine_reports_nothing_to_export(labrats: Labrats, empty: ScriptedEngine) -> None:
    assert labrats("export") == (0, "", "nothing to export\n")

"""`labrats get`, `labrats describe` and `labrats delete`."""

import json

import pytest
import yaml

from tests.unit.cli.engines import Labrats, ScriptedEngine, a_job
from tests.unit.cli.test_apply import (
    AGENT_MANIFEST,
    AGENT_VIEW,
    CONFIG_MANIFEST,
    CONFIG_VIEW,
    INSTRUCTION_VIEW,
    MODEL_MANIFEST,
    MODEL_VIEW,
)


@pytest.mark.parametrize("kind", ["models", "model", "ai-models", "AiModel", "aimodels", "aim"])
def test_a_kind_has_several_names(labrats: Labrats, engine: ScriptedEngine, kind: str) -> None:
    engine.answers("GET /api/ai-models", {"aiModels": [MODEL_VIEW]})

    heading, row = labrats("get", kind).out.splitlines()

    assert heading.split() == ["NAME", "PROVIDER", "MODEL", "SLOTS", "ACTIVE", "QUEUED"]
    assert row.split() == ["opus", "claude", "opus", "2", "1", "3"]


def test_an_unknown_kind_is_refused_with_those_that_there_are(labrats: Labrats, engine: ScriptedEngine) -> None:
    ended = labrats("get", "pods")

    assert ended.code == 2
    assert "there are jobs, instructions, models, configs, agents, webhook-sources" in ended.err
    assert engine.requests == []


def test_one_is_got_by_its_name(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents/developer", AGENT_VIEW)

    assert labrats("get", "agent", "developer").out.splitlines()[1].split() == ["developer", "developer", "yes"]


def test_yaml_is_what_apply_takes(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/ai-models", {"aiModels": [MODEL_VIEW, MODEL_VIEW]})

    assert list(yaml.safe_load_all(labrats("get", "models", "-o", "yaml").out)) == [MODEL_MANIFEST] * 2


@pytest.mark.parametrize("option", [("-o", "json"), ("--json",)])
def test_json_is_what_the_api_says(labrats: Labrats, engine: ScriptedEngine, option: tuple[str, ...]) -> None:
    engine.answers("GET /api/agents", {"agents": [AGENT_VIEW]})
    engine.answers("GET /api/agents/developer", AGENT_VIEW)

    assert json.loads(labrats("get", "agents", *option).out) == [AGENT_VIEW]
    assert json.loads(labrats("get", "agents", "developer", *option).out) == AGENT_VIEW


def test_the_settings_are_the_one_config_once_they_were_written(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/config/defaults", CONFIG_VIEW)
    assert yaml.safe_load(labrats("get", "config", "default", "-o", "yaml").out) == CONFIG_MANIFEST
    assert labrats("get", "config", "other").code == 4

    engine.answers("GET /api/config/defaults", CONFIG_VIEW | {"resourceVersion": None})
    assert len(labrats("get", "config").out.splitlines()) == 1


def test_jobs_are_got_as_they_are_listed(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs", {"jobs": [a_job()], "total": 1, "page": 1, "limit": 20})
    engine.answers("GET /api/jobs/ir-3ab1c2d4", a_job())

    assert labrats("get", "jobs").out == labrats("jobs").out == labrats("get", "ir", "ir-3ab1c2d4").out
    assert yaml.safe_load(labrats("get", "job", "ir-3ab1c2d4", "-o", "yaml").out) == a_job()
    assert json.loads(labrats("get", "jobs", "-o", "json").out)["jobs"] == [a_job()]


def test_a_description_has_what_people_decided_and_what_the_engine_says(
    labrats: Labrats, engine: ScriptedEngine
) -> None:
    engine.answers("GET /api/ai-models/opus", MODEL_VIEW)

    described = yaml.safe_load(labrats("describe", "model", "opus").out)

    status = {"active": 1, "queued": 3, "pausedUntil": None, "resourceVersion": "9"}
    assert described == MODEL_MANIFEST | {"status": status}


def test_the_description_of_an_agent_has_all_instructions_that_it_works_by(
    labrats: Labrats, engine: ScriptedEngine
) -> None:
    engine.answers("GET /api/agents/developer", AGENT_VIEW)
    engine.answers("GET /api/agents/developer/instructions", {"instructions": [INSTRUCTION_VIEW]})

    described = yaml.safe_load(labrats("describe", "agent", "developer").out)

    assert described == AGENT_MANIFEST | {"status": {"resourceVersion": "8", "worksBy": ["conduct"]}}


def test_a_description_in_json_is_what_the_api_says(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents/developer", AGENT_VIEW)

    assert json.loads(labrats("describe", "agent", "developer", "--json").out) == AGENT_VIEW


def test_the_description_of_a_job_is_the_job_on_one_screen(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs/ir-3ab1c2d4", a_job())

    assert labrats("describe", "job", "ir-3ab1c2d4").out == labrats("job", "ir-3ab1c2d4").out


def test_one_is_deleted_by_its_name(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("DELETE /api/agents/developer", {})

    assert labrats("delete", "agent", "developer") == (0, "", "AiAgent developer is deleted\n")


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [("job", "ir-3ab1c2d4", "labrats cancel ir-3ab1c2d4"), ("config", "default", "apply one with an empty spec")],
)
def test_what_cannot_be_deleted_is_refused_with_what_to_do(
    labrats: Labrats, engine: ScriptedEngine, kind: str, name: str, words: str
) -> None:
    ended = labrats("delete", kind, name)

    assert ended.code == 2
    assert words in ended.err
    assert engine.requests == []

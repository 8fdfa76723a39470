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
def test_get_accepts_all_names_of_a_kind(labrats: Labrats, engine: ScriptedEngine, kind: str) -> None:
    engine.answers("GET /api/ai-models", {"aiModels": [MODEL_VIEW]})

    heading, row = labrats("get", kind).out.splitlines()

    assert heading.split() == ["NAME", "PROVIDER", "MODEL", "SLOTS", "ACTIVE", "QUEUED"]
    assert row.split() == ["opus", "claude", "opus", "2", "1", "3"]


def test_get_of_an_unknown_kind_lists_the_kinds(labrats: Labrats, engine: ScriptedEngine) -> None:
    ended = labrats("get", "pods")

    assert ended.code == 2
    assert "the kinds are jobs, instructions, models, configs, agents, webhook-sources" in ended.err
    assert engine.requests == []


def test_get_finds_a_resource_by_name(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents/developer", AGENT_VIEW)

    assert labrats("get", "agent", "developer").out.splitlines()[1].split() == ["developer", "developer", "yes"]


def test_get_shows_the_network_and_the_isolation_of_agents(labrats: Labrats, engine: ScriptedEngine) -> None:
    contained = AGENT_VIEW | {"defaultNetwork": {"allow": ["npm", "pypi"]}, "defaultIsolation": "vm"}
    engine.answers("GET /api/agents", {"agents": [contained, AGENT_VIEW | {"defaultNetwork": "none"}]})

    headings, listed, none = (line.split() for line in labrats("get", "agents").out.splitlines())

    assert headings[-2:] == ["NETWORK", "ISOLATION"]
    assert (listed[-2:], none[-1]) == (["npm,pypi", "vm"], "none")


def test_get_yaml_prints_manifests(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/ai-models", {"aiModels": [MODEL_VIEW, MODEL_VIEW]})

    assert list(yaml.safe_load_all(labrats("get", "models", "-o", "yaml").out)) == [MODEL_MANIFEST] * 2


@pytest.mark.parametrize("option", [("-o", "json"), ("--json",)])
def test_get_json_prints_the_resources_of_the_api(
    labrats: Labrats, engine: ScriptedEngine, option: tuple[str, ...]
) -> None:
    engine.answers("GET /api/agents", {"agents": [AGENT_VIEW]})
    engine.answers("GET /api/agents/developer", AGENT_VIEW)

    assert json.loads(labrats("get", "agents", *option).out) == [AGENT_VIEW]
    assert json.loads(labrats("get", "agents", "developer", *option).out) == AGENT_VIEW


def test_get_config_shows_the_settings_once_they_are_written(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/config/defaults", CONFIG_VIEW)
    assert yaml.safe_load(labrats("get", "config", "default", "-o", "yaml").out) == CONFIG_MANIFEST
    assert labrats("get", "config", "other").code == 4

    engine.answers("GET /api/config/defaults", CONFIG_VIEW | {"resourceVersion": None})
    assert len(labrats("get", "config").out.splitlines()) == 1


def test_get_jobs_prints_the_same_as_jobs(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs", {"jobs": [a_job()], "total": 1, "page": 1, "limit": 20})
    engine.answers("GET /api/jobs/ir-3ab1c2d4", a_job())

    assert labrats("get", "jobs").out == labrats("jobs").out == labrats("get", "ir", "ir-3ab1c2d4").out
    assert yaml.safe_load(labrats("get", "job", "ir-3ab1c2d4", "-o", "yaml").out) == a_job()
    assert json.loads(labrats("get", "jobs", "-o", "json").out)["jobs"] == [a_job()]


def test_describe_shows_spec_and_status(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/ai-models/opus", MODEL_VIEW)

    described = yaml.safe_load(labrats("describe", "model", "opus").out)

    status = {"assumedCacheRead": 0.5, "active": 1, "queued": 3, "pausedUntil": None, "resourceVersion": "9"}
    assert described == MODEL_MANIFEST | {"status": status}


def test_describe_agent_lists_its_instructions(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents/developer", AGENT_VIEW)
    engine.answers("GET /api/agents/developer/instructions", {"instructions": [INSTRUCTION_VIEW]})

    described = yaml.safe_load(labrats("describe", "agent", "developer").out)

    assert described == AGENT_MANIFEST | {"status": {"resourceVersion": "8", "worksBy": ["conduct"]}}


def test_describe_json_prints_the_resource_of_the_api(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/agents/developer", AGENT_VIEW)

    assert json.loads(labrats("describe", "agent", "developer", "--json").out) == AGENT_VIEW


def test_describe_job_prints_the_same_as_job(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/jobs/ir-3ab1c2d4", a_job())

    assert labrats("describe", "job", "ir-3ab1c2d4").out == labrats("job", "ir-3ab1c2d4").out


def test_delete_deletes_by_name(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("DELETE /api/agents/developer", {})

    assert labrats("delete", "agent", "developer") == (0, "", "AiAgent developer deleted\n")


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [("job", "ir-3ab1c2d4", "labrats cancel ir-3ab1c2d4"), ("config", "default", "apply one with an empty spec")],
)
def test_delete_of_an_undeletable_resource_says_what_to_do(
    labrats: Labrats, engine: ScriptedEngine, kind: str, name: str, words: str
) -> None:
    ended = labrats("delete", kind, name)

    assert ended.code == 2
    assert words in ended.err
    assert engine.requests == []

"""`labrats model …`."""

from tests.unit.cli.engines import Labrats, ScriptedEngine

MODEL = {
    "name": "claude-opus",
    "provider": "claude",
    "model": "opus",
    "slots": 2,
    "endpoint": None,
    "active": 1,
    "queued": 3,
    "pausedUntil": None,
}


def test_model_list_shows_active_and_queued_jobs(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/ai-models", {"aiModels": [MODEL]})
    heading, row = labrats("model", "list").out.splitlines()
    assert heading.split() == ["NAME", "PROVIDER", "MODEL", "SLOTS", "ACTIVE", "QUEUED", "PAUSED", "UNTIL", "ENDPOINT"]
    assert row.split() == ["claude-opus", "claude", "opus", "2", "1", "3"]


def test_model_list_shows_the_end_of_a_pause(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("GET /api/ai-models", {"aiModels": [MODEL | {"pausedUntil": "2030-01-01T12:00:00Z"}]})
    assert "2030-01-01 12:00:00" in labrats("model", "list").out


def test_model_prices_say_whose_they_are(labrats: Labrats, engine: ScriptedEngine) -> None:
    own = {"input": 5, "output": 15, "cacheRead": 0.5, "cacheWrite": 5}
    models = [
        MODEL | {"name": "own", "effectivePrices": own, "priceSource": "own"},
        MODEL | {"name": "reported", "effectivePrices": None, "priceSource": "program"},
        MODEL | {"name": "new", "effectivePrices": None, "priceSource": "unknown"},
    ]
    engine.answers("GET /api/ai-models", {"aiModels": models})
    rows = [" ".join(row.split()) for row in labrats("model", "prices").out.splitlines()[1:]]
    assert rows == [
        "own opus 5 15 0.5 5 its own prices",
        "reported opus its program reports the cost",
        "new opus unknown: labrats model set new --input-price USD --output-price USD",
    ]


def test_model_create_sends_all_options(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/ai-models", MODEL, status=201)
    ended = labrats(
        *("model", "create", "local", "--provider", "vllm", "--model", "smol", "--slots", "2"),
        *("--endpoint", "http://10.0.0.5:8000/v1", "--credentials", "local", "--input-price", "0.5"),
        *("--output-price", "1", "--cache-read-price", "0", "--cache-write-price", "0.75"),
        *("--sampling", "temperature=0.2", "--sampling", "reasoningEffort=low"),
    )
    assert ended == (0, "", "local created\n")
    assert engine.requests[0].json == {
        "name": "local",
        "provider": "vllm",
        "model": "smol",
        "slots": 2,
        "endpoint": "http://10.0.0.5:8000/v1",
        "credentialsRef": "local",
        "prices": {"input": 0.5, "output": 1.0, "cacheRead": 0.0, "cacheWrite": 0.75},
        "sampling": {"temperature": 0.2, "reasoningEffort": "low"},
    }


def test_model_create_prints_warnings_of_the_engine(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("POST /api/ai-models", MODEL | {"warnings": ["there is no Secret 'local'"]}, status=201)
    ended = labrats("model", "create", "local", "--provider", "vllm", "--model", "smol", "--credentials", "local")

    assert ended == (0, "", "warning: there is no Secret 'local'\nlocal created\n")


def test_model_set_sends_only_given_options(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("PATCH /api/ai-models/claude-opus", MODEL)
    assert labrats("model", "set", "claude-opus", "--slots", "0").code == 0
    assert engine.requests[0].json == {"slots": 0}


def test_model_set_keeps_the_other_prices(labrats: Labrats, engine: ScriptedEngine) -> None:
    stored = {"input": 5, "output": 25, "cacheRead": None, "cacheWrite": None}
    engine.answers("GET /api/ai-models/claude-opus", MODEL | {"prices": stored})
    engine.answers("PATCH /api/ai-models/claude-opus", MODEL)

    assert labrats("model", "set", "claude-opus", "--cache-read-price", "0.4").code == 0
    assert engine.requests[1].json == {"prices": stored | {"cacheRead": 0.4}}


def test_model_set_without_options_is_refused(labrats: Labrats, engine: ScriptedEngine) -> None:
    assert labrats("model", "set", "claude-opus").code == 2
    assert engine.requests == []


def test_model_delete_deletes_by_name(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("DELETE /api/ai-models/claude-opus", {})
    assert labrats("model", "delete", "claude-opus") == (0, "", "claude-opus deleted\n")


def test_json_prints_the_answer_of_the_api_unchanged(labrats: Labrats, engine: ScriptedEngine) -> None:
    engine.answers("PATCH /api/ai-models/claude-opus", {"name": "claude-opus"})
    assert labrats("model", "set", "claude-opus", "--slots", "3", "--json").out == '{"name": "claude-opus"}\n'

"""`labrats apply` and `labrats export`: one engine's export gives another the same resources."""

from pathlib import Path

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine

MANIFESTS = Path(__file__).with_name("manifests")


@pytest.fixture
def engine(start_engine: EngineFactory) -> LocalEngine:
    """A new engine without any resources."""
    return start_engine()


class Apply:
    """A function that runs `labrats apply` and returns its result for each resource, by kind and name."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def __call__(self, *arguments: str) -> dict[str, str]:
        lines = self._engine.run_labrats("apply", *arguments, "--url", self._engine.url).splitlines()
        return {" ".join(line.split()[:2]): line.split()[2] for line in lines}


@pytest.fixture
def apply(engine: LocalEngine) -> Apply:
    return Apply(engine)


async def test_second_apply_of_the_same_files_changes_nothing(engine: LocalEngine, apply: Apply) -> None:
    first = apply("-f", str(MANIFESTS))
    second = apply("-f", str(MANIFESTS))

    assert {"AiInstruction house-rules", "AiAgent ai-fixer", "AiModel mock-1", "AiConfig default"} < first.keys()
    assert set(first.values()) == {"created"}
    assert second == dict.fromkeys(first, "unchanged")
    async with engine.admin() as admin:
        (job,) = (await admin.get("/api/jobs")).json()["jobs"]
        assert (job["source"], job["name"]) == ("manual", "code-review")
        assert (await admin.wait(job["id"]))["status"] == "completed"


async def test_dry_run_of_apply_changes_nothing(engine: LocalEngine, apply: Apply) -> None:
    assert set(apply("-f", str(MANIFESTS), "--dry-run").values()) == {"created"}

    assert engine.run_labrats("export", "--url", engine.url) == ""
    async with engine.admin() as admin:
        assert (await admin.get("/api/jobs")).json()["total"] == 0


def test_applied_export_makes_another_engine_export_the_same(
    engine: LocalEngine, apply: Apply, tmp_path_factory: pytest.TempPathFactory
) -> None:
    apply("-f", str(MANIFESTS))
    exported = engine.run_labrats("export", "--url", engine.url)
    folder = tmp_path_factory.mktemp("other")
    (folder / "export.yaml").write_text(exported)

    with LocalEngine(folder) as other:
        results = Apply(other)("-f", str(folder / "export.yaml"))

        assert set(results.values()) == {"created"}
        assert other.run_labrats("export", "--url", other.url) == exported

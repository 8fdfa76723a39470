"""One file for both: what `labrats apply` takes, kubectl takes, and what `labrats export` writes too."""

from pathlib import Path

import pytest

from tests.acceptance.engine import LocalEngine
from tests.acceptance.test_manifests import MANIFESTS
from tests.kubernetes.conftest import Kubectl

pytestmark = pytest.mark.kubernetes


def applied(kubectl: Kubectl, path: Path) -> list[str]:
    """What a real API server says of each resource, no field of which it may leave out of account."""
    return sorted(kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path)).splitlines())


async def test_the_files_that_labrats_applies_are_those_of_kubectl(kubectl: Kubectl) -> None:
    assert applied(kubectl, MANIFESTS) == [
        "aiagent.labrats.work/ai-checker created (server dry run)",
        "aiagent.labrats.work/ai-fixer created (server dry run)",
        "aiconfig.labrats.work/default created (server dry run)",
        "aiinstruction.labrats.work/house-rules created (server dry run)",
        "aiinstruction.labrats.work/one-liner created (server dry run)",
        "aimodel.labrats.work/local created (server dry run)",
        "aimodel.labrats.work/mock-1 created (server dry run)",
        "inferencerequest.labrats.work/first-look created (server dry run)",
        "webhooksource.labrats.work/github created (server dry run)",
    ]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """What an engine on this machine exports, to which the same files were applied."""
    file = tmp_path / "export.yaml"
    with LocalEngine(tmp_path) as engine:
        engine.run_labrats("apply", "-f", str(MANIFESTS), "--url", engine.url)
        file.write_text(engine.run_labrats("export", "--url", engine.url))
    return file


async def test_what_an_engine_of_one_machine_exports_kubectl_takes(kubectl: Kubectl, export: Path) -> None:
    said = applied(kubectl, export)

    assert len(said) == 8
    assert all(line.endswith(" created (server dry run)") for line in said)

"""kubectl accepts the manifests of `labrats apply` and the output of `labrats export`."""

from pathlib import Path

import pytest

from tests.acceptance.engine import LocalEngine
from tests.acceptance.test_manifests import MANIFESTS
from tests.kubernetes.conftest import Kubectl

pytestmark = pytest.mark.kubernetes


def applied(kubectl: Kubectl, path: Path) -> list[str]:
    """Return the output of a strict dry run of `kubectl apply`, one line per resource."""
    return sorted(kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path)).splitlines())


async def test_kubectl_accepts_the_manifests_that_labrats_apply_accepts(kubectl: Kubectl) -> None:
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
    """The export of an embedded engine to which the same manifests were applied."""
    file = tmp_path / "export.yaml"
    with LocalEngine(tmp_path) as engine:
        engine.run_labrats("apply", "-f", str(MANIFESTS), "--url", engine.url)
        file.write_text(engine.run_labrats("export", "--url", engine.url))
    return file


async def test_kubectl_accepts_the_export_of_an_embedded_engine(kubectl: Kubectl, export: Path) -> None:
    lines = applied(kubectl, export)

    assert len(lines) == 8
    assert all(line.endswith(" created (server dry run)") for line in lines)

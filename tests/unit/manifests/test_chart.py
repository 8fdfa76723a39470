"""The committed chart matches the code."""

import yaml

from labrats import __version__
from tests.chart.rendering import CHART, CRDS, custom_resource_files

REMEDY = "regenerate the manifests: make manifests"


def test_committed_crds_equal_the_generated_ones() -> None:
    committed = {file.name: file.read_text() for file in CRDS.iterdir()}
    assert committed == custom_resource_files(), REMEDY


def test_chart_version_equals_engine_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)

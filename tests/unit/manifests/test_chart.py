"""What is committed of the chart says what the code says."""

import yaml

from labrats import __version__
from tests.chart.rendering import CHART, CRDS, custom_resource_files

REMEDY = "write them anew: make manifests"


def test_the_custom_resources_of_the_chart_are_made_from_the_models() -> None:
    committed = {file.name: file.read_text() for file in CRDS.iterdir()}
    assert committed == custom_resource_files(), REMEDY


def test_the_chart_is_of_the_engines_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)

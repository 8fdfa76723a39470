"""Regenerate the committed custom resource definitions and plain manifests: `python -m tests.chart`."""

from tests.chart.rendering import write

write()

"""Writes what is committed of the chart and made from something else: its custom resources, the plain manifests."""

from tests.chart.rendering import write

write()
